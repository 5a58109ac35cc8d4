//! One seed, one run: the real daemon in a simulated world, in virtual time. The test and the program take of it what
//! they need, and both end by panicking.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod daemon;
pub mod long;
pub mod otherwise;
pub mod replica;
pub mod run;
pub mod secrets;
pub mod shrink;
#[path = "../../../proptests/specification/mod.rs"]
pub mod specification;
pub mod specified;
pub mod sweep;
pub mod truth;
