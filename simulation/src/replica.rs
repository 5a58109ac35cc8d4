//! A slot for a daemon in the run: it lives, dies, exits, is suspended, and returns.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio::time::Instant;

use super::daemon::{Incarnation, Maker};
use crate::faults::{
    nemesis::{Cut, Nemesis},
    scenario::{DeathAt, ReplicaMishap},
};

/// One of the daemons.
pub struct Replica {
    /// Its number.
    pub number: usize,
    maker: Maker,
    /// The faults of its exchanges.
    pub nemesis: Nemesis,
    daemon: Option<Incarnation>,
    again: Option<Instant>,
    /// How it dies, if it does: whether its connections are cut, and how long it is down.
    dying: (bool, Duration),
    /// How long it is suspended, if it is.
    pausing: Duration,
    paused_until: Option<Instant>,
    cut_until: Option<Instant>,
    /// How long it is down after it was told to exit.
    exits: Option<Duration>,
    woken: Arc<Woken>,
}

/// Whether a daemon wants to be polled.
#[derive(Default)]
struct Woken {
    woken: AtomicBool,
    parent: Mutex<Option<Waker>>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Relaxed);
        if let Some(parent) = &*self.parent.lock().unwrap_or_else(PoisonError::into_inner) {
            parent.wake_by_ref();
        }
    }
}

/// Why a daemon's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It must be dropped.
    Dies,
    /// It was told to exit and did.
    Exits,
    /// It ended unexpectedly.
    ByItself,
}

impl Replica {
    /// A slot whose daemon starts at once.
    pub fn new(number: usize, maker: Maker, nemesis: Nemesis) -> Replica {
        Replica {
            number,
            maker,
            nemesis,
            daemon: None,
            again: Some(Instant::now()),
            dying: (false, Duration::ZERO),
            pausing: Duration::ZERO,
            paused_until: None,
            cut_until: None,
            exits: None,
            woken: Arc::default(),
        }
    }

    /// What creates its daemon.
    pub fn maker(&self) -> &Maker {
        &self.maker
    }

    /// When [`Replica::tick`] is next due.
    pub fn next(&self) -> Option<Instant> {
        [self.again, self.paused_until, self.cut_until].into_iter().flatten().min()
    }

    /// Starts it, resumes it, or reconnects it to Nomad when that is due. Returns a message about it.
    pub fn tick(&mut self, now: Instant) -> Option<&'static str> {
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        if due(&mut self.again) {
            self.daemon = Some(self.maker.make());
            self.wake();
            return Some("starts");
        }
        if due(&mut self.paused_until) {
            self.wake();
            return Some("goes on");
        }
        if due(&mut self.cut_until) {
            self.nemesis.cut(None);
            return Some("reaches Nomad again");
        }
        None
    }

    fn wake(&self) {
        self.woken.woken.store(true, Ordering::Relaxed);
    }

    /// Whether it is alive, not suspended, and meant to reach Nomad.
    pub fn is_well(&self) -> bool {
        self.daemon.is_some()
            && self.paused_until.is_none()
            && self.cut_until.is_none()
            && self.exits.is_none()
    }

    /// Whether it is suspended.
    pub fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// Polls it until its life ends; pending while it is suspended.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        let Some(daemon) = self.daemon.as_mut().filter(|_| self.paused_until.is_none()) else {
            return Poll::Pending;
        };
        *self.woken.parent.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        if !self.woken.woken.swap(false, Ordering::Relaxed) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.woken));
        let doomed = daemon.is_doomed();
        Pin::new(daemon).poll(&mut Context::from_waker(&waker)).map(|()| match (doomed, self.exits) {
            (_, Some(_)) => End::Exits,
            (true, None) => End::Dies,
            (false, None) => End::ByItself,
        })
    }

    /// Schedules its death.
    pub fn doom(&mut self, at: DeathAt, cut: bool, down: Duration) {
        let Some(daemon) = &mut self.daemon else { return };
        self.dying = (cut, down);
        match at {
            DeathAt::Poll(polls) => daemon.die_after(polls),
            DeathAt::Write { after, when } => self.nemesis.die_after(after, when),
        }
    }

    /// It is dead: it is dropped and, if they are to be cut, its connections; the next one starts later.
    /// Returns a message.
    pub fn bury(&mut self) -> Option<String> {
        let daemon = self.daemon.take()?;
        let exited = self.exits.take();
        let (cut, down) = exited.map_or(self.dying, |down| (false, down));
        if cut {
            daemon.connections.cut();
        }
        drop(daemon);
        self.nemesis.let_live();
        self.paused_until = None;
        self.again = Some(Instant::now() + down);
        Some(match exited {
            Some(_) => format!("the daemon ends as it was told; down for {down:?}"),
            None => format!("the daemon dies; connections cut: {cut}; down for {down:?}"),
        })
    }

    /// SIGHUP with a configuration that does not name this repository.
    pub fn leave_out(&self, repository: Option<usize>) {
        *self.maker.left_out.lock().unwrap_or_else(PoisonError::into_inner) = repository;
        self.hang_up();
    }

    /// SIGHUP with a configuration without warm runners.
    pub fn cool(&self) {
        self.maker.is_cool.store(true, std::sync::atomic::Ordering::Relaxed);
        self.hang_up();
    }

    /// Reloads its configuration.
    pub fn hang_up(&self) {
        if let Some(daemon) = &self.daemon {
            daemon.hangup.notify_one();
        }
    }

    /// Something happens to it. Returns a message.
    pub fn suffer(&mut self, what: ReplicaMishap) -> Option<String> {
        let daemon = self.daemon.as_ref()?;
        match what {
            ReplicaMishap::Exit { down } => {
                self.exits = Some(down);
                daemon.shutdown.send_replace(true);
                Some("the daemon is told to end".into())
            }
            ReplicaMishap::Pause { for_so_long, at: Some((after, effect)) } => {
                self.pausing = for_so_long;
                self.nemesis.pause_after(after, effect);
                None
            }
            ReplicaMishap::Pause { for_so_long, at: None } => {
                self.pausing = for_so_long;
                self.pause()
            }
            ReplicaMishap::Cut { how, for_so_long } => {
                self.nemesis.cut(Some(how));
                if how == Cut::Refused {
                    daemon.connections.cut_nomad();
                }
                self.cut_until = Some(Instant::now() + for_so_long);
                Some(format!("the daemon does not reach Nomad for {for_so_long:?}: {how:?}"))
            }
        }
    }

    /// Suspends it. Returns a message.
    pub fn pause(&mut self) -> Option<String> {
        self.daemon.as_ref()?;
        self.paused_until = Some(Instant::now() + self.pausing);
        Some(format!("the daemon stands still for {:?}", self.pausing))
    }

    /// Ends all of its faults.
    pub fn calm_down(&mut self) {
        self.nemesis.let_live();
        if let Some(daemon) = &mut self.daemon {
            daemon.never_die();
        }
        let now = Instant::now();
        for at in [&mut self.paused_until, &mut self.cut_until].into_iter().flatten() {
            *at = now;
        }
    }
}
