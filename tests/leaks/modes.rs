//! The kinds of authentication and credentials, each with its own secrets.

use githubrunner_sim::{
    github::{GitHub, Level, Reach, Token, permissions},
    nomad::{self, Policy, TokenKind},
};
use ring::signature::{KeyPair, RsaKeyPair};

use crate::{
    common::site::{NAMESPACE, REPOSITORY, Site},
    echo::pem,
};

/// The daemon's token at Nomad.
pub const NOMAD_TOKEN: &str = "5ec2e700-0000-4000-8000-marked-nomad0";

/// The webhook secret, which does not look like a token.
pub const WEBHOOK_SECRET: &str = "marked words of the webhook";

/// The daemon's token at GitHub.
const TOKEN: &str = "ghp_markedMarkedMarkedMarkedMarked0001";

/// What runners get in `access_token` mode.
const ACCESS_TOKEN: &str = "ghp_markedMarkedMarkedMarkedMarked0002";

const CLIENT_ID: &str = "Iv1.0123456789abcdef";

/// A kind of credentials.
pub struct Mode {
    pub name: &'static str,
    /// The secrets in the configuration or the environment.
    pub secrets: Vec<String>,
    /// Those of them that `access_token` puts into jobs.
    pub in_jobs: &'static [&'static str],
    /// The kinds of secrets that must have been seen.
    pub kinds: &'static [&'static str],
    /// The section `github` without URL and cache file, and anything else.
    yaml: String,
    /// Prepares GitHub.
    pub prepare: fn(&mut GitHub),
}

fn with_token(name: &'static str, more: &str, yaml: &str, kinds: &'static [&'static str]) -> Mode {
    Mode {
        name,
        secrets: vec![TOKEN.to_owned(), NOMAD_TOKEN.to_owned(), WEBHOOK_SECRET.to_owned()],
        in_jobs: &[],
        kinds,
        yaml: format!("  token: {TOKEN}\n{more}{yaml}"),
        prepare: |github| github.add_token(TOKEN, Token::classic("octocat", &["repo"])),
    }
}

pub fn jit() -> Mode {
    with_token("jit", "", "template: builtin:raw_exec\n", &["given", "jit", "variable"])
}

pub fn token() -> Mode {
    with_token("token", "", "template: builtin:myoung34\n", &["given", "registration", "variable"])
}

pub fn access_token() -> Mode {
    Mode {
        secrets: vec![
            TOKEN.to_owned(),
            NOMAD_TOKEN.to_owned(),
            WEBHOOK_SECRET.to_owned(),
            ACCESS_TOKEN.to_owned(),
        ],
        in_jobs: &[ACCESS_TOKEN],
        prepare: |github| {
            github.add_token(TOKEN, Token::classic("octocat", &["repo"]));
            github.add_token(ACCESS_TOKEN, Token::classic("octocat", &["repo"]));
        },
        ..with_token(
            "access_token",
            &format!("  access_token: {ACCESS_TOKEN}\n"),
            "template: builtin:myoung34\n",
            &["given"],
        )
    }
}

pub fn app() -> Mode {
    let key = pem("PRIVATE KEY", include_bytes!("../fixtures/keys/app.pkcs8.der"));
    let indented = key.replace('\n', "\n      ");
    Mode {
        name: "app",
        secrets: vec![key, NOMAD_TOKEN.to_owned(), WEBHOOK_SECRET.to_owned()],
        in_jobs: &[],
        kinds: &["given", "jwt", "installation", "jit", "variable"],
        yaml: format!(
            "  app:\n    client_id: {CLIENT_ID}\n    private_key: |\n      {}\ntemplate: builtin:raw_exec\n",
            indented.trim_end()
        ),
        prepare: |github| {
            let pair = RsaKeyPair::from_pkcs8(include_bytes!("../fixtures/keys/app.pkcs8.der")).unwrap();
            let public = pair.public_key().as_ref().to_vec();
            let rights = permissions(&[
                ("actions", Level::Read),
                ("administration", Level::Write),
                ("metadata", Level::Read),
                ("repository_hooks", Level::Write),
            ]);
            let owner = github.repositories().next().unwrap().owner;
            let app = github.add_app(owner, CLIENT_ID, public, rights);
            github.install_app(app, owner, Reach::All);
        },
    }
}

/// A cluster that knows one token with the rights of the bundled policy.
pub fn cluster() -> nomad::Options {
    let policy = Policy::new(
        "githubrunner",
        NAMESPACE,
        &["list-jobs", "read-job", "submit-job"],
        &[
            ("githubrunner/*", &["read", "write"]),
            ("nomad/jobs/NTGithubRunner-*", &["list", "read", "write", "destroy"]),
        ],
    );
    let token = nomad::Token {
        secret: NOMAD_TOKEN.to_owned(),
        name: "githubrunner".to_owned(),
        kind: TokenKind::Client(vec![policy]),
    };
    nomad::Options { acl: true, tokens: vec![token], ..nomad::Options::default() }
}

/// The configuration's file.
pub fn config(mode: &Mode, site: &Site) -> String {
    format!(
        "repos: [{REPOSITORY}]\nloop: 0.2\n\
         scheduler: {{purge_successfull_timeout: 1s, purge_failure_timeout: 1s}}\n\
         webhook: {{secret: '{WEBHOOK_SECRET}', url: 'http://127.0.0.1:1/webhook', listen: '127.0.0.1:0'}}\n\
         github:\n  url: \"{}\"\n  cachefile: \"{}\"\n{}",
        site.github,
        site.cache_file().display(),
        mode.yaml,
    )
}
