//! `filter=`: the part of go-bexpr that lists of runners need, with its errors (contract, section 0).

use std::fmt::Write as _;

use serde_json::Value;

/// A filter expression.
#[derive(Debug, Clone)]
pub enum Filter {
    /// Both.
    And(Box<Filter>, Box<Filter>),
    /// Either.
    Or(Box<Filter>, Box<Filter>),
    /// Not.
    Not(Box<Filter>),
    /// A comparison.
    Match {
        /// The path to the field.
        selector: Vec<String>,
        /// The operator.
        operator: Operator,
        /// The other operand.
        value: String,
        /// The value as a pattern, if it is a valid one.
        pattern: Option<Box<fancy_regex::Regex>>,
    },
}

fn condition(selector: Vec<String>, operator: Operator, value: String) -> Filter {
    let wanted = matches!(operator, Operator::Matches | Operator::NotMatches);
    let pattern = wanted.then(|| fancy_regex::Regex::new(&value).ok()).flatten().map(Box::new);
    Filter::Match { selector, operator, value, pattern }
}

/// The operator of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `contains`, and `in` with swapped operands
    In,
    /// `not contains`, `not in`
    NotIn,
    /// `matches`
    Matches,
    /// `not matches`
    NotMatches,
    /// `is empty`
    Empty,
    /// `is not empty`
    NotEmpty,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(&'static str),
}

/// Parses an expression.
///
/// # Errors
/// Nomad's text for an invalid one.
pub fn parse(text: &str) -> Result<Filter, String> {
    let fail = |at: usize| {
        let value_next =
            ["==", "!=", "in", "matches", "contains"].iter().any(|sign| text.trim_end().ends_with(sign));
        let wanted = if value_next { "" } else { "\"(\", " };
        let words = if value_next { "" } else { "\"all\", \"any\", \"not\", " };
        let mut message =
            String::from("failed to create result paginator: failed to read filter expression: ");
        let _ = write!(
            message,
            "1:{} ({at}): no match found, expected: {wanted}\"-\", \"0\", \"\\\"\", \"`\", {words}[ \\t\\r\\n], [1-9] or [a-zA-Z]",
            at + 1
        );
        message
    };
    let tokens = tokens(text).ok_or_else(|| fail(text.len()))?;
    let mut parser = Parser { tokens, at: 0 };
    let filter = parser.either().ok_or_else(|| fail(text.len()))?;
    if parser.at < parser.tokens.len() { Err(fail(text.len())) } else { Ok(filter) }
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '"' | '`' => {
                let (content, length) = quoted(rest, c)?;
                tokens.push(Token::Text(content));
                length
            }
            '=' | '!' if rest.get(1..2) == Some("=") => {
                tokens.push(Token::Sign(if c == '=' { "==" } else { "!=" }));
                2
            }
            '(' | ')' | '[' | ']' | '.' => {
                tokens.push(Token::Sign(match c {
                    '(' => "(",
                    ')' => ")",
                    '[' => "[",
                    ']' => "]",
                    _ => ".",
                }));
                1
            }
            c if c.is_ascii_alphanumeric() || "_-/".contains(c) => {
                let end = rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || "_-/".contains(c)))
                    .unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..end].to_owned()));
                end
            }
            _ => return None,
        };
        rest = rest.get(taken..)?.trim_start();
    }
    Some(tokens)
}

fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut content = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => {
                content.push(match c {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                });
                escaped = false;
            }
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return Some((content, at + 1)),
            other => content.push(other),
        }
    }
    None
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(&Token::Word(word.to_owned()));
        self.at += usize::from(found);
        found
    }

    fn sign(&mut self, sign: &'static str) -> bool {
        let found = self.peek() == Some(&Token::Sign(sign));
        self.at += usize::from(found);
        found
    }

    fn either(&mut self) -> Option<Filter> {
        let left = self.both()?;
        if self.word("or") {
            return Some(Filter::Or(Box::new(left), Box::new(self.either()?)));
        }
        Some(left)
    }

    fn both(&mut self) -> Option<Filter> {
        let left = self.term()?;
        if self.word("and") {
            return Some(Filter::And(Box::new(left), Box::new(self.both()?)));
        }
        Some(left)
    }

    fn term(&mut self) -> Option<Filter> {
        if self.word("not") {
            return Some(Filter::Not(Box::new(self.term()?)));
        }
        if self.sign("(") {
            let inner = self.either()?;
            return self.sign(")").then_some(inner);
        }
        let first = self.operand()?;
        let negated = self.word("not");
        if self.word("in") {
            let operator = if negated { Operator::NotIn } else { Operator::In };
            return Some(condition(self.selector()?, operator, first.join(".")));
        }
        let pick = |yes, no| if negated { no } else { yes };
        let operator = if self.word("matches") {
            pick(Operator::Matches, Operator::NotMatches)
        } else if self.word("contains") {
            pick(Operator::In, Operator::NotIn)
        } else if negated {
            return None;
        } else if self.word("is") {
            let operator = if self.word("not") { Operator::NotEmpty } else { Operator::Empty };
            return self.word("empty").then(|| condition(first, operator, String::new()));
        } else if self.sign("==") {
            Operator::Equal
        } else if self.sign("!=") {
            Operator::NotEqual
        } else {
            return None;
        };
        let value = self.operand()?.join(".");
        Some(condition(first, operator, value))
    }

    /// A selector or a value, depending on its position.
    fn operand(&mut self) -> Option<Vec<String>> {
        if let Some(Token::Text(text)) = self.peek() {
            let text = text.clone();
            self.at += 1;
            return Some(match text.strip_prefix('/') {
                Some(pointer) => pointer.split('/').map(str::to_owned).collect(),
                None => vec![text],
            });
        }
        self.selector()
    }

    fn selector(&mut self) -> Option<Vec<String>> {
        let mut path = match self.peek()? {
            Token::Word(word) => vec![word.clone()],
            Token::Text(text) => vec![text.clone()],
            Token::Sign(_) => return None,
        };
        self.at += 1;
        loop {
            if self.sign(".") {
                let Some(Token::Word(word)) = self.peek() else { return None };
                path.push(word.clone());
                self.at += 1;
            } else if self.sign("[") {
                let Some(Token::Text(text)) = self.peek() else { return None };
                path.push(text.clone());
                self.at += 1;
                if !self.sign("]") {
                    return None;
                }
            } else {
                return Some(path);
            }
        }
    }
}

/// Whether a value matches.
///
/// # Errors
/// Nomad's text for a field that does not exist, a value of the wrong type or an invalid regular expression.
pub fn matches(filter: &Filter, datum: &Value) -> Result<bool, String> {
    match filter {
        Filter::And(a, b) => Ok(matches(a, datum)? && matches(b, datum)?),
        Filter::Or(a, b) => Ok(matches(a, datum)? || matches(b, datum)?),
        Filter::Not(inner) => Ok(!matches(inner, datum)?),
        Filter::Match { selector, operator, value, pattern } => {
            compare(selector, *operator, value, pattern.as_deref(), datum)
        }
    }
}

fn compare(
    selector: &[String],
    operator: Operator,
    value: &str,
    compiled: Option<&fancy_regex::Regex>,
    datum: &Value,
) -> Result<bool, String> {
    let mut found = datum;
    for (part, name) in selector.iter().enumerate() {
        found = match found.get(name) {
            Some(next) => next,
            // A map without the key is not equal to anything, and empty.
            None if part > 0 => {
                return Ok(matches!(
                    operator,
                    Operator::NotEqual | Operator::NotIn | Operator::NotMatches | Operator::Empty
                ));
            }
            None => {
                return Err(format!(
                    "failed to read result page: error finding value in datum: /{} at part {part}: couldn't find key: struct field with name {name:?}",
                    selector.join("/")
                ));
            }
        };
    }
    let empty = match found {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    Ok(match operator {
        Operator::Empty => empty,
        Operator::NotEmpty => !empty,
        Operator::Equal => equal(found, value)?,
        Operator::NotEqual => !equal(found, value)?,
        Operator::In => inside(found, value),
        Operator::NotIn => !inside(found, value),
        Operator::Matches => regexp(found, value, compiled)?,
        Operator::NotMatches => !regexp(found, value, compiled)?,
    })
}

fn equal(found: &Value, value: &str) -> Result<bool, String> {
    let wrong = |what: &str| {
        format!(
            "failed to read result page: error getting match value in expression: strconv.{what}: parsing {value:?}: invalid syntax"
        )
    };
    Ok(match found {
        Value::String(text) => text == value,
        Value::Bool(flag) => match value {
            "true" | "1" | "t" | "T" | "TRUE" | "True" => *flag,
            "false" | "0" | "f" | "F" | "FALSE" | "False" => !*flag,
            _ => return Err(wrong("ParseBool")),
        },
        Value::Number(number) => {
            let wanted: i64 = value.parse().map_err(|_| wrong("ParseInt"))?;
            number.as_i64() == Some(wanted)
        }
        _ => false,
    })
}

fn inside(found: &Value, value: &str) -> bool {
    match found {
        Value::String(text) => text.contains(value),
        Value::Array(items) => items.iter().any(|item| item == value),
        Value::Object(map) => map.contains_key(value),
        _ => false,
    }
}

fn regexp(found: &Value, pattern: &str, compiled: Option<&fancy_regex::Regex>) -> Result<bool, String> {
    let regex = compiled.ok_or_else(|| {
        let error = regexp_error(pattern);
        format!("failed to read result page: failed to compile regular expression {pattern:?}: {error}")
    })?;
    Ok(found.as_str().is_some_and(|text| regex.is_match(text).unwrap_or(false)))
}

/// Go's text for an invalid pattern.
pub fn regexp_error(pattern: &str) -> String {
    let opened = pattern.matches('(').count();
    let closed = pattern.matches(')').count();
    let what = match opened.cmp(&closed) {
        std::cmp::Ordering::Greater => "missing closing )",
        std::cmp::Ordering::Less => "unexpected )",
        std::cmp::Ordering::Equal if pattern.contains('[') => "missing closing ]",
        std::cmp::Ordering::Equal => "missing argument to repetition operator",
    };
    format!("error parsing regexp: {what}: `{pattern}`")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(filter: &str) -> Result<bool, String> {
        let datum = json!({
            "ID": "ghr-1", "Status": "blocked", "Priority": 50, "Stop": false,
            "Meta": {"runner": "x", "a-b": ""}, "Datacenters": ["dc1"], "Nothing": null,
        });
        matches(&parse(filter)?, &datum)
    }

    #[test]
    fn filters_read_as_in_nomad() {
        for yes in [
            r#"Meta["runner"] == "x""#,
            r#"Meta.runner == x"#,
            r#"Meta["runner"] is not empty"#,
            r#"Meta["other"] is empty"#,
            r#"Meta["other"] != "x""#,
            r#"ID matches "^ghr-""#,
            r#"Status == "blocked" and ID matches "^ghr-""#,
            r#"Status == "x" or (Priority == 50 and not Stop == true)"#,
            r#""hr" in ID"#,
            r#"dc1 in Datacenters"#,
            r#"Datacenters contains dc1"#,
            r#"Datacenters not contains dc2"#,
            r#"Meta contains runner"#,
            r#"Nothing is empty"#,
        ] {
            assert_eq!(holds(yes), Ok(true), "{yes}");
        }
        for no in [r#"ID == "x""#, r#"not ID matches "^ghr""#, r#"dc2 in Datacenters"#, "Stop == true"] {
            assert_eq!(holds(no), Ok(false), "{no}");
        }
        for wrong in
            ["(((", "", "ID ==", "ID = x", "ID == x and", "Nope == 1", r#"ID matches "(""#, "Priority == x"]
        {
            assert!(holds(wrong).is_err(), "{wrong}");
        }
    }
}
