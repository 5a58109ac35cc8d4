//! What is done to one daemon among several: it dies or is held at a request, or is cut off from Nomad.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, Request};
use tokio::sync::Notify;

use githubrunner_sim::fault::{Side, Verdict};

/// A hold on one daemon; shared between the faults and whoever lets it live.
#[derive(Clone, Debug, Default)]
pub struct Nemesis(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    told: Notify,
}

/// What has come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is to be dropped now.
    Dies,
    /// It is not to be polled for a while.
    Pauses,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    dying: Dying,
    /// So many writes until the one at which it is paused, and how long that one takes to have its effect.
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
        with_effect: bool,
    },
    Now,
}

/// How a daemon does not reach Nomad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Connections are refused, and those that exist are reset.
    Refused,
    /// Nothing comes back.
    Silent,
}

impl Nemesis {
    /// It dies after so many requests that change something, at the next one, which takes effect or not.
    pub fn die_after(&self, writes: usize, with_effect: bool) {
        self.change(|state| state.dying = Dying::After { writes, with_effect });
    }

    /// It is paused after so many requests that change something, at the next one, which takes effect a while later.
    pub fn pause_after(&self, writes: usize, effect: Duration) {
        self.change(|state| state.pause = Some((writes, effect)));
    }

    /// It is cut off from Nomad, or no longer.
    pub fn cut(&self, how: Option<Cut>) {
        self.change(|state| state.cut = how);
    }

    /// It neither dies nor is paused at a request.
    pub fn let_live(&self) {
        self.change(|state| (state.dying, state.pause, state.told) = (Dying::Never, None, None));
    }

    /// Until there is something to take.
    pub async fn told(&self) {
        self.0.told.notified().await;
    }

    /// What has come about since the last time.
    pub fn take(&self) -> Option<Told> {
        let told = self.get().told;
        self.change(|state| state.told = None);
        told
    }

    /// Whether a new connection of its is refused.
    pub fn refuses(&self, side: Side) -> bool {
        side == Side::Nomad && self.get().cut == Some(Cut::Refused)
    }

    fn get(&self) -> State {
        *self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What becomes of a request of its before it has an effect, and what there is to say of that.
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
        if self.dies_at(request, false) {
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

    /// Whether it dies at this request, before or after its effect.
    pub(super) fn dies_at(&self, request: &Request<Bytes>, effect: bool) -> bool {
        if request.method() == Method::GET {
            return false;
        }
        match self.get().dying {
            Dying::After { writes: 0, with_effect } if with_effect == effect => {
                self.change(|state| (state.dying, state.told) = (Dying::Now, Some(Told::Dies)));
                self.0.told.notify_one();
                true
            }
            Dying::After { writes, with_effect } if writes > 0 && effect => {
                self.change(|state| state.dying = Dying::After { writes: writes - 1, with_effect });
                false
            }
            _ => false,
        }
    }
}
