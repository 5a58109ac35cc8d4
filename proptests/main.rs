//! The specification of the pure core, as properties. README.md in this folder lists them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

mod cases;
mod convergence;
mod drawing;
mod fairness;
mod fixpoint;
mod invariants;
mod labels;
mod leaving;
mod memory;
mod model_world;
mod pagination;
mod rerun;
#[macro_use]
mod room;
mod show;
mod strays;
mod symmetry;
mod templates;
mod tidying;
mod turns;
mod warming;

use githubrunner_specification as specification;
