//! One seed, one run: the real daemon in a simulated world, in virtual time.

pub mod daemon;
pub mod long;
pub mod run;
pub mod secrets;
pub mod shrink;
pub mod truth;
