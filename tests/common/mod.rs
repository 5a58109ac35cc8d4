//! Helpers shared by several tests. Each uses what it needs.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod nomad_agent;
pub mod sim_nomad;
pub mod site;
