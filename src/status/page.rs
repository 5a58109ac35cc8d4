//! The page: the state as HTML, complete without JavaScript. The template engine escapes everything in it.

use std::{fmt::Write, sync::OnceLock, time::Duration};

use jiff::Timestamp;
use minijinja::{AutoEscape, Environment, Error, Value, context, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;

use super::{history::Point, state::State};
use crate::model::span;

pub(super) const STYLE: &str = include_str!("page/style.css");
pub(super) const SCRIPT: &str = include_str!("page/script.js");
pub(super) const ICON: &str = include_str!("page/icon.svg");

/// What the page may do: show itself with its own style and script, and send requests to its own origin. Browsers
/// enforce this, whatever the page contains.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                                 base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The size of a chart, in its own units.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 120.0;

/// At most this many minutes are shown.
const MINUTES: i64 = 60;

/// A chart of the last hour.
#[derive(Debug, Serialize)]
struct Chart {
    title: &'static str,
    /// The value at the top.
    top: String,
    lines: Vec<Line>,
}

/// A line in a chart.
#[derive(Debug, Serialize)]
struct Line {
    class: &'static str,
    label: &'static str,
    /// The last value, for display.
    last: String,
    /// As an SVG path.
    path: String,
}

/// The whole page.
pub(super) fn render(state: &State) -> Result<String, Error> {
    let template = engine().get_template("page.html")?;
    let points = &state.history.points;
    let seconds = |value: f64| span(Duration::from_secs_f64(value.max(0.0)));
    let charts = [
        chart(
            "Queue time of taken jobs",
            points,
            state.now,
            &seconds,
            [
                ("a", "p50", &|point: &Point| point.queue_p50_seconds),
                ("b", "p95", &|point: &Point| point.queue_p95_seconds),
            ],
        ),
        chart(
            "Jobs",
            points,
            state.now,
            &|value| format!("{value:.0}"),
            [
                ("a", "running", &|point: &Point| Some(point.running as f64)),
                ("b", "queued", &|point: &Point| Some(point.queued as f64)),
            ],
        ),
    ];
    template.render(context! { state => Value::from(Serde(state)), charts => Value::from(Serde(charts)) })
}

fn engine() -> &'static Environment<'static> {
    static ENGINE: OnceLock<Environment<'static>> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let mut engine = Environment::new();
        engine.set_debug(false);
        // Everything shown is text, never HTML.
        engine.set_auto_escape_callback(|_| AutoEscape::Html);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        if let Ok(syntax) = syntax {
            engine.set_syntax(syntax);
        }
        engine.add_filter("span", |seconds: f64| span(Duration::from_secs_f64(seconds.clamp(0.0, 1e12))));
        engine.add_filter("clock", clock);
        // The template is part of the program; a test renders it.
        if let Err(error) = engine.add_template("page.html", include_str!("page/page.html")) {
            tracing::error!("invalid page template: {error}");
        }
        engine
    })
}

/// The time of day of a JSON timestamp or of seconds since the epoch.
fn clock(at: &Value) -> String {
    let at = match at.as_i64() {
        Some(seconds) => Timestamp::from_second(seconds).ok(),
        None => at.as_str().and_then(|text| text.parse().ok()),
    };
    at.map_or_else(String::new, |at: Timestamp| at.strftime("%H:%M:%S").to_string())
}

/// Extracts a value from a point.
type Of<'a> = &'a dyn Fn(&Point) -> Option<f64>;

fn chart(
    title: &'static str,
    points: &[Point],
    now: Timestamp,
    shown: &dyn Fn(f64) -> String,
    lines: [(&'static str, &'static str, Of<'_>); 2],
) -> Chart {
    let values = lines.iter().flat_map(|(_, _, of)| points.iter().filter_map(of));
    let top = values.fold(1.0, f64::max);
    let lines = lines.map(|(class, label, of)| Line {
        class,
        label,
        last: points.last().and_then(of).map_or_else(|| "–".to_owned(), shown),
        path: path(points, now, top, of),
    });
    Chart { title, top: shown(top), lines: lines.into() }
}

/// A line through the points that have a value, with gaps where they have none.
fn path(points: &[Point], now: Timestamp, top: f64, of: Of<'_>) -> String {
    let mut path = String::new();
    let mut is_drawing = false;
    for point in points {
        let ago = now.duration_since(point.at).as_secs_f64() / 60.0;
        let Some(value) = of(point).filter(|_| (0.0..=MINUTES as f64).contains(&ago)) else {
            is_drawing = false;
            continue;
        };
        let (x, y) = (WIDTH * (1.0 - ago / MINUTES as f64), HEIGHT * (1.0 - value / top));
        // A single point is drawn as a dot: its line has almost no length, and round ends.
        let _ = match is_drawing {
            true => write!(path, "L{x:.1} {y:.1}"),
            false => write!(path, "M{x:.1} {y:.1}h.1"),
        };
        is_drawing = true;
    }
    path
}
