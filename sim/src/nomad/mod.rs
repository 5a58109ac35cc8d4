//! The simulated Nomad: plain data first, HTTP second.
//!
//! [`Nomad`] is a cluster in memory: the state of servers, clients and tasks, without IO, clock, or
//! randomness other than its seed. [`Nomad::handle`] is one HTTP exchange. [`Nomad::advance`] lets time pass.
//! [`Nomad::take_events`] tells the world which processes start and which are told to end, and
//! [`Nomad::exit_task`] tells Nomad that one has ended. A test compares its responses with recordings of a
//! real agent.
//!
//! It shares no code with the adapters, so that its mistakes cannot hide theirs. Not modelled: blocking
//! queries (the response is immediate), Consul, Vault, system jobs, deployments, preemption, dispatch.

mod acl;
mod canonical;
mod client;
mod ending;
mod evaluate;
mod events;
mod filter;
mod gotemplate;
mod gotime;
mod hcl;
mod http;
mod jobs;
mod listings;
mod operator;
mod options;
mod placement;
mod reconcile;
mod reports;
mod request;
mod schema;
mod spec;
mod state;
mod stream;
mod template;
mod validate;
mod variables;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
pub use gotime::Nanos;
use jiff::Timestamp;
pub use operator::{Processes, StartFailure};
pub use options::{
    Delays, Exit, JobPolicy, LiveTask, NamespaceRules, Node, Options, Policy, TaskEvent, Token, TokenKind,
    VariableRule,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
pub use state::{Allocation, Evaluation, Job, Lock, Task, TaskPhase, Variable};
use state::{Namespace, NodeState};
pub use stream::Topics;
pub use view::allocation_stub;

/// The index of a real `-dev` agent when it is ready.
const FIRST_INDEX: u64 = 11;

/// Namespace and ID of a job, or namespace and path of a variable.
type Key = (String, String);

/// A simulated cluster.
#[derive(Debug)]
pub struct Nomad {
    options: Options,
    rng: StdRng,
    now: Nanos,
    index: u64,
    tables: Tables,
    leader: bool,
    leaderless_since: Nanos,
    /// Unprocessed evaluations, by job.
    pending: BTreeSet<(Key, String)>,
    namespaces: BTreeMap<String, Namespace>,
    nodes: BTreeMap<String, NodeState>,
    jobs: BTreeMap<Key, Job>,
    allocations: BTreeMap<String, Allocation>,
    by_job: BTreeMap<Key, BTreeSet<String>>,
    evaluations: BTreeMap<String, Evaluation>,
    blocked: BTreeMap<Key, String>,
    variables: BTreeMap<Key, Variable>,
    lock_delays: BTreeMap<Key, Nanos>,
    agenda: BTreeMap<(Nanos, u64), Due>,
    sequence: u64,
    unblock_due: bool,
    collect_due: bool,
    waiting: BTreeSet<String>,
    logs: BTreeMap<(String, String), String>,
    start_delays: BTreeMap<String, Duration>,
    start_failures: BTreeMap<String, StartFailure>,
    events: Vec<TaskEvent>,
    stream: VecDeque<(u64, String)>,
    forgot_at: Option<Timestamp>,
    stubs: Mutex<Stubs>,
    /// Lists by address, with the index at which they were generated.
    lists: Mutex<HashMap<String, (u64, request::Reply)>>,
}

/// Allocations in the form of lists, by ID and by whether they include the tasks' states, at their last
/// index.
type Stubs = HashMap<(String, bool), (u64, Arc<str>)>;

/// The last index of each table, for `X-Nomad-Index`.
#[derive(Debug, Default)]
struct Tables {
    jobs: u64,
    allocations: u64,
    evaluations: u64,
    variables: u64,
    namespaces: u64,
    nodes: u64,
}

/// Scheduled events. Those that are outdated when they are due do nothing.
#[derive(Debug, Clone)]
enum Due {
    Evaluate(String),
    Unblock,
    Setup(String),
    Missing { allocation: String, task: usize },
    Release { allocation: String },
    Start { allocation: String, task: usize, round: u64 },
    Kill { allocation: String, task: usize, round: u64 },
    MaxRun(String),
    Report(String),
    Reschedule(String),
    LostAfter { allocation: String, since: Nanos },
    Rerender { allocation: String, task: usize, round: u64 },
    TemplatesFail { since: Nanos },
    Lock(Key),
    Drain { node: String, deadline: Nanos },
    Collect,
}

impl Nomad {
    /// A cluster that has just elected its leader.
    pub fn new(options: Options, now: Timestamp) -> Nomad {
        let mut nomad = Nomad {
            rng: StdRng::seed_from_u64(options.seed),
            now: gotime::nanos(now),
            index: FIRST_INDEX,
            tables: Tables::default(),
            leader: true,
            leaderless_since: 0,
            pending: BTreeSet::new(),
            namespaces: BTreeMap::new(),
            nodes: BTreeMap::new(),
            jobs: BTreeMap::new(),
            allocations: BTreeMap::new(),
            by_job: BTreeMap::new(),
            evaluations: BTreeMap::new(),
            blocked: BTreeMap::new(),
            variables: BTreeMap::new(),
            lock_delays: BTreeMap::new(),
            agenda: BTreeMap::new(),
            sequence: 0,
            unblock_due: false,
            collect_due: false,
            waiting: BTreeSet::new(),
            logs: BTreeMap::new(),
            start_delays: BTreeMap::new(),
            start_failures: BTreeMap::new(),
            events: Vec::new(),
            stream: VecDeque::new(),
            forgot_at: None,
            stubs: Mutex::default(),
            lists: Mutex::default(),
            options,
        };
        nomad.furnish();
        nomad
    }

    /// The initial namespaces and nodes.
    fn furnish(&mut self) {
        let make = |name: &str, description: &str, index| Namespace {
            name: name.into(),
            description: description.into(),
            create_index: index,
            modify_index: index,
        };
        self.namespaces.insert("default".into(), make("default", "Default shared namespace", 1));
        self.tables.namespaces = 1;
        for name in self.options.namespaces.clone() {
            let index = self.next_index();
            self.tables.namespaces = index;
            self.namespaces.insert(name.clone(), make(&name, "", index));
        }
        for node in self.options.nodes.clone() {
            self.put_node(node);
        }
    }

    /// One HTTP exchange at `now`. First everything due by then happens, then the request is handled. A
    /// request with the header `x-sim-task-api` came through a task's `api.sock`, which always needs a token.
    /// For the event stream, only the status is returned: the server serves [`Nomad::events_since`].
    pub fn handle(&mut self, request: &hyper::Request<Bytes>, now: Timestamp) -> hyper::Response<Bytes> {
        self.advance(now);
        http::answer(self, request)
    }

    /// Processes everything due by `now`, each event at its own time.
    pub fn advance(&mut self, now: Timestamp) {
        let now = gotime::nanos(now);
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let ((at, _), due) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happen(due);
        }
        self.now = self.now.max(now);
    }

    fn happen(&mut self, due: Due) {
        // Without a leader, the servers do nothing. Their scheduled events wait.
        const LEADERLESS: Duration = Duration::from_secs(1);
        let servers = matches!(
            due,
            Due::Evaluate(_)
                | Due::Unblock
                | Due::Reschedule(_)
                | Due::LostAfter { .. }
                | Due::Lock(_)
                | Due::Drain { .. }
                | Due::Collect
        );
        if servers && !self.leader {
            return self.later(LEADERLESS, due);
        }
        match due {
            Due::Evaluate(id) => self.evaluate(&id),
            Due::Unblock => self.unblock(),
            Due::Setup(allocation) => self.set_up(&allocation),
            Due::Missing { allocation, task } => self.tell_missing(&allocation, task),
            Due::Release { allocation } => self.release(&allocation),
            Due::Start { allocation, task, round } => self.start(&allocation, task, round),
            Due::Kill { allocation, task, round } => self.kill_hard(&allocation, task, round),
            Due::MaxRun(allocation) => self.exceed(&allocation),
            Due::Report(allocation) => self.report(&allocation),
            Due::Reschedule(allocation) => self.reschedule(&allocation),
            Due::LostAfter { allocation, since } => self.lose_unknown(&allocation, since),
            Due::Rerender { allocation, task, round } => self.rerender(&allocation, task, round),
            Due::TemplatesFail { since } => self.fail_templates(since),
            Due::Lock(key) => self.expire_lock(&key),
            Due::Drain { node, deadline } => self.drain_deadline(&node, deadline),
            Due::Collect => self.collect_due(),
        }
    }

    /// Events of processes since the last call, oldest first.
    pub fn take_events(&mut self) -> Vec<TaskEvent> {
        std::mem::take(&mut self.events)
    }

    /// When [`Nomad::advance`] next has something to do.
    pub fn next_event(&self) -> Option<Timestamp> {
        self.agenda.first_key_value().map(|((at, _), _)| gotime::timestamp(*at))
    }

    /// The process of an allocation ended on its own at `now`. If there are several tasks, the one that is
    /// currently running. Ignored if it has none.
    pub fn exit_task(&mut self, allocation: &str, exit: Exit, now: Timestamp) {
        self.advance(now);
        let Some(task) = self.foremost_task(allocation) else { return };
        self.task_ended(allocation, task, exit);
    }

    /// The live processes, ordered by allocation, regardless of what the servers believe.
    pub fn live_tasks(&self) -> Vec<LiveTask> {
        let mut live = Vec::new();
        for allocation in self.allocations.values() {
            for task in allocation.client.tasks.iter().filter(|task| task.alive()) {
                live.push(LiveTask {
                    allocation: allocation.id.clone(),
                    namespace: allocation.namespace.clone(),
                    job_id: allocation.job_id.clone(),
                    task: task.name.clone(),
                    node: allocation.node.clone(),
                    started: gotime::timestamp(task.started_at.unwrap_or_default()),
                    killing: task.phase == TaskPhase::Killing,
                });
            }
        }
        live
    }

    /// The jobs that the servers know.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// One job.
    pub fn job(&self, namespace: &str, id: &str) -> Option<&Job> {
        self.jobs.get(&(namespace.to_owned(), id.to_owned()))
    }

    /// The allocations that the servers know, without those of purged jobs.
    pub fn allocations(&self) -> impl Iterator<Item = &Allocation> {
        self.allocations.values().filter(|allocation| !allocation.purged)
    }

    /// A job's allocations, ordered by ID, without those of a purged job of the same ID.
    pub fn allocations_of(&self, namespace: &str, job: &str) -> impl Iterator<Item = &Allocation> {
        let ids = self.by_job.get(&(namespace.to_owned(), job.to_owned())).into_iter().flatten();
        ids.filter_map(|id| self.allocations.get(id)).filter(|allocation| !allocation.purged)
    }

    /// The evaluations.
    pub fn evaluations(&self) -> impl Iterator<Item = &Evaluation> {
        self.evaluations.values()
    }

    /// The variables, with their items.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.variables.values()
    }

    /// One variable.
    pub fn variable(&self, namespace: &str, path: &str) -> Option<&Variable> {
        self.variables.get(&(namespace.to_owned(), path.to_owned()))
    }

    /// Its options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    fn next_index(&mut self) -> u64 {
        self.index += 1;
        self.index
    }

    fn new_id(&mut self) -> String {
        let n: u128 = self.rng.random();
        let hex = format!("{n:032x}");
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }

    fn later(&mut self, after: Duration, due: Due) {
        self.at(self.now.saturating_add(Nanos::try_from(after.as_nanos()).unwrap_or(Nanos::MAX)), due);
    }

    fn at(&mut self, at: Nanos, due: Due) {
        self.sequence += 1;
        self.agenda.insert((at, self.sequence), due);
    }
}
