//! The deterministic simulation: the real daemon, adapters and HTTP client in virtual time, in worlds that a seed
//! decides, with everything that can go wrong. `scripts/simulate` runs any number of seeds.
//!
//! One seed, one run. [`faults`] decides what goes wrong, [`run`](mod@run) lets the daemon live through it, and
//! [`checker`] judges what it did; [`specified`] holds each pass against the specification.
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
