//! The real daemon, on in-memory connections to the simulated servers.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use githubrunner::{
    apply::ApplyMode,
    config::{Config, Hours, RepoEntry, RerunLost, WarmEntry},
    daemon::{Daemon, Ended, Signals},
    github::{self, Auth, CacheStore, GitHub, Key},
    hints::Hints,
    http::{self, Client, Endpoint, Secret},
    model::Labels,
    nomad::{self, Nomad, deployment_id},
    render::Renderer,
};
use githubrunner_sim::{
    fault::{Sender, Side},
    github::{Level, Reach, permissions},
    serve::serve_client,
    world::{Shared, lock},
};
use rand::{SeedableRng, rngs::StdRng};
use ring::signature::{KeyPair, RsaKeyPair};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};

use super::{
    specified::{self, Told},
    webhooks::Inboxes,
};
use crate::{
    deployment::{GITHUB_TOKEN, GROUP, MAX_BODY, META, NAMESPACE, NOMAD_TOKEN, PREFIX, WEBHOOK_SECRET},
    faults::{
        nemesis::Nemesis,
        scenario::Scenario,
        settings::{Access, Classes, Entries, Mode, Settings, Warm},
    },
};

/// The App's key, which must not appear anywhere either.
const KEY: &[u8] = include_bytes!("../../tests/fixtures/keys/app.pkcs8.der");
/// The App's client ID.
const CLIENT_ID: &str = "Iv1.simulation";
const HCL: &str = r#"job "{{ RUN.RUNNER_NAME }}" {
  type = "batch"
  group "runner" {
    task "runner" {
      driver = "raw_exec"
      kill_timeout = "30s"
      config {
        command = "run.sh"
      }
      env {
        RUNNER_NAME = "{{ SETTINGS.before }}{{ RUN.RUNNER_NAME }}"
        REPO_URL = "{% if SETTINGS.organization %}{{ RUN.REPO_URL.split("/")[:-1]|join("/") }}{% else %}{{ RUN.REPO_URL }}{% endif %}"
        LABELS = "{{ RUN.LABELS }}"
        {% if not SETTINGS.persistent %}
        EPHEMERAL = "1"
        {% endif %}
        NO_DEFAULT_LABELS = "1"
      }
      {{ RUN.CREDENTIALS }}
      {% if "fail" in RUNSON %}
      this is no HCL
      {% endif %}
      resources {
        cpu = 500
        memory = {{ RUNSON.mem|default(500)|int }}
      }
    }
  }
}
"#;

const JSON: &str = r#"{"Job": {"Type": "batch", "TaskGroups": [{"Name": "runner", "Tasks": [{
"Name": "runner", "Driver": "raw_exec", "KillTimeout": 30000000000, "Config": {"command": "run.sh"},
"Env": {"RUNNER_NAME": "{{ SETTINGS.before }}{{ RUN.RUNNER_NAME }}", "REPO_URL": "{% if SETTINGS.organization %}{{ RUN.REPO_URL.split("/")[:-1]|join("/") }}{% else %}{{ RUN.REPO_URL }}{% endif %}", "LABELS": "{{ RUN.LABELS }}",
{% if not SETTINGS.persistent %}"EPHEMERAL": "1", {% endif %}"NO_DEFAULT_LABELS": "1"},
"Templates": [{{ RUN.CREDENTIALS_JSON }}],
"Resources": {"CPU": 500, "MemoryMB": {{ RUNSON.mem|default(500)|int }}}}]}]}}
{% if "fail" in RUNSON %}this is no JSON{% endif %}
"#;

thread_local! {
    static CONFIGS: RefCell<BTreeMap<(Mode, bool, Access, Classes), Config>> = const { RefCell::new(BTreeMap::new()) };
}

/// The configuration of a scenario.
pub fn config(settings: &Settings, repositories: &[String]) -> Config {
    let key = (settings.mode, settings.json_template, settings.access, settings.classes);
    let mut config =
        CONFIGS.with_borrow_mut(|configs| configs.entry(key).or_insert_with(|| load(settings)).clone());
    let named = repositories.iter().filter_map(|name| name.split_once('/'));
    let owners: BTreeSet<&str> = named.clone().map(|(owner, _)| owner).collect();
    config.repos = match settings.access.entries {
        Entries::All => vec![RepoEntry::All],
        Entries::Owners => owners.into_iter().map(|owner| RepoEntry::Owner(owner.to_owned())).collect(),
        Entries::Each => named
            .map(|(owner, name)| RepoEntry::Repository { owner: owner.to_owned(), name: name.to_owned() })
            .collect(),
    };
    config.loop_interval = settings.loop_interval;
    config.warm = settings.warm.iter().enumerate().map(warm_entry).collect();
    if settings.webhooks {
        config.webhook.secret = Some(Secret::new(WEBHOOK_SECRET));
    }
    config.parallel = settings.parallel;
    config.rerun_lost =
        settings.rerun_lost.map(|[per_job, per_hour]| RerunLost { per_job, per_hour, cancelled: false });
    let scheduler = &mut config.scheduler;
    [scheduler.max_runners, scheduler.max_runners_per_repository, scheduler.max_runners_per_group] =
        settings.caps;
    scheduler.runner_inactivity_timeout = Some(settings.inactivity);
    scheduler.max_run_duration = settings.max_run_duration;
    scheduler.strict = settings.strict;
    scheduler.purge_successfull_timeout = Some(settings.purge[0]);
    scheduler.purge_failure_timeout = Some(settings.purge[1]);
    scheduler.pending_to_kill_listening = settings.make_room;
    config
}

fn warm_entry((at, warm): (usize, &Warm)) -> WarmEntry {
    let place = match warm.place.split_once('/') {
        Some((owner, name)) => RepoEntry::Repository { owner: owner.to_owned(), name: name.to_owned() },
        None => RepoEntry::Owner(warm.place.clone()),
    };
    let schedule = warm
        .hours
        .as_ref()
        .map(|(text, ..)| Hours::parse(text).unwrap_or_else(|why| panic!("the schedule {text}: {why}")));
    WarmEntry {
        id: format!("entry{at}"),
        labels: Labels::new(warm.labels.iter().copied()),
        place,
        count: warm.count,
        schedule,
    }
}

fn load(settings: &Settings) -> Config {
    let (mode, json, access) = (settings.mode, settings.json_template, settings.access);
    let registration = match mode {
        Mode::AccessToken => "access_token",
        Mode::Jit => "jit",
        Mode::Token | Mode::Persistent | Mode::Renamed => "token",
    };
    let persistent = mode == Mode::Persistent;
    let before = if mode == Mode::Renamed { "other-" } else { "" };
    let indented: String = if json { JSON } else { HCL }.lines().map(|line| format!("  {line}\n")).collect();
    let mut github = format!("github:\n  registration: {registration}\n");
    match access.app {
        true => github += &format!("  app: {{client_id: {CLIENT_ID}, private_key: of the test}}\n"),
        false => github += &format!("  token: {GITHUB_TOKEN}\n"),
    }
    if mode == Mode::AccessToken {
        github += &format!("  access_token: {GITHUB_TOKEN}\n");
    }
    if access.organization {
        github += "  scope: organization\n";
    }
    if access.group {
        github += &format!("  runner_group: {GROUP}\n");
    }
    let organization = access.organization;
    let classes = settings.classes.yaml();
    let yaml = format!(
        "repos: [acme/app]\npublic: allow\n{github}{classes}\
         runson_match: \"(?i)sim\"\nnomad:\n  namespace: {NAMESPACE}\n  jobprefix: {PREFIX}\n  meta: {META}\n\
         template_settings: {{organization: {organization}, persistent: {persistent}, before: \"{before}\"}}\ntemplate: |\n{indented}"
    );
    Config::load(&yaml, &|_| None).unwrap_or_else(|errors| panic!("the configuration: {errors}"))
}

/// Registers the App at GitHub and installs it for these owners. Returns the installations.
pub fn install(github: &mut githubrunner_sim::github::GitHub, owners: &BTreeSet<u64>) -> Vec<u64> {
    let public = RsaKeyPair::from_pkcs8(KEY).unwrap().public_key().as_ref().to_vec();
    let rights = permissions(&[
        ("actions", Level::Write),
        ("administration", Level::Write),
        ("metadata", Level::Read),
        ("organization_self_hosted_runners", Level::Write),
    ]);
    let first = owners.first().copied().unwrap_or_default();
    let app = github.add_app(first, CLIENT_ID, public, rights);
    owners.iter().map(|owner| github.install_app(app, *owner, Reach::All)).collect()
}

/// The App's key as a text.
pub fn key() -> String {
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(KEY))
}

/// The server ends of the connections of one daemon.
#[derive(Clone, Default)]
pub struct Connections(Arc<Mutex<Vec<(Side, AbortHandle)>>>);

impl Connections {
    fn add(&self, side: Side, handle: AbortHandle) {
        let mut handles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        handles.retain(|(_, handle)| !handle.is_finished());
        handles.push((side, handle));
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        let handles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        handles.iter().filter(|(_, handle)| !handle.is_finished()).count()
    }

    /// Cuts all of them: data on the wire is lost.
    pub fn cut(&self) {
        let mut handles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        handles.drain(..).for_each(|(_, handle)| handle.abort());
    }

    /// Cuts those to Nomad.
    pub fn cut_nomad(&self) {
        let handles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        handles.iter().filter(|(side, _)| *side == Side::Nomad).for_each(|(_, handle)| handle.abort());
    }
}

fn endpoint(maker: &Maker, side: Side, name: &str, connections: &Connections) -> Endpoint {
    let (shared, connections) = (Arc::clone(&maker.shared), connections.clone());
    let (nemesis, sender) = (maker.nemesis.clone(), maker.sender);
    let connect = move || {
        {
            let mut world = lock(&shared);
            let now = world.clock.now();
            if nemesis.refuses(side) || world.fault.refuses(side, now) {
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
            }
        }
        let (near, far) = tokio::io::duplex(64 << 10);
        let server = tokio::spawn(serve_client(far, side, Arc::clone(&shared), sender));
        connections.add(side, server.abort_handle());
        Ok(near)
    };
    Endpoint::Memory { name: name.to_owned(), connect: Arc::new(connect) }
}

/// Creates daemons.
pub struct Maker {
    config: Config,
    seed: u64,
    shared: Shared,
    cache: CacheStore,
    made: u64,
    sender: Sender,
    app: bool,
    nemesis: Nemesis,
    /// The repository that the configuration does not name, by its position.
    pub left_out: Arc<Mutex<Option<usize>>>,
    /// The configuration has no warm runners any more.
    pub is_cool: Arc<AtomicBool>,
    /// The sizes of the daemon's memory at each SIGHUP.
    pub sizes: Sizes,
    /// Where violations of its passes are reported.
    told: Told,
    /// Where webhooks reach it.
    inboxes: Inboxes,
}

/// The sizes of a daemon's memory over time.
#[derive(Clone, Default)]
pub struct Sizes(Arc<Mutex<Vec<BTreeMap<&'static str, usize>>>>);

impl Sizes {
    fn add(&self, daemon: &Daemon, connections: &Connections, maker: &Maker) {
        let mut sizes = daemon.sizes();
        sizes.insert("connections", connections.open());
        sizes.insert("bytes of the cache", maker.cache.len());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sizes);
    }

    /// All of them.
    pub fn all(&self) -> Vec<BTreeMap<&'static str, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Maker {
    /// For a scenario; `number` distinguishes concurrent daemons.
    pub fn new(
        scenario: &Scenario,
        shared: &Shared,
        number: usize,
        nemesis: Nemesis,
        sizes: &Sizes,
        told: Told,
        inboxes: Inboxes,
    ) -> Maker {
        let mut config = config(&scenario.settings, &scenario.repositories);
        config.ha = scenario.replicas;
        Maker {
            config,
            sender: Sender(number),
            app: scenario.settings.access.app,
            nemesis,
            seed: scenario.seed ^ (number as u64) << 40,
            shared: Arc::clone(shared),
            cache: if scenario.settings.cache { CacheStore::memory() } else { CacheStore::None },
            made: 0,
            left_out: Arc::default(),
            is_cool: Arc::default(),
            sizes: sizes.clone(),
            told,
            inboxes,
        }
    }

    /// A daemon with empty memory.
    pub fn make(&mut self) -> Incarnation {
        self.made += 1;
        let connections = Connections::default();
        let (parts, config) = (self.parts(&connections), self.config());
        let (alive, receiver) = watch::channel(false);
        let hangup = Arc::new(Notify::new());
        let mut signals = Signals { shutdown: receiver, hangup: Arc::clone(&hangup) };
        let (again, reload, sizes) = (self.again(), connections.clone(), self.sizes.clone());
        let witness = specified::witness(
            self.told.clone(),
            Arc::clone(&self.shared),
            self.sender.0,
            Arc::clone(&self.left_out),
        );
        let Parts { github, nomad, renderer } = parts;
        let daemon = Daemon::new(config, github, nomad, renderer, ApplyMode::Perform).witnessed_by(witness);
        let inbox = Inbox::open(&self.inboxes, self.sender.0, daemon.hints());
        let life = async move {
            let (mut daemon, mut again, _inbox) = (daemon, again, inbox);
            while daemon.run(&mut signals).await == Ended::Hangup {
                again.made += 1;
                sizes.add(&daemon, &reload, &again);
                let Parts { github, nomad, renderer } = again.parts(&reload);
                daemon = daemon.reconfigured(again.config(), github, nomad, renderer).await;
            }
        };
        Incarnation { life: Box::pin(life), dies_after: None, connections, hangup, shutdown: alive }
    }

    /// The current configuration.
    fn config(&self) -> Config {
        let mut config = self.config.clone();
        let left_out = *self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = left_out.filter(|at| *at < config.repos.len()) {
            config.repos.remove(at);
        }
        if self.is_cool.load(Ordering::Relaxed) {
            config.warm.clear();
        }
        config
    }

    fn again(&self) -> Maker {
        Maker {
            config: self.config.clone(),
            seed: self.seed ^ self.made << 32,
            shared: Arc::clone(&self.shared),
            cache: self.cache.clone(),
            made: 1000,
            sender: self.sender,
            app: self.app,
            nemesis: self.nemesis.clone(),
            left_out: Arc::clone(&self.left_out),
            is_cool: Arc::clone(&self.is_cool),
            sizes: self.sizes.clone(),
            told: self.told.clone(),
            inboxes: self.inboxes.clone(),
        }
    }

    fn parts(&self, connections: &Connections) -> Parts {
        let seed = self.seed ^ (self.made << 48);
        let api = url::Url::parse("http://api.github.test").unwrap();
        let endpoint_of = |side, name: &str| endpoint(self, side, name, connections);
        let client = Client::new(
            endpoint_of(Side::GitHub, "api.github.test"),
            http::Options { deadline: std::time::Duration::from_secs(20), seed, ..http::Options::default() },
        )
        .unwrap();
        let clock = {
            let world = lock(&self.shared);
            world.clock
        };
        let options = github::Options {
            cache: self.cache.clone(),
            clock: Arc::new(move || clock.now()),
            // Short, so that it shows within a run.
            refresh: std::time::Duration::from_secs(60),
            ..github::Options::new(api)
        };
        let auth = match self.app {
            true => Auth::App { issuer: CLIENT_ID.to_owned(), key: Key::Pem(Secret::new(key())) },
            false => Auth::Token(Secret::new(GITHUB_TOKEN)),
        };
        let github = GitHub::new(client, auth, options);
        let options = nomad::Options {
            token: Some(Secret::new(NOMAD_TOKEN)),
            max_body: MAX_BODY,
            seed,
            elsewhere: self.config.elsewhere(),
            ..nomad::Options::new(endpoint_of(Side::Nomad, "nomad.test"), NAMESPACE, PREFIX, META)
        };
        let nomad = Nomad::new(options, deployment_id(&mut StdRng::seed_from_u64(seed))).unwrap();
        let renderer = Renderer::new(&self.config).unwrap_or_else(|error| panic!("{error}"));
        Parts { github, nomad, renderer }
    }
}

/// A daemon that webhooks reach while it is alive.
struct Inbox(Inboxes, usize);

impl Inbox {
    fn open(inboxes: &Inboxes, number: usize, hints: Hints) -> Inbox {
        inboxes.open(number, hints);
        Inbox(inboxes.clone(), number)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.0.close(self.1);
    }
}

struct Parts {
    github: GitHub,
    nomad: Nomad,
    renderer: Renderer,
}

/// One daemon from its start to its death.
pub struct Incarnation {
    life: Pin<Box<dyn Future<Output = ()>>>,
    dies_after: Option<usize>,
    /// Its connections.
    pub connections: Connections,
    /// SIGHUP.
    pub hangup: Arc<Notify>,
    /// SIGTERM.
    pub shutdown: watch::Sender<bool>,
}

impl Incarnation {
    /// It dies after this many wake-ups.
    pub fn die_after(&mut self, polls: usize) {
        self.dies_after = Some(polls);
    }

    /// It does not die.
    pub fn never_die(&mut self) {
        self.dies_after = None;
    }

    /// Whether it is going to die.
    pub fn is_doomed(&self) -> bool {
        self.dies_after.is_some()
    }
}

/// Ready when it must be dropped, or has ended unexpectedly.
impl Future for Incarnation {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.life.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        match &mut self.dies_after {
            Some(0) => Poll::Ready(()),
            Some(left) => {
                *left -= 1;
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}
