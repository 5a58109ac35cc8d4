//! One file for each subcommand.

pub mod cache;
pub mod check;
pub mod completion;
#[cfg(feature = "demo")]
pub mod demo;
pub mod dumpconfig;
mod exit;
pub mod explain;
pub mod init;
mod keys;
pub mod list;
pub mod logs;
pub mod nomadtools;
pub mod plan;
pub mod progress;
pub mod render;
pub mod run;
pub mod setup;
pub mod status;
pub mod stop;
mod style;
mod table;
pub mod webhook;

pub use exit::Exit;
pub use setup::Setup;
pub use style::Style;
