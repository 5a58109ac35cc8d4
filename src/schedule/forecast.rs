//! A forecast of how soon a queued job is seen, for people.

use std::{fmt, time::Duration};

use super::pace::{Budget, Heat, Load, Pace};
use crate::model::span;

/// A forecast for the repositories that one payer's credentials look at, while nothing happens in them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    pub repositories: usize,
    /// How often each of them is polled.
    pub every: Duration,
    /// How many requests a minute that takes.
    pub a_minute: f64,
    /// How soon a push is noticed, if pushes are watched.
    pub push: Option<Duration>,
    /// Whether webhooks are received.
    pub webhook: bool,
}

/// A push is noticed within this time: owners are polled every 5 s, and the response takes a while.
const PUSH_NOTICED: Duration = Duration::from_secs(8);

/// What besides the schedule causes looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct HintSources {
    /// Pushes are watched.
    pub pushes: bool,
    /// Webhooks are received.
    pub webhook: bool,
}

impl Forecast {
    /// For this many repositories within a budget.
    pub fn new(repositories: usize, budget: &Budget, sources: HintSources) -> Forecast {
        let HintSources { pushes, webhook } = sources;
        let load = (0..repositories).fold(Load::default(), |load, _| load.with(Heat::Cold, 1.0));
        let every = Pace::new(&load, budget).every(Heat::Cold);
        Forecast {
            repositories,
            every,
            a_minute: repositories as f64 * 60.0 / every.as_secs_f64(),
            push: pushes.then_some(PUSH_NOTICED.min(every)),
            webhook,
        }
    }
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Forecast { repositories, every, a_minute, push, webhook } = self;
        let (noun, each) =
            if *repositories == 1 { ("repository", "it is") } else { ("repositories", "each is") };
        write!(
            f,
            "{repositories} {noun} on one credential: {each} polled every {}, with about {a_minute:.0} requests a minute, which \
             do not count against the hourly limit while nothing changes; a queued job is seen ",
            span(*every)
        )?;
        if *webhook {
            f.write_str("within 2s of its webhook, ")?;
        }
        if let Some(push) = push.filter(|push| push < every) {
            write!(f, "within {} of a push, ", span(push))?;
        }
        write!(f, "within {} in any case", span(*every))
    }
}
