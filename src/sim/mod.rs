//! A simulated world, and a GitHub and a Nomad that serve it over HTTP.

pub mod github;
pub mod nomad;
pub mod world;
