//! Progress of long commands on a terminal. Without a terminal, nothing is drawn.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a command with an unknown number of steps shows that it is still running.
const TICK: Duration = Duration::from_millis(120);

/// With fewer steps than this, no bar is shown.
const WORTH_A_BAR: usize = 3;

/// The bar that is currently drawn. Everything that writes to the terminal must do so beside it.
static DRAWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// A bar in the terminal's last line for as long as it lives.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// For a known number of steps.
    pub fn of(what: &'static str, steps: usize) -> Progress {
        Progress::begin(what, (steps >= WORTH_A_BAR).then_some(steps), io::stderr().is_terminal())
    }

    /// For an unknown number of steps.
    pub fn going_on(what: &'static str) -> Progress {
        let progress = Progress::begin(what, None, io::stderr().is_terminal());
        if !progress.0.is_hidden() {
            progress.0.enable_steady_tick(TICK);
        }
        progress
    }

    fn begin(what: &'static str, steps: Option<usize>, terminal: bool) -> Progress {
        let target = match terminal {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let length = steps.and_then(|steps| u64::try_from(steps).ok());
        let bar = ProgressBar::with_draw_target(length, target).with_message(what);
        let template = match length {
            Some(_) => "{msg} {wide_bar} {pos}/{len}, {elapsed}",
            None => "{spinner} {msg}, {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        *DRAWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Progress(bar)
    }

    /// One step is done.
    pub fn step(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
        *DRAWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Runs something that writes to the terminal, with the bar hidden.
pub fn beside<T>(write: impl FnOnce() -> T) -> T {
    let bar = DRAWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Standard error beside the bar, for the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        beside(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_nothing_is_drawn_and_lines_go_on() {
        let progress = Progress::begin("stopping", Some(10), false);
        progress.step();
        assert!(progress.0.is_hidden());
        assert_eq!((progress.0.position(), progress.0.length()), (1, Some(10)));
        assert_eq!(beside(|| 7), 7);
        drop(progress);
        assert!(DRAWN.lock().unwrap().is_none());
    }
}
