//! Makes external text safe to show: it cannot move a cursor, start its own line, reverse its neighbours or be endless.
//! Labels, names, error texts, task events and Meta are all written by others.

use std::{
    fmt::{self, Write},
    io,
};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FormatFields, format::Writer},
};

/// The longest line about one subject, in characters. Errors of GitHub and Nomad are truncated to less.
pub const LINE: usize = 1000;

/// The longest line of the log, in bytes: the text of one event, including its fields.
const LOG_LINE: usize = 8 * 1024;

/// Whether a terminal or a page would interpret this character: control characters, directional marks, and characters
/// without width.
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A text that is safe to show: harmful characters are escaped, and it is truncated after `most` characters.
pub fn shown(text: &str, most: usize) -> Shown<'_> {
    Shown { text, most }
}

/// See [`shown`].
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    text: &'a str,
    most: usize,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped::new(f, self.most).write_str(self.text)
    }
}

/// Writes only what is safe to show. A `Display` that quotes external text begins with `let f = &mut
/// Escaped::line(f);`.
pub struct Escaped<'a, W> {
    to: &'a mut W,
    left: usize,
    cut: bool,
}

impl<'a, W: Write> Escaped<'a, W> {
    /// Truncates after `most` characters.
    pub fn new(to: &'a mut W, most: usize) -> Self {
        Escaped { to, left: most, cut: false }
    }

    /// Truncates after [`LINE`] characters.
    pub fn line(to: &'a mut W) -> Self {
        Escaped::new(to, LINE)
    }
}

impl<W: Write> Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.left == 0 {
                if !self.cut {
                    self.cut = true;
                    self.to.write_char('…')?;
                }
                return Ok(());
            }
            self.left -= 1;
            match escaped(c) {
                None => self.to.write_char(c)?,
                Some(escaped) => self.to.write_str(&escaped)?,
            }
        }
        Ok(())
    }
}

/// The format of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A line of text for each event, possibly with colours.
    Text {
        /// Escape sequences for colours are ours; those in values have been escaped before.
        colours: bool,
    },
    /// A JSON object for each event.
    Json,
}

/// A writer for a log. Whatever an event quotes, its output is one line, limited in length, safe to show, and
/// without tokens.
#[derive(Clone, Debug)]
pub struct LogWriter<W> {
    to: W,
    form: Form,
}

impl<W: io::Write> LogWriter<W> {
    /// Writes events of this format to `to`.
    pub fn new(to: W, form: Form) -> Self {
        LogWriter { to, form }
    }
}

impl<W: io::Write> io::Write for LogWriter<W> {
    /// Receives a whole event from the subscriber.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        self.to.write_all(log_line(text.trim_end_matches('\n'), self.form).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn log_line(event: &str, form: Form) -> String {
    let event = crate::secret::without_tokens(event);
    let mut line = match form {
        Form::Text { colours } => text_line(&event, colours),
        Form::Json => json_line(&event),
    };
    line.push('\n');
    line
}

fn text_line(event: &str, colours: bool) -> String {
    let mut line = String::with_capacity(event.len().min(LOG_LINE) + 1);
    for c in event.chars() {
        if line.len() >= LOG_LINE {
            line.push('…');
            break;
        }
        match escaped(c).filter(|_| !(colours && c == '\u{1b}')) {
            None => line.push(c),
            Some(escaped) => line.push_str(&escaped),
        }
    }
    line
}

/// A line that is too long stays valid JSON: its longest values are truncated.
fn json_line(event: &str) -> String {
    let line = escape_json(event, None);
    if line.len() <= LOG_LINE {
        return line;
    }
    let Ok(mut event) = serde_json::from_str::<Value>(event) else {
        return Value::from(shown(event, LINE).to_string()).to_string();
    };
    for most in [LINE, LINE / 5, LINE / 50] {
        cut_values(&mut event, most);
        let line = escape_json(&event.to_string(), None);
        if line.len() <= LOG_LINE {
            return line;
        }
    }
    serde_json::json!({ "level": event["level"], "message": "an event with too many values for a line" })
        .to_string()
}

fn cut_values(value: &mut Value, most: usize) {
    match value {
        Value::String(text) if text.chars().nth(most).is_some() => *text = shown(text, most).to_string(),
        Value::Array(values) => values.iter_mut().for_each(|value| cut_values(value, most)),
        Value::Object(values) => values.values_mut().for_each(|value| cut_values(value, most)),
        _ => {}
    }
}

fn escape_json(json: &str, keep: Option<char>) -> String {
    let mut text = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        match escaped_in_json(c).filter(|_| Some(c) != keep) {
            None => text.push(c),
            Some(escaped) => text.push_str(&escaped),
        }
    }
    text
}

/// JSON that is safe for a terminal: the same values, with harmful characters escaped.
pub fn harmless_json(json: &str) -> String {
    // Newlines separate the JSON's own lines; within a value there are none.
    escape_json(json, Some('\n'))
}

/// The replacement for a harmful character; `None` if the character may stay.
fn escaped(c: char) -> Option<String> {
    match c {
        '\n' | '\r' | '\t' => Some(c.escape_default().to_string()),
        _ => is_harmful(c).then(|| c.escape_unicode().to_string()),
    }
}

/// The same within a JSON string.
fn escaped_in_json(c: char) -> Option<String> {
    let units = |c: char| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect();
    is_harmful(c).then(|| units(c))
}

/// The fields of a text log line. An action's message already contains its fields, so only its duration is added. JSON
/// has all of them.
#[derive(Debug, Default)]
pub struct TextFields;

impl<'w> FormatFields<'w> for TextFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut said = Said::default();
        fields.record(&mut said);
        writer.write_str(&said.message)?;
        let shown = said.fields.iter().filter(|field| !said.of_action || field.starts_with("took"));
        shown.enumerate().try_for_each(|(at, field)| {
            let space = if at == 0 && said.message.is_empty() { "" } else { " " };
            write!(writer, "{space}{field}")
        })
    }
}

/// The content of a log event.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<String>,
    of_action: bool,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => {
                self.of_action |= name == "action";
                self.fields.push(format!("{name}={value:?}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Terminal commands, a line break, reversed text, and invisible characters.
    const HOSTILE: &str =
        "a\u{1b}[2J\u{1b}]0;x\u{7}\r\n ERROR forged\u{202e}\u{2066}\u{200b}\u{feff}\u{9b}31m\u{e0041}";

    #[test]
    fn shown_text_is_safe_and_limited() {
        let text = shown(HOSTILE, 1000).to_string();
        assert!(!text.chars().any(is_harmful), "{text}");
        assert!(text.starts_with("a\\u{1b}[2J") && text.contains("\\r\\n ERROR"), "{text}");
        assert_eq!(shown("ärger – 日本", 100).to_string(), "ärger – 日本");
        assert_eq!(shown(&"x".repeat(1_000_000), 10).to_string(), format!("{}…", "x".repeat(10)));
        assert_eq!(shown("exactly", 7).to_string(), "exactly");
    }

    #[test]
    fn an_event_is_one_line_whatever_it_quotes() {
        use std::io::Write;

        for form in [Form::Text { colours: false }, Form::Json] {
            let mut log = Vec::new();
            let event = format!("INFO {HOSTILE} ghp_{} {}\n", "a".repeat(36), "y".repeat(100));
            LogWriter::new(&mut log, form).write_all(event.as_bytes()).unwrap();
            let log = String::from_utf8(log).unwrap();
            assert_eq!(log.matches('\n').count(), 1, "{log}");
            assert!(!log.trim_end().chars().any(is_harmful), "{log}");
            assert!(!log.contains("ghp_a"), "{log}");
        }
        let coloured = log_line("\u{1b}[32mINFO\u{1b}[0m a\nb", Form::Text { colours: true });
        assert_eq!(coloured, "\u{1b}[32mINFO\u{1b}[0m a\\nb\n");
        assert!(log_line(&"x".repeat(1 << 20), Form::Text { colours: false }).len() < 2 * LOG_LINE);
    }

    #[test]
    fn a_long_json_line_is_truncated_and_stays_json() {
        let line = |fields: Value| {
            let event = serde_json::json!({ "level": "WARN", "fields": fields });
            let line = log_line(&event.to_string(), Form::Json);
            assert!(line.len() <= LOG_LINE + 1 && line.ends_with('\n'), "{}", line.len());
            serde_json::from_str::<Value>(&line).unwrap()
        };
        let long = line(serde_json::json!({ "message": "what is short", "error": "x".repeat(1 << 20) }));
        assert_eq!(long["fields"]["message"], "what is short");
        assert_eq!(long["fields"]["error"], format!("{}…", "x".repeat(LINE)));
        let hostile = line(serde_json::json!({ "message": HOSTILE, "error": "\u{202e}".repeat(1 << 16) }));
        assert_eq!(hostile["fields"]["message"], HOSTILE);
        let many = line((0..5000).map(|n| (n.to_string(), Value::from("y".repeat(100)))).collect());
        assert_eq!(many["level"], "WARN");
        // Text before the JSON makes the whole line text.
        let other = log_line(&format!("no JSON {}", HOSTILE.repeat(1000)), Form::Json);
        assert!(other.len() <= LOG_LINE && serde_json::from_str::<Value>(&other).unwrap().is_string());
    }

    #[test]
    fn json_keeps_its_values() {
        let value = serde_json::json!({ "name": HOSTILE });
        let text = harmless_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!text.chars().any(|c| is_harmful(c) && c != '\n'), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
