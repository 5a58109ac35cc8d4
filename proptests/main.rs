//! The specification of the pure core, as properties. README.md beside this file has the list, and which
//! property catches which broken rule.

mod cases;
mod convergence;
mod facts;
mod fairness;
mod fixpoint;
mod invariants;
mod labels;
mod model_world;
mod pagination;
mod room;
mod show;
mod symmetry;
mod templates;
mod tidying;
