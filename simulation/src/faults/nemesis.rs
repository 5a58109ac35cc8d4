//! The nemesis of one daemon among several: it kills or suspends it at a request, or cuts it off from Nomad.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use githubrunner_sim::fault::{Side, Verdict};
use hyper::{Method, Request};
use tokio::sync::Notify;

/// Controls one daemon; shared between the faults and the daemon's slot.
#[derive(Clone, Debug, Default)]
pub struct Nemesis(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    told: Notify,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It must be dropped now.
    Dies,
    /// It must not be polled for a while.
    Pauses,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    dying: Dying,
    /// The number of writes before the one at which it is suspended, and how long that one takes to take
    /// effect.
    pause: Option<(usize, Duration)>,
    cut: Option<Cut>,
    told: Option<Told>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Dying {
    #[default]
    Never,
    After {
        writes: usize,
        when: DeathWhen,
    },
    Now,
}

/// When a daemon dies at a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeathWhen {
    /// Before it takes effect.
    BeforeEffect,
    /// After it has taken effect, without the response.
    AfterEffect,
}

/// How a daemon is cut off from Nomad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Connections are refused, and existing ones are reset.
    Refused,
    /// There is no response.
    Silent,
}

impl Nemesis {
    /// It dies at the write after this many others.
    pub fn die_after(&self, writes: usize, when: DeathWhen) {
        self.change(|state| state.dying = Dying::After { writes, when });
    }

    /// It is suspended at the write after this many others, which takes effect a while later.
    pub fn pause_after(&self, writes: usize, effect: Duration) {
        self.change(|state| state.pause = Some((writes, effect)));
    }

    /// It is cut off from Nomad, or no longer.
    pub fn cut(&self, how: Option<Cut>) {
        self.change(|state| state.cut = how);
    }

    /// It is neither killed nor suspended at a request.
    pub fn let_live(&self) {
        self.change(|state| (state.dying, state.pause, state.told) = (Dying::Never, None, None));
    }

    /// Completes when something has happened.
    pub async fn told(&self) {
        self.0.told.notified().await;
    }

    /// What has happened since the last call.
    pub fn take(&self) -> Option<Told> {
        let told = self.get().told;
        self.change(|state| state.told = None);
        told
    }

    /// Whether its new connections are refused.
    pub fn refuses(&self, side: Side) -> bool {
        side == Side::Nomad && self.get().cut == Some(Cut::Refused)
    }

    fn get(&self) -> State {
        *self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Handles one of its requests before it takes effect. Returns what is done and a message.
    pub(super) fn before(&self, side: Side, request: &Request<Bytes>) -> Option<(Verdict, &'static str)> {
        let state = self.get();
        if matches!(state.dying, Dying::Now) {
            return Some((Verdict::Stall, "is of a dead daemon"));
        }
        match state.cut.filter(|_| side == Side::Nomad) {
            Some(Cut::Refused) => return Some((Verdict::Reset, "is cut off")),
            Some(Cut::Silent) => return Some((Verdict::Stall, "is not heard")),
            None => {}
        }
        if self.dies_at(request, DeathWhen::BeforeEffect) {
            return Some((Verdict::Stall, "is the last of a daemon, without effect"));
        }
        match state.pause.filter(|_| request.method() != Method::GET) {
            Some((0, effect)) => {
                self.change(|state| (state.pause, state.told) = (None, Some(Told::Pauses)));
                self.0.told.notify_one();
                Some((Verdict::Delay(effect), "is on the wire while its daemon is paused"))
            }
            Some((writes, effect)) => {
                self.change(|state| state.pause = Some((writes - 1, effect)));
                None
            }
            None => None,
        }
    }

    /// Whether it dies at this request.
    pub(super) fn dies_at(&self, request: &Request<Bytes>, at: DeathWhen) -> bool {
        if request.method() == Method::GET {
            return false;
        }
        match self.get().dying {
            Dying::After { writes: 0, when } if when == at => {
                self.change(|state| (state.dying, state.told) = (Dying::Now, Some(Told::Dies)));
                self.0.told.notify_one();
                true
            }
            Dying::After { writes, when } if writes > 0 && at == DeathWhen::AfterEffect => {
                self.change(|state| state.dying = Dying::After { writes: writes - 1, when });
                false
            }
            _ => false,
        }
    }
}
