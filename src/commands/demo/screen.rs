//! The demo's display: a table that is redrawn in place, or a line for each change.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

use super::board::{Cell, Mood, Row};
use crate::text::{self, LINE};

/// How many lines of the log are shown below the table.
const SHOWN_LOG: usize = 6;

/// If the terminal's width is not known.
const WIDTH: usize = 100;

/// If the terminal's height is not known.
const HEIGHT: usize = 40;

/// The latest lines of the daemon's log, shown below the table.
#[derive(Clone, Default)]
pub struct LogPane(Arc<Mutex<VecDeque<String>>>);

impl LogPane {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Write for LogPane {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            if lines.len() >= SHOWN_LOG {
                lines.pop_front();
            }
            lines.push_back(line.to_owned());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogPane {
    type Writer = LogPane;

    fn make_writer(&'a self) -> LogPane {
        self.clone()
    }
}

/// The kind of display.
pub enum Screen {
    /// A line for each change.
    Lines,
    /// A table that is redrawn in place, with the daemon's log below.
    Table {
        /// The log.
        log: LogPane,
        /// With colours.
        colours: bool,
    },
}

/// What was shown last.
#[derive(Default)]
pub(super) struct Shown {
    lines_up: usize,
    known: BTreeMap<(u64, usize), Row>,
}

impl Screen {
    /// Shows what has changed.
    pub(super) fn show(
        &self,
        shown: &mut Shown,
        rows: &[Row],
        status: &str,
        elapsed: Duration,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        match self {
            Screen::Lines => shown.changes(rows, elapsed, out),
            Screen::Table { log, colours } => {
                let (width, height) = size();
                let frame = frame(rows, status, &log.lines(), width, height, *colours);
                shown.redraw(&frame, out)
            }
        }
    }
}

impl Shown {
    fn redraw(&mut self, frame: &[String], out: &mut dyn Write) -> io::Result<()> {
        let mut text = String::new();
        if self.lines_up > 0 {
            text.push_str(&format!("\x1b[{}A", self.lines_up));
        }
        // Each line is overwritten and its rest erased, so nothing flickers.
        for line in frame {
            text.push_str(&format!("\r{line}\x1b[K\n"));
        }
        text.push_str("\x1b[J");
        self.lines_up = frame.len();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn changes(&mut self, rows: &[Row], elapsed: Duration, out: &mut dyn Write) -> io::Result<()> {
        for row in rows {
            let known = self.known.get(&row.key);
            if known == Some(row) {
                continue;
            }
            let name = match (&row.job, rows.iter().find(|main| main.key == (row.key.0, 0))) {
                (job, _) if !job.is_empty() => format!("{} {job} [{}]", row.repository, row.labels),
                (_, Some(main)) => format!("{} {} [{}]", main.repository, main.job, main.labels),
                (_, None) => String::new(),
            };
            let mut news = Vec::new();
            if known.is_none_or(|known| known.doing != row.doing) && !row.doing.text.is_empty() {
                news.push(format!("job {}", row.doing.text));
            }
            let same = known.is_some_and(|known| known.state == row.state && known.runner == row.runner);
            if !same && !row.runner.is_empty() {
                news.push(format!("runner {} {}", row.runner, row.state.text));
            }
            if !news.is_empty() {
                let seconds = elapsed.as_secs_f64();
                writeln!(out, "{seconds:5.1} s  {name}  {}", news.join(", "))?;
            }
            self.known.insert(row.key, row.clone());
        }
        out.flush()
    }
}

/// The terminal's columns and lines.
fn size() -> (usize, usize) {
    match terminal_size::terminal_size() {
        Some((width, height)) if width.0 > 0 && height.0 > 0 => (width.0.into(), height.0.into()),
        _ => (WIDTH, HEIGHT),
    }
}

/// The table, as many lines as fit.
fn frame(
    rows: &[Row],
    status: &str,
    log: &[String],
    width: usize,
    height: usize,
    colours: bool,
) -> Vec<String> {
    let head = ["REPOSITORY", "JOB", "RUNS-ON", "JOB IS", "RUNNER", "RUNNER IS"];
    let cells = |row: &Row| {
        let plain = |text: &str| Cell { text: text.to_owned(), mood: Mood::Plain };
        let Row { repository, job, labels, doing, runner, state, .. } = row;
        [plain(repository), plain(job), plain(labels), doing.clone(), plain(runner), state.clone()]
    };
    let table: Vec<[Cell; 6]> = rows.iter().map(cells).collect();
    let mut widths = head.map(str::len);
    for row in &table {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let mut lines = vec![cut(status, width), String::new()];
    let head: Vec<String> = head.iter().zip(widths).map(|(text, width)| format!("{text:width$}")).collect();
    lines.push(cut(head.join("  ").trim_end(), width));
    // If there are too many lines, the oldest are dropped.
    let room = height.saturating_sub(lines.len() + 1);
    let table = &table[table.len().saturating_sub(room)..];
    lines.extend(table.iter().map(|row| line(row, widths, width, colours)));
    let room = height.saturating_sub(lines.len() + 3);
    if room > 0 && !log.is_empty() {
        lines.extend([String::new(), cut("The daemon's log:", width)]);
        let log = &log[log.len().saturating_sub(room)..];
        lines.extend(log.iter().map(|line| cut(&format!("  {line}"), width)));
    }
    lines
}

/// One row, truncated to the terminal's width.
fn line(row: &[Cell; 6], widths: [usize; 6], width: usize, colours: bool) -> String {
    let mut line = String::new();
    let mut left = width.saturating_sub(1);
    for (index, (cell, cell_width)) in row.iter().zip(widths).enumerate() {
        let padding = if index < 5 { cell_width + 2 } else { cell_width };
        let text: String = format!("{:padding$}", cell.text).chars().take(left).collect();
        left -= text.chars().count();
        match colour(cell.mood).filter(|_| colours) {
            Some(code) => line.push_str(&format!("\x1b[{code}m{text}\x1b[0m")),
            None => line.push_str(&text),
        }
    }
    line
}

fn colour(mood: Mood) -> Option<u8> {
    match mood {
        Mood::Plain => None,
        Mood::Waits => Some(33),
        Mood::Works => Some(36),
        Mood::Well => Some(32),
        Mood::Bad => Some(31),
        Mood::Past => Some(2),
    }
}

fn cut(text: &str, width: usize) -> String {
    let shown = text::shown(text, LINE).to_string();
    shown.chars().take(width.saturating_sub(1)).collect()
}
