//! The simulated Nomad: plain data first, HTTP second.
//!
//! [`Nomad`] is a cluster in memory: servers' state, clients and tasks, with no IO, no clock and no
//! randomness but its seed. [`Nomad::handle`] is one HTTP exchange; [`Nomad::advance`] lets time pass;
//! [`Nomad::take_events`] tells the world which processes start and which are told to end, and
//! [`Nomad::exit_task`] tells Nomad that one has ended. What it answers is held to the recordings of a
//! real agent by a test.
//!
//! It shares no code with the adapters: its mistakes must not cancel theirs. Not modelled: blocking
//! queries (an answer comes at once), Consul, Vault, system jobs, deployments, preemption, dispatch.

mod options;
mod spec;
mod state;

pub use options::{Delays, Exit, LiveTask, Node, Options, TaskEvent};
pub use options::{JobPolicy, NamespaceRules, Policy, Token, TokenKind, VariableRule};
pub use state::{Allocation, Evaluation, Job, Task, TaskPhase, Variable};

use bytes::Bytes;
use jiff::Timestamp;

/// A whole simulated cluster.
#[derive(Debug)]
pub struct Nomad {
    options: Options,
    events: Vec<TaskEvent>,
}

impl Nomad {
    /// A cluster that has just elected its leader.
    pub fn new(options: Options, now: Timestamp) -> Nomad {
        let _ = now;
        Nomad { options, events: Vec::new() }
    }

    /// One HTTP exchange at `now`: everything due by then happens first, then the request is answered.
    pub fn handle(&mut self, request: &hyper::Request<Bytes>, now: Timestamp) -> hyper::Response<Bytes> {
        let _ = request;
        self.advance(now);
        hyper::Response::new(Bytes::new())
    }

    /// Everything due by `now` happens, in the order of its own time.
    pub fn advance(&mut self, now: Timestamp) {
        let _ = now;
    }

    /// What happened to processes since the last call, oldest first.
    pub fn take_events(&mut self) -> Vec<TaskEvent> {
        std::mem::take(&mut self.events)
    }

    /// When [`Nomad::advance`] has something to do next.
    pub fn next_event(&self) -> Option<Timestamp> {
        None
    }

    /// The process of an allocation ended by itself at `now`. Nothing happens if it has none.
    pub fn exit_task(&mut self, allocation: &str, exit: Exit, now: Timestamp) {
        let _ = (allocation, exit);
        self.advance(now);
    }

    /// The processes that are alive, in order of allocation, whatever the servers believe.
    pub fn live_tasks(&self) -> Vec<LiveTask> {
        Vec::new()
    }

    /// The jobs the servers know.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        std::iter::empty()
    }

    /// The allocations the servers know.
    pub fn allocations(&self) -> impl Iterator<Item = &Allocation> {
        std::iter::empty()
    }

    /// The variables, with their items.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        std::iter::empty()
    }

    /// The lines of the event stream after `index`, one JSON object a line, without the `{}` heartbeats.
    /// 0 gives all that is buffered. Serving them is the server's work.
    pub fn events_since(&self, index: u64) -> Vec<String> {
        let _ = index;
        Vec::new()
    }

    /// The options it was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }
}
