//! `logs`: what a runner's task has written, as Nomad keeps it.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;

use crate::{
    http,
    model::{Runner, RunnerState},
    nomad::{Log, Nomad, Stream},
    text::{is_harmful, shown},
};

/// A line without an end is written after this many bytes.
const LONGEST_LINE: usize = 16 * 1024;

/// How often it is checked that the runner is still alive while nothing is written.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A piece of a log that is there already comes within this.
const PIECE_WITHIN: Duration = Duration::from_secs(20);

/// Where a stream goes.
pub struct Output<'a> {
    /// The writer.
    pub to: &'a mut dyn Write,
    /// It is a terminal, which takes control characters for commands: they are escaped.
    pub terminal: bool,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The runner's ID.
    pub runner: &'a str,
    /// The task; none for the runner's own.
    pub task: Option<&'a str>,
    /// This many bytes of each stream, from its end.
    pub bytes: u64,
    /// Go on until the runner has ended.
    pub follow: bool,
}

/// Writes the task's standard output to `out` and its standard error to `err`. Whether there was a log.
///
/// # Errors
/// There is no such runner or task, Nomad cannot be read, `out` or `err` cannot be written.
pub async fn run<'a>(
    nomad: &Nomad,
    wanted: Wanted<'_>,
    out: Output<'a>,
    err: Output<'a>,
) -> anyhow::Result<bool> {
    let runner = find(nomad, wanted.runner).await?;
    let Some(allocation) = &runner.allocation else {
        let why = runner.blocked.as_ref().map(|blocked| format!(": {}", blocked.reason)).unwrap_or_default();
        bail!("{} has no log: Nomad has not placed it{}", runner.name, shown(&why, 300));
    };
    let tasks = nomad.tasks(&runner.name, &allocation.id).await?;
    let task = match (wanted.task.or(runner.meta.task.as_deref()), tasks.as_slice()) {
        (Some(task), _) => task.to_owned(),
        (None, [task]) => task.clone(),
        (None, []) => bail!("{} has no log: its client has not looked at its tasks yet", runner.name),
        (None, several) => bail!(
            "{} has several tasks; name one with --task: {}",
            runner.name,
            shown(&several.join(", "), 300)
        ),
    };
    let open = |stream| nomad.log(&allocation.id, &task, stream, wanted.bytes, wanted.follow);
    let (stdout, stderr) = (open(Stream::Stdout).await?, open(Stream::Stderr).await?);
    if stdout.is_none() && stderr.is_none() {
        bail!("{} has no log: its task has not started, or Nomad has removed it", runner.name);
    }
    let (mut out, mut err) = (Printer::new(out), Printer::new(err));
    match wanted.follow {
        false => {
            for (log, to) in [(stdout, &mut out), (stderr, &mut err)] {
                let Some(mut log) = log else { continue };
                while let Some(bytes) = log.next(PIECE_WITHIN).await? {
                    to.take(&bytes)?;
                }
            }
        }
        true => follow(nomad, &runner.name, [stdout, stderr], [&mut out, &mut err]).await?,
    }
    out.end()?;
    err.end()?;
    Ok(true)
}

/// Both streams as they come, until the runner has ended.
async fn follow(
    nomad: &Nomad,
    name: &str,
    [mut stdout, mut stderr]: [Option<Log>; 2],
    [out, err]: [&mut Printer<'_>; 2],
) -> anyhow::Result<()> {
    let mut ends = false;
    while stdout.is_some() || stderr.is_some() {
        let (log, piece, to) = tokio::select! {
            piece = next(&mut stdout) => (&mut stdout, piece, &mut *out),
            piece = next(&mut stderr) => (&mut stderr, piece, &mut *err),
        };
        match piece {
            Ok(Some(bytes)) => to.take(&bytes)?,
            Ok(None) => *log = None,
            // Nothing more comes of one that had ended before the last wait.
            Err(http::Error::Timeout { .. }) if ends => return Ok(()),
            Err(http::Error::Timeout { .. }) => {
                let runner = nomad.read_runner(name).await?;
                ends = runner.is_none_or(|runner| runner.state == RunnerState::Dead);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn next(log: &mut Option<Log>) -> Result<Option<Bytes>, http::Error> {
    match log {
        Some(log) => log.next(LOOK_EVERY).await,
        None => std::future::pending().await,
    }
}

async fn find(nomad: &Nomad, name: &str) -> anyhow::Result<Runner> {
    let fits = name.starts_with(&format!("{}-", nomad.options().prefix));
    let runner = if fits { nomad.read_runner(name).await.context("looking for the runner")? } else { None };
    runner.with_context(|| {
        format!("{} is no runner of ours; `githubrunner list -a` shows them", shown(name, 100))
    })
}

/// Writes what comes line by line.
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
    fn a_terminal_gets_no_control_characters_and_a_file_gets_what_was_written() {
        let pieces: [&[u8]; 3] = [b"a\tb\x1b[2Jc\r\n\xc3", b"\xa4\xff\n", b"end"];
        assert_eq!(printed(false, &pieces), pieces.concat());
        let shown = String::from_utf8(printed(true, &pieces)).unwrap();
        assert_eq!(shown, "a\tb\\u{1b}[2Jc\n\u{e4}\u{fffd}\nend\n");
    }

    #[test]
    fn a_line_without_an_end_does_not_grow_for_ever() {
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
