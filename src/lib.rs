//! Runs GitHub Actions runners on Nomad: one for each job that waits for one.
//!
//! ```text
//! observe (github, nomad)  ->  plan (pure)  ->  apply (github, nomad)
//! ```
//!
//! The layers, each importing only what stands to its left:
//!
//! ```text
//! model, config <- plan, render <- github, nomad (over http) <- apply, daemon <- commands <- main
//! ```
//!
//! [`plan`] and [`render`] do no IO. [`github`] and [`nomad`] do not know each other. The
//! package `githubrunner-sim` is a simulated world for the demo, tests and benchmarks; it depends on nothing
//! here, so that its mistakes cannot cancel ours.

pub mod apply;
pub mod cli;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod github;
pub mod hints;
pub mod http;
pub mod labels;
pub mod listen;
pub mod model;
pub mod nomad;
pub mod plan;
pub mod render;
pub mod secret;
pub mod status;
pub mod text;
