//! Parses the text. Errors have the wording of Nomad's parser where it is known.

use std::ops::Range;

use hcl::edit::{
    Span,
    expr::{Expression, ObjectKey},
    parser,
    structure::{Block, Body},
    template::{Element, StringTemplate},
    visit::{Visit, visit_block, visit_expr, visit_object_key, visit_string_template},
};

use super::source::Source;

const UNCLOSED: &str = "There is no closing brace for this block before the end of the file. This may be caused by incorrect brace nesting elsewhere in this file.";
const EXTRA: &str = "Extra characters after interpolation expression";

/// The structure of the text, with positions.
///
/// # Errors
/// One line: position, summary and detail.
pub fn parse(source: &Source<'_>) -> Result<Body, String> {
    let body = parser::parse_body(source.text())
        .map_err(|error| describe(source, error.location().offset(), error.message()))?;
    // hcl-rs accepts quoted strings over several lines, Nomad's parser does not.
    let mut lines = Lines { source, found: None };
    lines.visit_body(&body);
    match lines.found {
        Some(at) => Err(multi_line(source, at)),
        None => Ok(body),
    }
}

/// Finds line breaks inside quoted strings.
struct Lines<'s> {
    source: &'s Source<'s>,
    found: Option<usize>,
}

impl Lines<'_> {
    fn look(&mut self, range: Option<Range<usize>>) {
        let range = range.unwrap_or_default();
        let at = self.source.slice(range.clone()).find('\n').map(|at| range.start + at);
        self.found = self.found.or(at);
    }
}

impl Visit for Lines<'_> {
    fn visit_block(&mut self, block: &Block) {
        block.labels.iter().for_each(|label| self.look(label.span()));
        visit_block(self, block);
    }

    fn visit_expr(&mut self, expression: &Expression) {
        if let Expression::String(text) = expression {
            self.look(text.span());
        }
        visit_expr(self, expression);
    }

    fn visit_object_key(&mut self, key: &ObjectKey) {
        visit_object_key(self, key);
    }

    fn visit_string_template(&mut self, template: &StringTemplate) {
        for element in template.iter() {
            if let Element::Literal(literal) = element {
                self.look(literal.span());
            }
        }
        visit_string_template(self, template);
    }
}

fn describe(source: &Source<'_>, at: usize, message: &str) -> String {
    let text = source.text();
    let before = text.get(..at).unwrap_or_default();
    let rest = text.get(at..).unwrap_or_default();
    let next = rest.chars().next();
    let token = at..at + next.map_or(0, |c| if c == '\n' { 1 } else { c.len_utf8() });
    let say = |summary: &str, detail: &str| format!("{}: {summary}; {detail}", source.place(token.clone()));
    let line_before = before.rsplit('\n').next().unwrap_or_default();

    if message.contains("redefined attribute") {
        return redefined(source, at);
    }
    if in_interpolation(line_before) {
        return interpolation(next)
            .map_or_else(|| multi_line(source, at), |(summary, detail)| say(summary, detail));
    }
    if open_string(line_before) && matches!(next, Some('\n') | None) {
        return multi_line(source, at);
    }
    if rest.trim().len() <= 1
        && let Some(open) = unclosed(text)
    {
        return format!("{}: Unclosed configuration block; {UNCLOSED}", source.place(open..open + 1));
    }
    let line_rest = rest.split('\n').next().unwrap_or_default();
    if open_string(line_rest) {
        return multi_line(source, at + line_rest.len());
    }
    if matches!(next, Some('{' | '"'))
        && let Some(told) = two_on_a_line(source, at, line_before)
    {
        return told;
    }
    let line = line_before.trim_end();
    if line.ends_with(['=', '+', '-', '*', '/', '(', ',', '?', ':']) {
        return say(
            "Invalid expression",
            "Expected the start of an expression, but found an invalid expression token.",
        );
    }
    let (summary, detail) = what_is_missing(next, line, message);
    say(summary, detail)
}

/// The error for an attribute that was already set.
fn redefined(source: &Source<'_>, at: usize) -> String {
    let (before, rest) = source.text().split_at_checked(at).unwrap_or_default();
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-')).collect();
    let first = before.match_indices(&name).map(|(found, _)| found).filter(|found| {
        let line = before.get(..*found).unwrap_or_default().rsplit('\n').next().unwrap_or_default();
        let after = before.get(found + name.len()..).unwrap_or_default().trim_start();
        line.trim().is_empty() && after.starts_with('=')
    });
    let first = first.last().unwrap_or(at);
    let detail = format!(
        "The argument {name:?} was already set at {}. Each argument may be set only once.",
        source.place(first..first + name.len())
    );
    format!("{}: Attribute redefined; {detail}", source.place(at..at + name.len()))
}

/// The error between `${` and `}`; `None` if the string does not end on its line.
fn interpolation(next: Option<char>) -> Option<(&'static str, &'static str)> {
    Some(match next {
        Some(':') => (
            EXTRA,
            "Template interpolation doesn't expect a colon at this location. Did you intend this to be a literal sequence to be processed as part of another language? If so, you can escape it by starting with \"$${\" instead of just \"${\".",
        ),
        Some('}') => (
            "Invalid expression",
            "Expected the start of an expression, but found an invalid expression token.",
        ),
        Some('\n') | None => return None,
        _ => (
            EXTRA,
            "Expected a closing brace to end the interpolation expression, but found extra characters.\n\nThis can happen when you include interpolation syntax for another language, such as shell scripting, but forget to escape the interpolation start token. If this is an embedded sequence for another language, escape it by starting with \"$${\" instead of just \"${\".",
        ),
    })
}

/// The error for a single-line block with more than one argument.
fn two_on_a_line(source: &Source<'_>, at: usize, line_before: &str) -> Option<String> {
    let name = line_before.get(line_before.rfind('{')? + 1..).unwrap_or_default();
    if name.trim().is_empty() || name.contains('=') {
        return None;
    }
    let start = at - name.trim_start().len();
    let word: String = name.trim_start().chars().take_while(|c| !c.is_whitespace()).collect();
    let detail = format!(
        "A single-line block definition can contain only a single argument. If you meant to define argument {word:?}, use an equals sign to assign it a value. To define a nested block, place it on a line of its own within its parent block."
    );
    Some(format!("{}: Argument definition required; {detail}", source.place(start..at + 1)))
}

/// The error for everything else.
fn what_is_missing(next: Option<char>, line: &str, message: &str) -> (&'static str, &'static str) {
    match next {
        None => (
            "Unclosed configuration block",
            "There is no closing brace for this block before the end of the file. This may be caused by incorrect brace nesting elsewhere in this file.",
        ),
        Some('\'') => (
            "Invalid character",
            "Single quotes are not valid. Use double quotes (\") to enclose strings., and 1 other diagnostic(s)",
        ),
        Some(';') => (
            "Invalid character",
            "The \";\" character is not valid. Use newlines to separate arguments and blocks, and commas to separate items in collection values., and 1 other diagnostic(s)",
        ),
        _ if message.contains("newline") && line.ends_with('}') && !line.contains('=') => {
            ("Missing newline after block definition", "A block definition must end with a newline.")
        }
        _ if message.contains("newline") && line.contains('{') && line.contains('=') => (
            "Invalid single-argument block definition",
            "An argument definition on the same line as its containing block creates a single-line block definition, which must also be closed on the same line. Place the block's closing brace immediately after the argument definition.",
        ),
        _ if message.contains("newline") => {
            ("Missing newline after argument", "An argument definition must end with a newline.")
        }
        Some('=' | '"') => {
            ("Argument or block definition required", "An argument or block definition is required here.")
        }
        _ => (
            "Argument or block definition required",
            "An argument or block definition is required here. To set an argument, use the equals sign \"=\" to introduce the argument value.",
        ),
    }
}

fn multi_line(source: &Source<'_>, at: usize) -> String {
    let detail = "Quoted strings may not be split over multiple lines. To produce a multi-line string, either use the \\n escape to represent a newline character or use the \"heredoc\" multi-line template syntax.";
    format!("{}: Invalid multi-line string; {detail}", source.place(at..(at + 1).min(source.text().len())))
}

/// Whether this start of a line ends inside `${ … }` of a quoted string.
fn in_interpolation(line: &str) -> bool {
    let mut depth = 0usize;
    let mut chars = line.chars().peekable();
    let mut previous = ' ';
    while let Some(c) = chars.next() {
        match c {
            '$' | '%' if chars.peek() == Some(&'{') && previous != c => {
                chars.next();
                depth += 1;
            }
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        previous = c;
    }
    depth > 0
}

/// Whether a quoted string is open at the end of this start of a line.
fn open_string(line: &str) -> bool {
    let mut open = false;
    let mut escaped = false;
    for c in line.chars() {
        match c {
            '\\' if open && !escaped => {
                escaped = true;
                continue;
            }
            '"' if !escaped => open = !open,
            _ => {}
        }
        escaped = false;
    }
    open
}

/// The first brace that is never closed.
fn unclosed(text: &str) -> Option<usize> {
    let mut open = Vec::new();
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '\n' => quoted = false,
            '{' if !quoted => open.push(at),
            '}' if !quoted => {
                open.pop();
            }
            _ => {}
        }
    }
    open.first().copied()
}
