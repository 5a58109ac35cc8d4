//! The built program from outside: against a simulated GitHub and a simulated Nomad on loopback, and against a
//! real Nomad agent if `nomad` is on PATH. The simulators know the true state.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

#[path = "end_to_end/classes.rs"]
mod classes;
#[path = "end_to_end/commands.rs"]
mod commands;
#[path = "end_to_end/crashes.rs"]
mod crashes;
#[path = "end_to_end/disk.rs"]
mod disk;
#[path = "end_to_end/faults.rs"]
mod faults;
#[path = "end_to_end/hostile.rs"]
mod hostile;
#[path = "end_to_end/life.rs"]
mod life;
#[path = "end_to_end/lost.rs"]
mod lost;
#[path = "end_to_end/namespaces.rs"]
mod namespaces;
#[path = "end_to_end/nomadtools.rs"]
mod nomadtools;
#[path = "end_to_end/operators.rs"]
mod operators;
#[path = "end_to_end/owners.rs"]
mod owners;
#[path = "end_to_end/real_losses.rs"]
mod real_losses;
#[path = "end_to_end/real_nomad.rs"]
mod real_nomad;
#[path = "end_to_end/replicas.rs"]
mod replicas;
#[path = "end_to_end/signals.rs"]
mod signals;
#[path = "end_to_end/status.rs"]
mod status;
#[path = "end_to_end/tls.rs"]
mod tls;
#[path = "end_to_end/warm.rs"]
mod warm;
#[path = "end_to_end/webhooks.rs"]
mod webhooks;
