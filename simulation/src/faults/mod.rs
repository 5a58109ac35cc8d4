//! Faults, determined by a seed: what fails between a client and the servers, wrong responses of the servers, and what
//! happens to the world in the meantime.
//!
//! [`exchange::Faults`] is a [`Fault`](githubrunner_sim::fault::Fault) made of [`trouble::Episode`]s; [`mishap`] has
//! changes of the world itself; [`scenario`] derives a whole run from one seed. Each fault takes one unit from a
//! [`Budget`], so that a run can be shortened: the shortest prefix that still fails is the most useful.

pub mod answers;
mod draw;
pub mod exchange;
pub mod kind;
pub mod labels;
pub mod mishap;
mod namesake;
pub mod nemesis;
pub mod races;
pub mod scenario;
pub mod settings;
pub mod subject;
pub mod trouble;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How many more faults may happen in a run.
#[derive(Clone, Debug)]
pub struct Budget(Arc<BudgetInner>);

#[derive(Debug)]
struct BudgetInner {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// This many; `usize::MAX` for all.
    pub fn new(limit: usize) -> Budget {
        Budget(Arc::new(BudgetInner { limit, used: AtomicUsize::new(0) }))
    }

    /// Takes one; false if there is none left.
    pub fn take(&self) -> bool {
        if !self.any_left() {
            return false;
        }
        self.0.used.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Whether there is one left.
    pub fn any_left(&self) -> bool {
        self.used() < self.0.limit
    }

    /// How many were taken.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }
}
