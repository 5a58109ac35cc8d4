//! What several tests share. Each takes what it needs.
#![allow(dead_code)]

pub mod nomad_agent;
