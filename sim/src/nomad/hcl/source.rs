//! Positions in the text, in the format of Nomad's parser: `input.hcl:L,C-C`.

use std::ops::Range;

use hcl::edit::{Span, expr::Expression};

/// The errors, each with its position.
pub type Diagnostics = Vec<String>;

/// The text to parse.
#[derive(Debug)]
pub struct Source<'a> {
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    /// Finds the starts of lines.
    pub fn new(text: &'a str) -> Source<'a> {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Source { text, lines: std::iter::once(0).chain(starts).collect() }
    }

    /// The text of a range.
    pub fn slice(&self, range: Range<usize>) -> &'a str {
        self.text.get(range).unwrap_or_default()
    }

    /// The whole text.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Line and column of an offset, both from 1. A column is a character.
    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or_default();
        let column = self.slice(start..offset.min(self.text.len())).chars().count() + 1;
        (line, column)
    }

    /// `input.hcl:2,10-15`, or `input.hcl:2,10-3,1` over several lines.
    pub fn place(&self, range: Range<usize>) -> String {
        let (line, column) = self.position(range.start);
        match self.position(range.end) {
            (end, last) if end == line => format!("input.hcl:{line},{column}-{last}"),
            (end, last) => format!("input.hcl:{line},{column}-{end},{last}"),
        }
    }

    /// A diagnostic.
    pub fn error(&self, range: Range<usize>, summary: &str, detail: impl AsRef<str>) -> Diagnostics {
        vec![format!("{}: {summary}; {}", self.place(range), detail.as_ref())]
    }

    /// Where an expression starts in HCL's view: of a string its content, of a call its name and the
    /// parenthesis, of a collection the bracket.
    pub fn start(&self, expression: &Expression) -> Range<usize> {
        let span = span(expression);
        match expression {
            Expression::String(_) => span.start + 1..(span.end.saturating_sub(1)).max(span.start + 1),
            Expression::StringTemplate(template) if template.as_single_element().is_none() => {
                match template.iter().next() {
                    Some(hcl::edit::template::Element::Interpolation(first)) => self.start(&first.expr),
                    Some(other) => other.span().unwrap_or(span),
                    None => span,
                }
            }
            Expression::Array(_) | Expression::Object(_) | Expression::ForExpr(_) => {
                span.start..span.start + 1
            }
            Expression::FuncCall(call) => {
                let name = call.name.name.span().unwrap_or(span.clone());
                span.start..name.end + 1
            }
            Expression::BinaryOp(operation) => self.start(&operation.lhs_expr),
            Expression::Conditional(conditional) => self.start(&conditional.cond_expr),
            _ => span,
        }
    }
}

/// The range of an expression, empty at 0 if it was not parsed from text.
pub fn span(expression: &Expression) -> Range<usize> {
    expression.span().unwrap_or_default()
}
