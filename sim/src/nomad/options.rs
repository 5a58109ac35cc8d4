//! The options of the cluster, and its events for the world.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

/// The options of a simulated cluster.
#[derive(Debug, Clone)]
pub struct Options {
    /// Determines all IDs.
    pub seed: u64,
    /// The client nodes.
    pub nodes: Vec<Node>,
    /// Whether ACLs are enforced. Without them, any token is accepted, except over the task API, which always
    /// needs a valid one (contract, section 7).
    pub acl: bool,
    /// The tokens that exist, with ACLs on.
    pub tokens: Vec<Token>,
    /// Policies attached to jobs, for the workload identities of their tasks.
    pub job_policies: Vec<JobPolicy>,
    /// Namespaces besides `default`.
    pub namespaces: Vec<String>,
    /// The region, by default `global`.
    pub region: String,
    /// How long things take.
    pub delays: Delays,
    /// Whether `memory_max` is supported. If not, Nomad warns.
    pub memory_oversubscription: bool,
    /// How long a dead job is kept after it was submitted (`job_gc_threshold`, 4 h).
    pub job_gc_threshold: Duration,
    /// The interval of garbage collections (`job_gc_interval`, 5 min).
    pub job_gc_interval: Duration,
    /// The maximum `kill_timeout` on a client (`max_kill_timeout`, 30 s).
    pub max_kill_timeout: Duration,
    /// The number of buffered lines of the event stream (`event_buffer_size`, 100).
    pub event_buffer: usize,
    /// Omits the payload of the event stream's events. Such lines are smaller and sufficient for clients.
    pub lean: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            seed: 1,
            nodes: vec![Node::default()],
            acl: false,
            tokens: Vec::new(),
            job_policies: Vec::new(),
            namespaces: Vec::new(),
            region: "global".into(),
            delays: Delays::default(),
            memory_oversubscription: false,
            job_gc_threshold: Duration::from_secs(4 * 3600),
            job_gc_interval: Duration::from_secs(300),
            max_kill_timeout: Duration::from_secs(30),
            event_buffer: 100,
            lean: false,
        }
    }
}

/// A client node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Its datacenter.
    pub datacenter: String,
    /// Its node pool.
    pub pool: String,
    /// Its class, often empty.
    pub class: String,
    /// CPU in MHz.
    pub cpu: u64,
    /// Memory in MB.
    pub memory_mb: u64,
    /// Disk in MB.
    pub disk_mb: u64,
    /// The healthy task drivers.
    pub drivers: BTreeSet<String>,
    /// Attributes for constraints, by their names without `attr.`.
    pub attributes: BTreeMap<String, String>,
    /// Metadata for constraints.
    pub meta: BTreeMap<String, String>,
    /// How far its clock is ahead of the servers'. Tasks' states use its time.
    pub clock_ahead: SignedDuration,
}

impl Default for Node {
    /// One big node with every driver that runners use.
    fn default() -> Node {
        let attributes = [("kernel.name", "linux"), ("cpu.arch", "amd64"), ("os.name", "debian")];
        Node {
            name: "node-1".into(),
            datacenter: "dc1".into(),
            pool: "default".into(),
            class: String::new(),
            cpu: 64_000,
            memory_mb: 256_000,
            disk_mb: 1_000_000,
            drivers: ["docker", "exec", "java", "mock_driver", "podman", "qemu", "raw_exec"]
                .map(String::from)
                .into(),
            attributes: attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            meta: BTreeMap::new(),
            clock_ahead: SignedDuration::ZERO,
        }
    }
}

impl Node {
    /// A default node with this name.
    pub fn named(name: &str) -> Node {
        Node { name: name.into(), ..Node::default() }
    }
}

/// How long things take. The defaults were measured with a real agent (contract, sections 8 and 10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delays {
    /// From an evaluation to its allocation.
    pub placement: Duration,
    /// From resources becoming free to the retry of a blocked evaluation.
    pub unblock: Duration,
    /// From the allocation to the task's set-up.
    pub setup: Duration,
    /// From writing a variable to rendering the template that waits for it.
    pub template: Duration,
    /// Until a waiting template reports what it waits for.
    pub missing: Duration,
    /// From the setup to the process: the image pull, the executor.
    pub start: Duration,
    /// From the kill signal to the end of a process that does not end on its own; at most its `kill_timeout`.
    pub kill: Duration,
    /// From an event on a client until the servers know about it.
    pub report: Duration,
}

impl Default for Delays {
    fn default() -> Delays {
        Delays {
            placement: Duration::from_millis(30),
            unblock: Duration::from_secs(1),
            setup: Duration::from_millis(5),
            template: Duration::from_millis(200),
            missing: Duration::from_secs(3),
            start: Duration::from_millis(100),
            kill: Duration::from_secs(1),
            report: Duration::from_millis(200),
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exit {
    /// Its exit code.
    pub code: i64,
    /// The signal that ended it, or 0.
    pub signal: i64,
    /// Whether the OOM killer killed it.
    pub oom: bool,
}

impl Exit {
    /// Ended on its own with this code.
    pub fn code(code: i64) -> Exit {
        Exit { code, signal: 0, oom: false }
    }

    /// Ended by this signal; the code is 128 more.
    pub fn signal(signal: i64) -> Exit {
        Exit { code: 128 + signal, signal, oom: false }
    }

    /// Killed by the OOM killer: signal 9 and the flag.
    pub fn oom() -> Exit {
        Exit { oom: true, ..Exit::signal(9) }
    }
}

/// An event of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskEvent {
    /// It started.
    Started {
        /// The allocation's ID.
        allocation: String,
        /// The job's namespace.
        namespace: String,
        /// The job's ID.
        job_id: String,
        /// The task's name.
        task: String,
        /// Its environment: `env`, the output of its templates, and the `NOMAD_` variables.
        env: BTreeMap<String, String>,
        /// When.
        now: Timestamp,
    },
    /// It was told to end: the kill signal was sent. Unless [`super::Nomad::exit_task`] comes first, it is
    /// killed after [`Delays::kill`], at most its `kill_timeout`.
    KillRequested {
        /// The allocation's ID.
        allocation: String,
        /// The job's namespace.
        namespace: String,
        /// The job's ID.
        job_id: String,
        /// The task's name.
        task: String,
        /// The signal's name, by default `SIGINT`.
        signal: String,
        /// When.
        now: Timestamp,
    },
    /// It ended.
    Ended {
        /// The allocation's ID.
        allocation: String,
        /// The job's namespace.
        namespace: String,
        /// The job's ID.
        job_id: String,
        /// The task's name.
        task: String,
        /// How it ended.
        exit: Exit,
        /// When.
        now: Timestamp,
    },
}

impl TaskEvent {
    /// The allocation concerned.
    pub fn allocation(&self) -> &str {
        match self {
            TaskEvent::Started { allocation, .. }
            | TaskEvent::KillRequested { allocation, .. }
            | TaskEvent::Ended { allocation, .. } => allocation,
        }
    }

    /// The job concerned.
    pub fn job_id(&self) -> &str {
        match self {
            TaskEvent::Started { job_id, .. }
            | TaskEvent::KillRequested { job_id, .. }
            | TaskEvent::Ended { job_id, .. } => job_id,
        }
    }

    /// When it happened.
    pub fn at(&self) -> Timestamp {
        match self {
            TaskEvent::Started { now, .. }
            | TaskEvent::KillRequested { now, .. }
            | TaskEvent::Ended { now, .. } => *now,
        }
    }
}

/// A live process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveTask {
    /// The allocation's ID.
    pub allocation: String,
    /// The job's namespace.
    pub namespace: String,
    /// The job's ID.
    pub job_id: String,
    /// The task's name.
    pub task: String,
    /// The node's name.
    pub node: String,
    /// When it started.
    pub started: Timestamp,
    /// Whether it has been told to end.
    pub killing: bool,
}

/// An ACL token.
#[derive(Clone)]
pub struct Token {
    /// The value of `X-Nomad-Token`.
    pub secret: String,
    /// Its name.
    pub name: String,
    /// Its permissions.
    pub kind: TokenKind,
}

impl std::fmt::Debug for Token {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The kinds of token.
#[derive(Debug, Clone)]
pub enum TokenKind {
    /// Everything.
    Management,
    /// What its policies allow.
    Client(Vec<Policy>),
    /// A task's workload identity: its own variables, and the permissions of the policies attached to its job
    /// ([`Options::job_policies`]). The tokens of running tasks exist automatically. This creates one for a
    /// task that is not simulated.
    Workload {
        /// The job's namespace.
        namespace: String,
        /// The job's ID.
        job_id: String,
    },
}

/// An ACL policy.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Rules by namespace; `*` globs.
    pub namespaces: BTreeMap<String, NamespaceRules>,
}

/// The permissions of a policy in a namespace.
#[derive(Debug, Clone, Default)]
pub struct NamespaceRules {
    /// Capabilities such as `list-jobs`, `read-job`, `parse-job`, `submit-job`, `read-logs`.
    pub capabilities: BTreeSet<String>,
    /// Its permissions for variables. The longest matching path applies.
    pub variables: Vec<VariableRule>,
}

/// The permissions of a policy for variables under a path.
#[derive(Debug, Clone, Default)]
pub struct VariableRule {
    /// A path with `*` globs.
    pub path: String,
    /// `list`, `read`, `write`, `destroy`.
    pub capabilities: BTreeSet<String>,
}

/// A policy attached to a job, as `nomad acl policy apply -namespace NS -job JOB` does.
#[derive(Debug, Clone)]
pub struct JobPolicy {
    /// The job's namespace.
    pub namespace: String,
    /// The job's ID.
    pub job_id: String,
    /// The policy.
    pub policy: Policy,
}

impl Policy {
    /// A policy for one namespace.
    pub fn new(name: &str, namespace: &str, capabilities: &[&str], variables: &[(&str, &[&str])]) -> Policy {
        let rules = NamespaceRules {
            capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
            variables: variables
                .iter()
                .map(|(path, capabilities)| VariableRule {
                    path: (*path).to_owned(),
                    capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
                })
                .collect(),
        };
        Policy { name: name.into(), namespaces: BTreeMap::from([(namespace.to_owned(), rules)]) }
    }
}
