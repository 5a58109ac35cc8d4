//! The Nomad client: reads and changes our jobs, their allocations and variables.
//!
//! Data first: the [`wire`](self) types are Nomad's responses, [`classify`] turns them into the model's
//! [`Runner`](crate::model::Runner) without IO, and [`prepare`] turns a parsed job into a runner's job. [`Nomad`] is
//! the client. Comments cite the sections of the contract that the code relies on ("contract §3").

mod allocations;
mod api;
mod deployment;
mod error;
mod events;
mod jobs;
mod locks;
mod logs;
mod nodes;
mod observe;
mod options;
mod prepare;
mod reruns;
mod rights;
mod routes;
pub(crate) mod seal;
mod variables;
mod wire;

pub use allocations::{blocked, classify};
pub use api::Nomad;
pub use deployment::deployment_id;
pub use error::{Error, Right};
pub use events::{Events, Hint, hint_of};
pub use jobs::{PlanAnswer, Registered, Validation};
pub use locks::{Acquired, Kept, Lease};
pub use logs::{Log, Stream};
pub use options::Options;
pub use prepare::{
    Placement, PreparedJob, RESOURCE_MAX, asks, job_from_json, main_task, prepare, reaches_host,
};
pub use routes::route;
pub use variables::{CredentialItems, Written};
pub use wire::{AllocationMetric, AllocationStub, Evaluation, JobStub, TaskEvent, TaskState};
