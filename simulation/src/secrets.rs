//! Searches log lines for secrets, at the finest level.

use std::{
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError},
};

use githubrunner::text::is_harmful;
use githubrunner_sim::world::Shared;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::Interest,
};

use crate::deployment::{GITHUB_TOKEN, JIT_MARK, NOMAD_TOKEN, WEBHOOK_SECRET};

/// The start of the App's own tokens: base64 of `{"alg":"RS256"`.
const JWT_MARK: &str = "eyJhbGciOiJSUzI1NiI";
/// The start of installations' tokens here.
const INSTALLATION_MARK: &str = "ghs_";
/// A part of each key's text.
const KEY_MARK: &str = "PRIVATE KEY-----\nMII";

/// The maximum length of a log line, in characters: an action's own text and one error.
const LONGEST_LINE: usize = 2500;

/// The secret in a text, if there is one.
pub fn secret_in(text: &[u8], also: &[String]) -> Option<String> {
    let holds = |secret: &str| memchr::memmem::find(text, secret.as_bytes()).is_some();
    [GITHUB_TOKEN, NOMAD_TOKEN, JIT_MARK, JWT_MARK, INSTALLATION_MARK, KEY_MARK, WEBHOOK_SECRET]
        .into_iter()
        .chain(also.iter().map(String::as_str))
        .find(|secret| holds(secret))
        .map(str::to_owned)
}

/// What is wrong with a line that people read.
pub fn harm_in(line: &str) -> Option<&'static str> {
    if secret_in(line.as_bytes(), &[]).is_some() {
        return Some("has a secret");
    }
    if line.chars().any(is_harmful) {
        return Some("is not harmless");
    }
    (line.chars().count() > LONGEST_LINE).then_some("is too long")
}

/// Watches the log: keeps lines that contain a secret, and adds events to the timeline if requested.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<LogInner>>);

#[derive(Default)]
struct LogInner {
    leaks: Vec<String>,
    harmful: Vec<String>,
    timeline: Option<Shared>,
}

impl Log {
    /// The lines with a secret.
    pub fn leaks(&self) -> Vec<String> {
        self.inner().leaks.clone()
    }

    /// Displayed lines that are not safe, or are too long.
    pub fn harmful(&self) -> Vec<String> {
        self.inner().harmful.clone()
    }

    /// From now on its lines go to the timeline of this world.
    pub fn tell(&self, world: &Shared) {
        self.inner().timeline = Some(Arc::clone(world));
    }

    fn inner(&self) -> MutexGuard<'_, LogInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Used if no log is wanted. While there is no subscriber at all, an event that occurs for the first time is disabled
/// permanently, also for the log that another thread is about to start.
struct Quiet;

impl Subscriber for Quiet {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, _: &Metadata<'_>) -> bool {
        false
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Must be called before anything is logged.
pub fn be_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(Quiet).unwrap_or_else(|error| panic!("{error}"));
    });
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        let mut inner = self.inner();
        if secret_in(line.0.as_bytes(), &[]).is_some() {
            inner.leaks.push(line.0.clone());
        }
        if *event.metadata().level() <= Level::INFO
            && (line.0.chars().any(is_harmful) || line.0.chars().count() > LONGEST_LINE)
        {
            inner.harmful.push(line.0.clone());
        }
        // The exchanges are already in the timeline. The world itself logs nothing, so its lock is free.
        if *event.metadata().level() <= Level::INFO
            && let Some(timeline) = &inner.timeline
            && let Ok(mut world) = timeline.try_lock()
        {
            let now = world.clock.now();
            world.note(now, format!("        {}", line.0));
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
