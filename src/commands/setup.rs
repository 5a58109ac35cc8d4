//! Creates what the commands work with from a configuration and the environment.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    apply::{Apply, ApplyMode},
    config::{AppConfig, Config, CredentialConfig, CredentialSource, PrivateKey},
    daemon::Daemon,
    github::{self, Assigned, Auth, GitHub, Key, api_url},
    http::{Client, Endpoint, Options as HttpOptions, Proxy, TlsOptions},
    leadership::Leadership,
    model::NomadView,
    nomad::{self, Nomad, deployment_id},
    render::Renderer,
    secret::Secret,
};

/// The deadline for one exchange with GitHub, which responds within 10 s or not at all.
const GITHUB_DEADLINE: Duration = Duration::from_secs(20);

/// The largest response body. A page of 100 runs has about 2 MB.
const GITHUB_MAX_BODY: usize = 16 * 1024 * 1024;

/// What a command works with.
pub struct Setup {
    pub config: Config,
    /// The GitHub client. It does not connect until it is used.
    pub github: GitHub,
    /// The Nomad client. It does not connect until it is used.
    pub nomad: Nomad,
    /// The compiled template.
    pub renderer: Arc<Renderer>,
    pub mode: ApplyMode,
    /// Warnings besides the configuration's own.
    pub warnings: Vec<String>,
}

/// Reads an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Setup {
    /// Prepares everything. Nothing is sent yet.
    ///
    /// # Errors
    /// An address, certificate, key or template is invalid.
    pub fn new(config: Config, env: Environment, mode: ApplyMode) -> anyhow::Result<Self> {
        let region = env("NOMAD_REGION").filter(|region| !region.is_empty());
        let config = config.in_region(region.as_deref()).map_err(|error| anyhow!(error))?;
        let (github, nomad) = (github(&config, mode)?, nomad(&config, env, mode)?);
        let mut warnings = Vec::new();
        let exposed = |what: &str, address: &str| {
            format!("{what} is sent over plain http to {address}, where others can read it; use https")
        };
        if api_url(&config.github.url).is_ok_and(|url| Endpoint::Url(url).is_exposed()) {
            warnings.push(exposed("GitHub's token", &config.github.url));
        }
        let options = nomad.options();
        if options.token.is_some() && options.address.is_exposed() {
            warnings.push(exposed("Nomad's token", "NOMAD_ADDR"));
        }
        Ok(Setup { renderer: Arc::new(Renderer::new(&config)?), github, nomad, config, mode, warnings })
    }

    /// The daemon.
    pub fn into_daemon(self) -> Daemon {
        Daemon::new(self.config, self.github, self.nomad, self.renderer, self.mode)
    }

    /// What carries out plans.
    pub fn apply(&self, view: &NomadView) -> Apply {
        // Commands act for an operator, whichever replica is the leader.
        let leadership = Leadership::always();
        let Setup { github, nomad, renderer, config, mode, .. } = self;
        let (github, nomad, renderer) = (github.clone(), nomad.clone(), renderer.clone());
        Apply::new(config, github, nomad, renderer, &view.deployment, leadership, *mode)
    }
}

/// The GitHub client for the configuration.
fn github(config: &Config, mode: ApplyMode) -> anyhow::Result<GitHub> {
    let settings = &config.github;
    let api = api_url(&settings.url).map_err(|error| anyhow!("github.url: {error}"))?;
    let ca_files = settings.ca_file.iter().cloned().collect();
    let client = Client::new(
        Endpoint::from_url(api.clone())?,
        HttpOptions {
            deadline: GITHUB_DEADLINE,
            max_body: GITHUB_MAX_BODY,
            tls: TlsOptions { ca_files, ..TlsOptions::default() },
            proxy: Proxy::Environment,
            seed: seed()?,
            ..HttpOptions::default()
        },
    )
    .context("github.url")?;
    let auth = match (&settings.app, &settings.token, &settings.token_file) {
        (Some(app), ..) => auth_of(app),
        (None, Some(token), _) => Auth::Token(token.clone()),
        (None, None, Some(path)) => Auth::TokenFile(path.clone()),
        (None, None, None) => Auth::Token(Secret::new("")),
    };
    let file = settings.cachefile.clone();
    let cache = match mode {
        ApplyMode::DryRun => github::CacheStore::ReadFile(file),
        ApplyMode::Perform => github::CacheStore::File(file),
    };
    let interest = Some(Arc::new(config.interest()));
    let options = github::Options { cache, interest, ..github::Options::new(api) };
    let assigned = settings.credentials.iter().map(assigned).collect();
    Ok(GitHub::with(client, auth, assigned, options))
}

fn auth_of(app: &AppConfig) -> Auth {
    let key = match &app.private_key {
        PrivateKey::Inline(pem) => Key::Pem(pem.clone()),
        PrivateKey::File(path) => Key::File(path.clone()),
    };
    Auth::App { issuer: app.issuer.clone(), key }
}

/// The credentials for some owners.
fn assigned(credential: &CredentialConfig) -> Assigned {
    let auth = match &credential.source {
        CredentialSource::Token(token) => Auth::Token(token.clone()),
        CredentialSource::TokenFile(path) => Auth::TokenFile(path.clone()),
        CredentialSource::App(app) => auth_of(app),
    };
    Assigned { name: credential.name.clone(), owners: credential.owners.clone(), auth }
}

/// The Nomad client for the environment, with the configuration's namespace, prefix and Meta key.
fn nomad(config: &Config, env: Environment, mode: ApplyMode) -> anyhow::Result<Nomad> {
    let settings = &config.nomad;
    let options = nomad::Options::from_env(env, &settings.namespace, &settings.jobprefix, &settings.meta)?;
    let seed = seed()?;
    let new_deployment = deployment_id(&mut StdRng::seed_from_u64(seed));
    // The first start writes the deployment ID. Commands that only read do not.
    let elsewhere = config.elsewhere();
    let options = nomad::Options { seed, elsewhere, create_deployment: !mode.is_dry_run(), ..options };
    Ok(Nomad::new(options, new_deployment)?)
}

pub(super) fn seed() -> anyhow::Result<u64> {
    getrandom::u64().map_err(|error| anyhow!("the system provides no random numbers: {error}"))
}
