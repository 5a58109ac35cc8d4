//! A real Nomad agent, started by the test that needs it, if `nomad` is on PATH.

use std::{
    io::Read,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use githubrunner::http::{self, Client, Endpoint, Request};
use serde_json::Value;

/// An agent is ready within 2 s on an idle machine; this allows for a busy one.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Another program may take a port between our choice and the agent's start.
const ATTEMPTS: usize = 3;

/// The shell watches over the agents: when its standard input ends, because the test dropped the agent or died, it
/// ends them, waits for them (which also ends the tasks) and removes the directory.
const WATCH: &str = r#"
export TMPDIR="$1"; dir="$1"; shift
"$@" >"$dir/agent.log" 2>&1 </dev/null & agent=$!
if [ -e "$dir/second.hcl" ]; then
  nomad agent -config "$dir/second.hcl" -log-level WARN >"$dir/second.log" 2>&1 </dev/null & second=$!
fi
cat >/dev/null
[ -z "$second" ] || { kill -TERM "$second" 2>/dev/null; wait "$second"; }
kill -TERM "$agent" 2>/dev/null
(
  trap 'kill "$sleeper"; exit' TERM
  sleep 20 & sleeper=$!
  wait "$sleeper"
  kill -KILL "$agent"
) >/dev/null 2>&1 & killer=$!
wait "$agent"
kill "$killer" 2>/dev/null
umount "$dir"/*/*/*/secrets "$dir"/*/*/*/private 2>/dev/null
rm -rf "$dir"
"#;

/// The agent's configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct AgentOptions {
    /// With ACLs on, bootstrapped: see [`Agent::token`].
    pub acl: bool,
    /// Its API over HTTPS.
    pub tls: Option<Tls>,
    /// The program at `/usr/local/bin/githubrunner` in the chroot of `exec` tasks.
    pub program: Option<&'static str>,
    /// The memory of its node for tasks, in MB; by default the machine's.
    pub memory: Option<u32>,
    /// A second client in this node pool, which is also its name.
    pub pool: Option<&'static str>,
}

/// The other contents of the chroot of `exec` tasks: what a dynamically linked program needs, and `id`. The default
/// is all of `/usr`, which takes seconds to link.
const CHROOT: [&str; 4] = ["/etc", "/lib", "/lib64", "/usr/bin/id"];

/// An API over HTTPS, with the certificates of a directory: `ca.pem`, `server.pem`, `server.key`, and for clients
/// `client.pem`, `client.key`.
#[derive(Debug, Clone, Copy)]
pub struct Tls {
    /// Their directory.
    pub directory: &'static Path,
    /// Whether clients must present a certificate.
    pub mutual: bool,
}

impl Tls {
    fn configuration(self) -> String {
        let file = |name: &str| self.directory.join(name).display().to_string();
        format!(
            "tls {{\n http = true\n ca_file = \"{}\"\n cert_file = \"{}\"\n key_file = \"{}\"\n \
             verify_https_client = {}\n}}\n",
            file("ca.pem"),
            file("server.pem"),
            file("server.key"),
            self.mutual,
        )
    }

    fn options(self) -> http::TlsOptions {
        let file = |name: &str| self.directory.join(name);
        http::TlsOptions {
            ca_files: vec![file("ca.pem")],
            only_given_authorities: true,
            client_certificate: Some(file("client.pem")),
            client_key: Some(file("client.key")),
            ..http::TlsOptions::default()
        }
    }
}

/// A running agent: server and client in one, all in memory. Ends when it is dropped.
#[derive(Debug)]
pub struct Agent {
    watch: Child,
    /// `http://127.0.0.1:PORT`
    pub address: String,
    /// The management token, with ACLs on.
    pub token: Option<String>,
    tls: Option<Tls>,
    directory: PathBuf,
}

impl Agent {
    /// Starts an agent and waits until it has a leader and a node that accepts jobs. `None`, with a message, if
    /// there is no `nomad` on PATH.
    pub async fn start(options: AgentOptions) -> Option<Agent> {
        if Command::new("nomad").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
        {
            println!("skipped: there is no nomad on PATH to start a real agent with");
            return None;
        }
        for attempt in 1..=ATTEMPTS {
            match Agent::try_start(options).await {
                Ok(agent) => return Some(agent),
                Err(why) if attempt == ATTEMPTS => panic!("the Nomad agent does not start: {why}"),
                Err(why) => println!("the Nomad agent does not start, trying again: {why}"),
            }
        }
        None
    }

    async fn try_start(options: AgentOptions) -> Result<Agent, String> {
        let directory = tempfile::Builder::new().prefix("nomad-agent-").tempdir().unwrap().keep();
        let [http, rpc, serf] = free_ports();
        let acl = options.acl;
        let allocations = directory.join("a").display().to_string();
        let chroot = options.program.map(chroot_of).unwrap_or_default();
        let memory = options.memory.map(|memory| format!("memory_total_mb = {memory}")).unwrap_or_default();
        let configuration = format!(
            r#"
            bind_addr = "127.0.0.1"
            ports {{
              http = {http}
              rpc = {rpc}
              serf = {serf}
            }}
            disable_update_check = true
            client {{
              # Short: a task API's socket has a path of at most 107 bytes, or there is none.
              alloc_dir = "{allocations}"
              options = {{ "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean" }}
              {chroot}
              {memory}
            }}
            plugin "raw_exec" {{
              config {{
                enabled = true
              }}
            }}
            acl {{
              enabled = {acl}
            }}
            "#
        );
        let configuration = configuration + &options.tls.map(Tls::configuration).unwrap_or_default();
        if let Some(pool) = options.pool {
            std::fs::write(directory.join("second.hcl"), second(&directory, pool, rpc)).unwrap();
        }
        let file = directory.join("agent.hcl");
        std::fs::write(&file, configuration).unwrap();
        let watch = Command::new("sh")
            .args(["-c", WATCH, "watch"])
            .arg(&directory)
            .args(["nomad", "agent", "-dev", "-config"])
            .arg(&file)
            .args(["-log-level", "WARN"])
            // Its raw_exec tasks would inherit it.
            .env_remove("NOMAD_ADDR")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://127.0.0.1:{http}");
        let mut agent = Agent { watch, address, token: None, tls: options.tls, directory };
        match agent.until_ready(options).await {
            Ok(()) => Ok(agent),
            Err(why) => Err(format!("{why}\n{}", log_of(&agent.directory))),
        }
    }

    async fn until_ready(&mut self, options: AgentOptions) -> Result<(), String> {
        let client = self.client();
        let deadline = Instant::now() + READY_WITHIN;
        let mut last = String::new();
        while Instant::now() < deadline {
            if options.acl && self.token.is_none() {
                match client.send(Request::post("/v1/acl/bootstrap")).await {
                    Ok(response) if response.is_success() => {
                        let answer: Value = response.json().map_err(|error| error.to_string())?;
                        self.token = answer["SecretID"].as_str().map(str::to_owned);
                    }
                    other => last = format!("{other:?}"),
                }
            } else {
                match client.send(self.authorized(Request::get("/v1/nodes"))).await {
                    Ok(response) if response.is_success() => {
                        let nodes: Value = response.json().map_err(|error| error.to_string())?;
                        let ready =
                            nodes.as_array().into_iter().flatten().filter(|node| is_ready(node)).count();
                        if ready > usize::from(options.pool.is_some()) {
                            return Ok(());
                        }
                    }
                    other => last = format!("{other:?}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("it is not ready after {READY_WITHIN:?}: {last}"))
    }

    /// Drains a node: its allocations are stopped at once.
    pub async fn drain(&self, node: &str) {
        self.drain_within(node, -1).await;
    }

    /// Drains a node with a deadline, in nanoseconds, that batch allocations may use.
    pub async fn drain_within(&self, node: &str, deadline: i64) {
        let drain = serde_json::json!({ "DrainSpec": { "Deadline": deadline, "IgnoreSystemJobs": false } });
        let request = Request::put(format!("/v1/node/{node}/drain")).json(&drain);
        self.client().send(self.authorized(request)).await.unwrap().success().unwrap();
    }

    /// The machine of the second client loses power: the client and its tasks are gone at once, and report nothing.
    pub fn power_off_second(&self) {
        let configuration = self.directory.join("second.hcl").display().to_string();
        let client = processes().find(|process| {
            process.arguments.first().is_some_and(|program| program.ends_with("nomad"))
                && process.arguments.contains(&configuration)
        });
        let client = client.expect("the second client runs").id;
        signal("STOP", &[client]);
        let mut gone = vec![client];
        let mut next = 0;
        while let Some(parent) = gone.get(next).copied() {
            gone.extend(processes().filter(|process| process.parent == parent).map(|process| process.id));
            next += 1;
        }
        signal("KILL", &gone);
    }

    /// A plain client for requests that the adapter does not make.
    pub fn client(&self) -> Client {
        let tls = self.tls.map(Tls::options).unwrap_or_default();
        let options = http::Options { tls, ..http::Options::default() };
        Client::new(Endpoint::parse(&self.address).unwrap(), options).unwrap()
    }

    /// A request with the management token.
    pub fn authorized(&self, request: Request) -> Request {
        match &self.token {
            Some(token) => request.header_text(http::header::HeaderName::from_static("x-nomad-token"), token),
            None => request,
        }
    }

    /// Creates a policy and a token with it.
    pub async fn create_token(&self, name: &str, policy: &str) -> String {
        let body = serde_json::json!({ "Name": name, "Rules": policy });
        let request = Request::put(format!("/v1/acl/policy/{name}")).json(&body);
        self.client().send(self.authorized(request)).await.unwrap().success().unwrap();
        let body = serde_json::json!({ "Name": name, "Type": "client", "Policies": [name] });
        let request = Request::put("/v1/acl/token").json(&body);
        let answer = self.client().send(self.authorized(request)).await.unwrap().success().unwrap();
        let answer: Value = answer.json().unwrap();
        answer["SecretID"].as_str().unwrap().to_owned()
    }

    /// The response for a path, as JSON.
    pub async fn get(&self, path: &str) -> Value {
        let request = self.authorized(Request::get(path));
        self.client().send(request).await.unwrap().success().unwrap().json().unwrap()
    }

    /// Creates a namespace.
    pub async fn create_namespace(&self, name: &str) {
        let request =
            Request::put(format!("/v1/namespace/{name}")).json(&serde_json::json!({ "Name": name }));
        self.client().send(self.authorized(request)).await.unwrap().success().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The end of the shell's input is its signal.
        drop(self.watch.stdin.take());
        let mut said = String::new();
        if let Some(mut stderr) = self.watch.stderr.take() {
            let _ = stderr.read_to_string(&mut said);
        }
        // The shell kills what does not end by itself, so this wait is limited.
        let _ = self.watch.wait();
    }
}

/// The configuration of a client in another node pool. It ends its tasks when it ends.
fn second(directory: &Path, pool: &str, server: u16) -> String {
    let [http, rpc, serf] = free_ports();
    let at = |name: &str| directory.join(name).display().to_string();
    let (data, allocations) = (at("d"), at("b"));
    format!(
        r#"
        name = "{pool}"
        data_dir = "{data}"
        bind_addr = "127.0.0.1"
        disable_update_check = true
        leave_on_terminate = true
        advertise {{
          http = "127.0.0.1"
          rpc = "127.0.0.1"
          serf = "127.0.0.1"
        }}
        ports {{
          http = {http}
          rpc = {rpc}
          serf = {serf}
        }}
        client {{
          enabled = true
          servers = ["127.0.0.1:{server}"]
          node_pool = "{pool}"
          alloc_dir = "{allocations}"
          options = {{ "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean" }}
          drain_on_shutdown {{
            deadline = "1s"
            force = true
          }}
        }}
        plugin "raw_exec" {{
          config {{
            enabled = true
          }}
        }}
        "#
    )
}

/// A process of this machine.
struct Process {
    id: u32,
    parent: u32,
    arguments: Vec<String>,
}

fn processes() -> impl Iterator<Item = Process> {
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        // The program's name, in parentheses, can contain anything; the state and the parent follow.
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let arguments = line.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
        Some(Process { id, parent, arguments: arguments.collect() })
    })
}

fn signal(signal: &str, processes: &[u32]) {
    let processes = processes.iter().map(u32::to_string);
    // One may have ended by itself.
    Command::new("kill").arg(format!("-{signal}")).args(processes).stderr(Stdio::null()).status().unwrap();
}

/// The client's `chroot_env` with a program in it.
fn chroot_of(program: &str) -> String {
    let there = CHROOT.iter().filter(|path| Path::new(path).exists());
    let mut lines: Vec<String> = there.map(|path| format!("\"{path}\" = \"{path}\"\n")).collect();
    lines.push(format!("\"{program}\" = \"/usr/local/bin/githubrunner\"\n"));
    format!("chroot_env {{\n{}}}", lines.concat())
}

fn is_ready(node: &Value) -> bool {
    node["Status"] == "ready" && node["SchedulingEligibility"] == "eligible"
}

fn log_of(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("agent.log")).unwrap_or_default()
}

/// Three ports that were free just now.
fn free_ports() -> [u16; 3] {
    let listeners: [TcpListener; 3] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
