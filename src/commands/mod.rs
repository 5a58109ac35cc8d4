//! One file a subcommand.

pub mod cache;
pub mod check;
#[cfg(feature = "demo")]
pub mod demo;
pub mod dumpconfig;
pub mod list;
pub mod plan;
pub mod render;
pub mod run;
pub mod setup;
pub mod stop;
mod table;
pub mod webhook;

pub use setup::Setup;
