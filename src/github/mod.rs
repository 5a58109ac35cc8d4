//! The client for GitHub's REST API: repositories, jobs and runners.
//!
//! [`GitHub`] is the whole adapter. A pass calls [`GitHub::repositories`] and [`GitHub::list_all`], acts with
//! [`GitHub::jit_config`] and the like, and ends with [`GitHub::end_pass`]. Comments about the API cite the sections of
//! the contract (contracts/github.md).

mod address;
mod api;
mod app;
mod auth;
mod bodies;
mod cache;
mod error;
mod etags;
mod followed;
mod gathered;
mod hooks;
mod jobs;
mod jwt;
mod keyring;
mod limits;
mod listed;
pub mod pagination;
mod pushes;
mod reading;
mod remembered;
mod repositories;
mod routes;
mod runners;
mod secrets;
mod single;
mod sizes;
mod tried;
mod turns;
mod versions;
pub mod wire;

#[cfg(test)]
mod tests;

pub use address::{Web, api_url};
pub use api::{Clock, GitHub, Options, POINTS_A_MINUTE};
pub use auth::{Auth, Key, Which};
pub use cache::{CacheEntry, CacheStore, read_cache};
pub use error::Error;
pub use followed::Look;
pub use hooks::{HOOK_EVENT, Hook, HookConfig, HookDelivery, HookPlace};
pub use jobs::JobListing;
pub use keyring::Assigned;
pub use limits::{Headroom, Rate, Role};
pub use listed::{Gap, Listed, Sought};
pub use pushes::{PUSHED_PAGE, Pushed, PushedList};
pub use repositories::{Refresh, Resolution};
pub use routes::route;
pub use runners::{Deleted, JitConfig, RegisteredRunner, RegistrationToken, Scope};
pub use single::JobDetail;
pub use tried::Tried;
pub use versions::VersionEnds;
