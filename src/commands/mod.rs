//! One file a subcommand.

pub mod dumpconfig;
pub mod render;
