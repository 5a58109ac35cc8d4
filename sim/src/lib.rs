//! A simulated world, and a GitHub and a Nomad that serve it over HTTP.
//!
//! Plain data first, HTTP second: [`github::GitHub`] and [`nomad::Nomad`] are values that take a request
//! and the time and give a response. [`world::World`] ties the two together: a task that Nomad starts
//! connects to GitHub as a runner, a job that ends lets the task end. [`serve`] puts either side on a
//! listener or on an in-memory stream, [`carrier`] brings webhooks
//! to where they go, [`fault`] decides which requests go wrong, and [`clock`] is the
//! only source of time. [`stand_in`] is a runner process for a real Nomad.

pub mod carrier;
pub mod clock;
pub mod github;
pub mod nomad;
mod process;
pub mod serve;
pub mod stand_in;
mod stream;
#[cfg(test)]
mod tests;
pub mod world;

use std::collections::VecDeque;

pub use world::fault;

/// Appends the latest item. If there are `most` already, the oldest is dropped.
pub fn keep<T>(all: &mut VecDeque<T>, most: usize, latest: T) {
    if all.len() >= most {
        all.pop_front();
    }
    all.push_back(latest);
}
