//! A simulated GitHub and a simulated Nomad on loopback, and the built program against them.

use std::{
    io::Write,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use bytes::Bytes;
use githubrunner_sim::{
    carrier::{carry, over_http},
    clock::Clock,
    fault::{Fault, Side, Verdict},
    github::{self, Conclusion, GitHub, JobSpec, Status, Token},
    nomad::{self, Nomad},
    serve::serve_tcp,
    world::{self, Shared, World, drive, lock},
};
use hyper::{Request, Response};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpSocket,
    process::{Child, Command},
};

/// The longest wait for something that should happen soon, on a busy machine.
pub const WITHIN: Duration = Duration::from_secs(30);

/// How often the condition is checked.
const POLL: Duration = Duration::from_millis(20);

/// The token that the simulated GitHub knows.
pub const TOKEN: &str = "ghp_of_the_end_to_end_tests";

/// The namespace of the runners' jobs.
pub const NAMESPACE: &str = "github";

/// A repository of the simulated GitHub.
pub const REPOSITORY: &str = "acme/app";

/// Waits until a condition is true. If it does not become true, reports what it was and what happened
/// instead.
pub async fn until(site: &Site, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !condition() {
        if Instant::now() > deadline {
            let timeline: Vec<String> =
                site.world().timeline().map(|(time, line)| format!("{time} {line}")).collect();
            panic!("not within {WITHIN:?}: {what}\nthe world:\n{}", timeline.join("\n"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A simulated GitHub and a simulated Nomad, served on loopback.
pub struct Site {
    shared: Shared,
    pub github: String,
    pub nomad: String,
    pub repository: u64,
    directory: TempDir,
}

/// Reserved ports on which nothing listens yet.
pub struct Reserved {
    github: Option<TcpSocket>,
    nomad: Option<TcpSocket>,
}

fn reserve() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = format!("http://{}", socket.local_addr().unwrap());
    (socket, address)
}

impl Site {
    /// One repository, one large node, everything fast.
    pub async fn start() -> Site {
        Site::start_with(nomad::Options::default()).await
    }

    /// The same with another cluster.
    pub async fn start_with(nomad: nomad::Options) -> Site {
        let (site, mut reserved) = Site::absent_with(nomad);
        reserved.github(&site);
        reserved.nomad(&site);
        site
    }

    /// Both servers have addresses but do not listen yet.
    pub fn absent() -> (Site, Reserved) {
        Site::absent_with(nomad::Options::default())
    }

    fn absent_with(nomad: nomad::Options) -> (Site, Reserved) {
        let now = Timestamp::now();
        let millis = |from, to| (Duration::from_millis(from), Duration::from_millis(to));
        let mut github =
            GitHub::new(github::Options { pickup: millis(50, 150), ..github::Options::default() }, now);
        github.add_organization("acme", &["octocat"]);
        github.add_token(TOKEN, Token::classic("octocat", &["repo"]));
        let repository = github.add_repository(REPOSITORY);
        let namespaces = vec![NAMESPACE.to_owned()];
        let nomad = Nomad::new(nomad::Options { namespaces, ..nomad }, now);
        let options = world::Options {
            start_up: millis(50, 150),
            give_up: millis(50, 150),
            wind_down: millis(20, 80),
            stop: millis(20, 80),
            ..world::Options::default()
        };
        let shared = World::new(github, nomad, Clock::starting_at(now), options).shared();
        tokio::spawn(drive(Arc::clone(&shared), std::future::pending()));
        let ((github_socket, github), (nomad_socket, nomad)) = (reserve(), reserve());
        let directory = tempfile::tempdir().unwrap();
        let site = Site { shared, github, nomad, repository, directory };
        (site, Reserved { github: Some(github_socket), nomad: Some(nomad_socket) })
    }

    /// The simulated world.
    pub fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.shared)
    }

    /// GitHub delivers its webhooks over HTTP from now on.
    pub fn carry_webhooks(&self) {
        tokio::spawn(carry(Arc::clone(&self.shared), over_http, std::future::pending()));
    }

    /// Sets which requests fail from now on.
    pub fn fault(&self, before: impl FnMut(Side, &Request<Bytes>) -> Verdict + Send + 'static) {
        self.world().fault = Box::new(Before(Box::new(before)));
    }

    /// Sets which responses are changed from now on, after the request took effect.
    pub fn lie(&self, after: impl FnMut(Side, &Request<Bytes>, &mut Response<Bytes>) + Send + 'static) {
        self.world().fault = Box::new(After(Box::new(after)));
    }

    /// Ends all faults.
    pub fn no_fault(&self) {
        self.world().fault = Box::new(githubrunner_sim::fault::NoFault);
    }

    /// A job that stays queued because GitHub assigns it to no runner.
    pub fn never_assigned(&self) -> u64 {
        let spec = JobSpec { ghost: true, ..JobSpec::new(&["nomadtools"], Duration::from_secs(1)) };
        let mut world = self.world();
        let run = world.queue_run(self.repository, vec![spec]).unwrap();
        world.github.run(run).unwrap().jobs[0]
    }

    /// Queues a run with one job that takes this many milliseconds. Returns the job's ID.
    pub fn queue(&self, labels: &[&str], milliseconds: u64) -> u64 {
        let spec = JobSpec::new(labels, Duration::from_millis(milliseconds));
        let mut world = self.world();
        let run = world.queue_run(self.repository, vec![spec]).unwrap();
        world.github.run(run).unwrap().jobs[0]
    }

    /// A job's status.
    pub fn status(&self, job: u64) -> Status {
        self.world().github.job(job).unwrap().status
    }

    /// The attempt of a job's run, and how it ended.
    pub fn attempt(&self, job: u64) -> (u32, Option<Conclusion>) {
        let world = self.world();
        let run = world.github.run(world.github.job(job).unwrap().run).unwrap();
        (run.attempt, run.conclusion)
    }

    /// Waits until a job has succeeded.
    pub async fn served(&self, job: u64) {
        until(self, &format!("job {job} is served"), || {
            self.world().github.job(job).unwrap().conclusion == Some(Conclusion::Success)
        })
        .await;
    }

    /// Waits until a job is in progress.
    pub async fn in_progress(&self, job: u64) {
        until(self, &format!("job {job} is in progress"), || self.status(job) == Status::InProgress).await;
    }

    /// The IDs of the jobs in Nomad.
    pub fn nomad_jobs(&self) -> Vec<String> {
        self.world().nomad.jobs().map(|job| job.id.clone()).collect()
    }

    /// The paths of the runners' variables.
    pub fn secrets(&self) -> Vec<String> {
        let world = self.world();
        let paths = world.nomad.variables().map(|variable| variable.path.clone());
        paths.filter(|path| path.starts_with("nomad/jobs/")).collect()
    }

    /// Whether there is no job, no variable and no registration left.
    pub fn is_clean(&self) -> bool {
        self.nomad_jobs().is_empty()
            && self.secrets().is_empty()
            && self.world().github.runners().next().is_none()
    }

    /// The requests so far to one side that may change something, except for parsing HCL.
    pub fn writes(&self) -> Vec<String> {
        let world = self.world();
        let changes = |route: &str| !route.starts_with("GET ") && !route.ends_with(" /v1/jobs/parse");
        world
            .requests()
            .routes()
            .filter(|(_, route, _)| changes(route))
            .map(|(_, route, _)| route.to_owned())
            .collect()
    }

    /// All requests so far to one side.
    pub fn requests(&self, side: Side) -> u64 {
        self.world().requests().total(side)
    }

    /// A configuration for this site: five lines, then these.
    pub fn config(&self, more: &str) -> String {
        let cache = self.cache_file();
        format!(
            "github: {{url: \"{}\", token: {TOKEN}, cachefile: \"{}\"}}\nrepos: [{REPOSITORY}]\nloop: 1\n\
             template: builtin:raw_exec\nscheduler: {{purge_successfull_timeout: 1s, purge_failure_timeout: 1s}}\n{more}",
            self.github,
            cache.display(),
        )
    }

    pub fn cache_file(&self) -> PathBuf {
        self.directory.path().join("cache.json")
    }

    /// Writes the configuration file atomically, because a daemon may be reading it.
    pub fn write_config(&self, text: &str) -> PathBuf {
        let path = self.directory.path().join("config.yml");
        let mut file = tempfile::NamedTempFile::new_in(self.directory.path()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.persist(&path).unwrap();
        path
    }

    /// A directory like the runner's unpacked tarball, in which the program itself is the runner.
    pub fn stand_in(&self) -> PathBuf {
        self.stand_in_after("")
    }

    /// The same, but each start begins with these lines of shell script.
    pub fn stand_in_after(&self, first: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let directory = self.directory.path().join("runner");
        let listener = directory.join("bin/Runner.Listener");
        std::fs::create_dir_all(directory.join("bin")).unwrap();
        let script = format!("#!/bin/sh\n{first}\nexec '{}' stand-in\n", env!("CARGO_BIN_EXE_githubrunner"));
        std::fs::write(&listener, script).unwrap();
        std::fs::set_permissions(&listener, std::fs::Permissions::from_mode(0o755)).unwrap();
        directory
    }

    /// The program with only this site's Nomad in its environment.
    pub fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_githubrunner"));
        command.env_clear().env("NOMAD_ADDR", &self.nomad).env("HOME", self.directory.path());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs the program with [`Site::config`] to its end.
    pub async fn call(&self, arguments: &[&str]) -> Finished {
        self.call_with(&self.config(""), arguments).await
    }

    /// Runs the program with a configuration to its end.
    pub async fn call_with(&self, config: &str, arguments: &[&str]) -> Finished {
        let config = self.write_config(config);
        let output = self.program().arg("-c").arg(config).args(arguments).output();
        let output = tokio::time::timeout(2 * WITHIN, output).await.expect("the program ends").unwrap();
        Finished {
            code: output.status.code().expect("it ended by itself"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts `run` with a configuration.
    pub fn run(&self, config: &str) -> Running {
        self.run_with(config, &[])
    }

    /// The same with more arguments.
    pub fn run_with(&self, config: &str, arguments: &[&str]) -> Running {
        let config = self.write_config(config);
        let mut command = self.program();
        command.arg("-c").arg(config).args(arguments).arg("run");
        Running::spawn(command)
    }
}

impl Reserved {
    /// GitHub begins to listen.
    pub fn github(&mut self, site: &Site) {
        serve(self.github.take(), Side::GitHub, site);
    }

    /// Nomad begins to listen.
    pub fn nomad(&mut self, site: &Site) {
        serve(self.nomad.take(), Side::Nomad, site);
    }
}

fn serve(socket: Option<TcpSocket>, side: Side, site: &Site) {
    let listener = socket.expect("it listens once").listen(128).unwrap();
    tokio::spawn(serve_tcp(listener, side, Arc::clone(&site.shared), std::future::pending()));
}

type Decide = dyn FnMut(Side, &Request<Bytes>) -> Verdict + Send;

struct Before(Box<Decide>);

impl Fault for Before {
    fn before(&mut self, side: Side, request: &Request<Bytes>, _: Timestamp) -> Verdict {
        (self.0)(side, request)
    }
}

type Change = dyn FnMut(Side, &Request<Bytes>, &mut Response<Bytes>) + Send;

struct After(Box<Change>);

impl Fault for After {
    fn after(
        &mut self,
        side: Side,
        request: &Request<Bytes>,
        response: &mut Response<Bytes>,
        _: Timestamp,
    ) -> Verdict {
        (self.0)(side, request, response);
        Verdict::Pass
    }
}

/// The result of a call.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Finished {
    /// Its standard output; it must have succeeded.
    #[track_caller]
    pub fn well(self) -> String {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self.out
    }

    /// Its standard error; it must have ended with this code.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        self.err
    }
}

/// The daemon.
pub struct Running {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Starts a program and reads its log.
    pub fn spawn(mut command: Command) -> Running {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let reader = tokio::spawn({
            let log = Arc::clone(&log);
            async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    log.lock().unwrap().push(line);
                }
            }
        });
        Running { child, log, reader }
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The lines of the log that contain this text.
    pub fn lines_with(&self, text: &str) -> Vec<String> {
        self.log().into_iter().filter(|line| line.contains(text)).collect()
    }

    /// Waits until the log contains this text.
    pub async fn says(&self, text: &str) {
        let deadline = Instant::now() + WITHIN;
        while self.lines_with(text).is_empty() {
            assert!(Instant::now() < deadline, "it never says {text:?}:\n{}", self.log().join("\n"));
            tokio::time::sleep(POLL).await;
        }
    }

    /// Its arguments, as everyone on the machine can see them.
    pub fn command_line(&self) -> String {
        let id = self.child.id().expect("it runs");
        let bytes = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill").args([format!("-{name}"), id]).status().unwrap();
        assert!(sent.success());
    }

    /// Ends it with SIGTERM, which must take less than a second.
    pub async fn end(self) -> Vec<String> {
        self.end_by("TERM").await
    }

    /// Ends it with a signal. Returns its log.
    pub async fn end_by(mut self, signal: &str) -> Vec<String> {
        self.signal(signal);
        let began = Instant::now();
        let status: ExitStatus =
            tokio::time::timeout(WITHIN, self.child.wait()).await.expect("it ends").unwrap();
        let took = began.elapsed();
        let _ = self.reader.await;
        let log = self.log.lock().unwrap().clone();
        assert_eq!(status.code(), Some(0), "{}", log.join("\n"));
        assert!(took < Duration::from_secs(1), "it took {took:?} to end:\n{}", log.join("\n"));
        log
    }

    /// Whether it is still running.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}
