//! `logs`: the output of a runner's task, as Nomad keeps it.

use std::{
    io::{self, Write},
    pin::Pin,
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use tokio::time::timeout;

use crate::{
    http,
    model::{Runner, RunnerState},
    nomad::{self, Log, Nomad, Stream},
    text::{is_harmful, shown},
};

/// A line without an end is flushed after this many bytes.
const LONGEST_LINE: usize = 16 * 1024;

/// How often to check whether the runner is still alive while there is no output.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The deadline for a piece of a log that already exists.
const PIECE_WITHIN: Duration = Duration::from_secs(20);

/// The destination of a stream.
pub struct Output<'a> {
    /// The writer.
    pub to: &'a mut dyn Write,
    /// Whether it is a terminal, for which control characters are escaped.
    pub terminal: bool,
}

/// The request.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    pub runner: &'a str,
    /// The task; `None` for the runner's own.
    pub task: Option<&'a str>,
    /// How many bytes from the end of each stream.
    pub bytes: u64,
    /// Continue until the runner has ended.
    pub follow: bool,
}

/// Writes the task's standard output to `out` and its standard error to `err`. Returns whether there was a
/// log.
///
/// # Errors
/// There is no such runner or task, Nomad cannot be read, or `out` or `err` cannot be written.
pub async fn run<'a>(
    nomad: &Nomad,
    wanted: Wanted<'_>,
    out: Output<'a>,
    err: Output<'a>,
) -> anyhow::Result<bool> {
    let (nomad, runner) = &find(nomad, wanted.runner).await?;
    let Some(allocation) = &runner.allocation else {
        let why = runner.blocked.as_ref().map(|blocked| format!(": {}", blocked.reason)).unwrap_or_default();
        bail!("{} has no log: Nomad has not placed it{}", runner.name, shown(&why, 300));
    };
    let tasks = nomad.tasks(&runner.name, &allocation.id).await?;
    let task = match (wanted.task.or(runner.meta.task.as_deref()), tasks.as_slice()) {
        (Some(task), _) => task.to_owned(),
        (None, [task]) => task.clone(),
        (None, []) => bail!("{} has no log: the Nomad client has not started its tasks yet", runner.name),
        (None, several) => bail!(
            "{} has several tasks; name one with --task: {}",
            runner.name,
            shown(&several.join(", "), 300)
        ),
    };
    // A dead runner writes nothing more.
    let follows = wanted.follow && runner.state != RunnerState::Dead;
    let open = |stream| nomad.log(&allocation.id, &task, stream, wanted.bytes, follows);
    let (mut out, mut err) = (Printer::new(out), Printer::new(err));
    let mut is_there = false;
    if follows {
        let sources = [Stream::Stdout, Stream::Stderr].map(|stream| Source::Opening(Box::pin(open(stream))));
        is_there = follow(nomad, &runner.name, sources, [&mut out, &mut err]).await?;
    } else {
        for (stream, to) in [(Stream::Stdout, &mut out), (Stream::Stderr, &mut err)] {
            let Some(mut log) = open(stream).await? else { continue };
            is_there = true;
            while let Some(bytes) = log.next(PIECE_WITHIN).await? {
                to.take(&bytes)?;
            }
        }
    }
    if !is_there {
        bail!("{} has no log: its task has not started, or Nomad has removed it", runner.name);
    }
    out.end()?;
    err.end()?;
    Ok(true)
}

/// A log, possibly followed. Nomad answers a request to follow one only when the first bytes are written.
enum Source<'a> {
    Opening(Pin<Box<dyn Future<Output = Result<Option<Log>, nomad::Error>> + 'a>>),
    Open(Log),
    Over,
}

/// What a source yields.
enum Piece {
    Bytes(Bytes),
    NothingYet,
    End,
}

impl Source<'_> {
    /// The next piece, within a while. Cancel-safe.
    async fn next(&mut self) -> anyhow::Result<Piece> {
        if let Source::Opening(opening) = self {
            let Ok(opened) = timeout(LOOK_EVERY, opening).await else { return Ok(Piece::NothingYet) };
            *self = Source::Over;
            let Some(log) = opened? else { return Ok(Piece::End) };
            *self = Source::Open(log);
        }
        let Source::Open(log) = self else { return std::future::pending().await };
        match log.next(LOOK_EVERY).await {
            Ok(Some(bytes)) => Ok(Piece::Bytes(bytes)),
            Ok(None) => {
                *self = Source::Over;
                Ok(Piece::End)
            }
            Err(http::Error::Timeout { .. }) => Ok(Piece::NothingYet),
            Err(error) => Err(error.into()),
        }
    }

    fn is_over(&self) -> bool {
        matches!(self, Source::Over)
    }
}

/// Both streams as they arrive, until the runner has ended. Returns whether there was a log.
async fn follow(
    nomad: &Nomad,
    name: &str,
    [mut stdout, mut stderr]: [Source<'_>; 2],
    [out, err]: [&mut Printer<'_>; 2],
) -> anyhow::Result<bool> {
    let (mut ends, mut is_there) = (false, false);
    while !(stdout.is_over() && stderr.is_over()) {
        let (piece, to) = tokio::select! {
            piece = stdout.next() => (piece?, &mut *out),
            piece = stderr.next() => (piece?, &mut *err),
        };
        is_there |= [&stdout, &stderr].iter().any(|source| matches!(source, Source::Open(_)));
        match piece {
            Piece::Bytes(bytes) => to.take(&bytes)?,
            Piece::End => {}
            // A runner that had ended before the last wait writes nothing more.
            Piece::NothingYet if ends => return Ok(true),
            Piece::NothingYet => {
                let runner = nomad.read_runner(name).await?;
                ends = runner.is_none_or(|runner| runner.state == RunnerState::Dead);
            }
        }
    }
    Ok(is_there)
}

/// The runner, and the client for its namespace.
async fn find(nomad: &Nomad, name: &str) -> anyhow::Result<(Nomad, Runner)> {
    let fits = name.starts_with(&format!("{}-", nomad.options().prefix));
    let mut failure = None;
    for nomad in nomad.everywhere().into_iter().filter(|_| fits) {
        match nomad.read_runner(name).await {
            Ok(Some(runner)) => return Ok((nomad, runner)),
            Ok(None) => {}
            Err(error) => drop(failure.get_or_insert(error)),
        }
    }
    if let Some(error) = failure {
        return Err(error).context("looking for the runner");
    }
    bail!("{} is not one of our runners; `githubrunner list -a` shows them", shown(name, 100))
}

/// Writes its input line by line.
struct Printer<'a> {
    output: Output<'a>,
    line: Vec<u8>,
}

impl<'a> Printer<'a> {
    fn new(output: Output<'a>) -> Self {
        Printer { output, line: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for piece in piece.chunks(LONGEST_LINE) {
                self.line.extend_from_slice(piece);
                if self.line.ends_with(b"\n") || self.line.len() >= LONGEST_LINE {
                    self.flush()?;
                }
            }
        }
        self.output.to.flush()
    }

    fn end(&mut self) -> io::Result<()> {
        if !self.line.is_empty() && self.output.terminal {
            self.line.push(b'\n');
        }
        self.flush()?;
        self.output.to.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        if !self.output.terminal {
            return self.output.to.write_all(&line);
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches('\n').trim_end_matches('\r');
        let harmless = |c: char| c == '\t' || !is_harmful(c);
        let mut safe = String::with_capacity(text.len());
        for c in text.chars() {
            match harmless(c) {
                true => safe.push(c),
                false => safe.push_str(&shown(c.encode_utf8(&mut [0; 4]), 1).to_string()),
            }
        }
        let end = if line.ends_with(b"\n") { "\n" } else { "" };
        write!(self.output.to, "{safe}{end}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(terminal: bool, pieces: &[&[u8]]) -> Vec<u8> {
        let mut to = Vec::new();
        let mut printer = Printer::new(Output { to: &mut to, terminal });
        for piece in pieces {
            printer.take(piece).unwrap();
        }
        printer.end().unwrap();
        to
    }

    #[test]
    fn control_characters_are_escaped_for_a_terminal_and_kept_for_a_file() {
        let pieces: [&[u8]; 3] = [b"a\tb\x1b[2Jc\r\n\xc3", b"\xa4\xff\n", b"end"];
        assert_eq!(printed(false, &pieces), pieces.concat());
        let shown = String::from_utf8(printed(true, &pieces)).unwrap();
        assert_eq!(shown, "a\tb\\u{1b}[2Jc\n\u{e4}\u{fffd}\nend\n");
    }

    #[test]
    fn an_endless_line_does_not_grow_forever() {
        let mut to = Vec::new();
        let mut printer = Printer::new(Output { to: &mut to, terminal: false });
        for _ in 0..10 {
            printer.take(&[b'x'; 10_000]).unwrap();
            assert!(printer.line.len() <= LONGEST_LINE);
        }
        printer.end().unwrap();
        assert_eq!(to.len(), 100_000);
    }
}
