//! The deterministic simulation: the real daemon, adapters and HTTP client in virtual time, in worlds that a seed
//! decides, with everything that can go wrong. `scripts/simulate` runs any number of seeds.
//!
//! One seed, one run. [`chaos`] decides what goes wrong, [`run`](mod@run) lets the daemon live through it, and
//! [`truth`] judges what it did; [`specified`] holds each pass against the specification.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod chaos;
pub mod daemon;
pub mod long;
pub mod otherwise;
pub mod replica;
pub mod run;
pub mod secrets;
pub mod shrink;
pub mod specified;
pub mod sweep;
pub mod truth;
pub mod webhooks;
