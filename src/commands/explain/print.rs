//! Prints an answer as text or JSON.

use std::io::{self, Write};

use serde_json::json;

use super::{Answer, Entry, Explanation, Mark, Verdict};
use crate::{
    commands::{Style, style::Mood},
    text::{LINE, harmless_json, shown},
};

/// JSON.
pub(super) fn json(answer: &Answer, out: &mut dyn Write) -> io::Result<()> {
    let text = serde_json::to_string_pretty(&json!({
        "exit_code": answer.exit().0,
        "not_found": answer.not_found,
        "explanations": answer.explanations,
        "more": answer.more,
    }))?;
    writeln!(out, "{}", harmless_json(&text))
}

/// Text: a heading for each subject, a line for each step, and below it what to do.
pub(super) fn text(answer: &Answer, style: Style, out: &mut dyn Write) -> io::Result<()> {
    if let Some(why) = &answer.not_found {
        writeln!(out, "not found: {}", shown(why, LINE))?;
    }
    for (index, explanation) in answer.explanations.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        explain(explanation, style, out)?;
    }
    if answer.more > 0 {
        writeln!(out, "\n{} more; pass the URL of one of them to explain it", answer.more)?;
    }
    Ok(())
}

fn explain(explanation: &Explanation, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let (word, mood) = match explanation.verdict {
        Verdict::Served => ("nothing is wrong", Mood::Well),
        Verdict::OnItsWay => ("on its way", Mood::Works),
        Verdict::Held => ("HELD", Mood::Bad),
    };
    writeln!(out, "{}: {}", shown(&explanation.subject, LINE), style.paint(mood, word))?;
    if let Some(url) = &explanation.url {
        writeln!(out, "{}", shown(url, LINE))?;
    }
    explanation.steps.iter().try_for_each(|entry| step(entry, style, out))
}

fn step(entry: &Entry, style: Style, out: &mut dyn Write) -> io::Result<()> {
    let (mark, mood) = match entry.mark {
        Mark::Done => ("ok", Mood::Well),
        Mark::Now => ("now", Mood::Works),
        Mark::Held => ("HELD", Mood::Bad),
        Mark::Note => ("", Mood::Past),
    };
    let at = entry.at.map(|at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()).unwrap_or_default();
    let arrow = if entry.mark == Mark::Held { ">" } else { " " };
    let mark = style.paint(mood, &format!("{arrow} {mark:4}"));
    writeln!(out, "{mark} {:12}  {at:20}  {}", entry.step.as_str(), shown(&entry.text, LINE))?;
    match &entry.advice {
        Some(advice) if entry.mark != Mark::Done => writeln!(out, "{:43}to do: {}", "", shown(advice, LINE)),
        _ => Ok(()),
    }
}
