//! Runs self-hosted GitHub Actions runners on Nomad: one for each queued job.
//!
//! ```text
//! observe (github, nomad)  ->  plan (pure)  ->  apply (github, nomad)
//! ```
//!
//! docs/architecture.md, "Layer rule", says which room may import which; `tests/layers.rs` checks it.
//!
//! [`plan`] and [`render`] do no IO. [`github`] and [`nomad`] do not import each other. The package
//! `githubrunner-sim` is a simulated world for the demo, tests and benchmarks. It depends on nothing here, so
//! that its mistakes cannot cancel out ours.

pub mod apply;
pub mod cli;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod github;
pub mod hints;
pub mod http;
pub mod labels;
pub mod leadership;
pub mod listen;
pub mod model;
pub mod nomad;
pub mod plan;
pub mod render;
pub mod schedule;
pub mod secret;
pub mod status;
pub mod text;
