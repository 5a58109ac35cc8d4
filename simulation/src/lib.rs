//! The deterministic simulation: the real daemon, adapters and HTTP client in virtual time, in worlds determined
//! by a seed, with anything that can fail. `scripts/simulate` runs any number of seeds.
//!
//! One seed, one run. [`faults`] decides what fails, [`run`](mod@run) runs the daemon through it, and [`checker`]
//! judges what it did. [`specified`] checks each pass against the specification.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod checker;
pub mod daemon;
pub mod deployment;
pub mod faults;
mod findings;
pub mod long;
pub mod metamorphic;
pub mod replica;
pub mod run;
pub mod secrets;
pub mod shrink;
pub mod specified;
pub mod sweep;
pub mod webhooks;
