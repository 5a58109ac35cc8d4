//! The rules for labels. Anyone who can open a pull request can write `runs-on`, and a label inside HCL would
//! be code, so the raw text is checked before it is used.

mod characters;
mod keys;
mod pattern;
#[cfg(test)]
mod tests;
mod unread;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

pub use characters::{AllowedCharacters, harmless};
use fancy_regex::{Regex, RegexBuilder};
use keys::Broken;
pub use keys::{Keys, ValueGlob};
pub use pattern::LabelPattern;
pub use unread::unread;

use crate::model::Labels;

/// The parsed labels, for templates: `nomadtools mem=1000` is `{"mem": "1000", "nomadtools": ""}`.
pub type RunsOn = BTreeMap<String, String>;

/// GitHub's limit for the labels of one runner (contract github.md §2).
pub const LABELS_MAX: usize = 100;

/// GitHub's limit for one label, in characters (contract github.md §2).
pub const LABEL_LENGTH_MAX: usize = 256;

/// The maximum size of all labels of one job, in bytes: many times what anyone needs, but small enough to keep for
/// every job of a large matrix.
pub const LABELS_LENGTH_MAX: usize = 2048;

/// How many backtracking steps the regular expression may take for one label. Small limits are tried first, because
/// only reaching a limit shows how many steps were taken. Some expressions can take forever, and the text that they are
/// matched against is a stranger's.
const STEPS_BACK: [usize; 3] = [200, 2_000, 20_000];

/// The limit of steps for the labels of one repository in a pass: enough for ninety aborted labels, or ten thousand
/// ordinary ones.
const STEPS_OF_REPOSITORY: usize = 2_000_000;

/// The total limit of steps for the repositories that come first.
const STEPS_OF_PASS: usize = 10_000_000;

/// The limit for a repository when the total is used up: enough for a hundred ordinary labels, so that hostile
/// neighbours do not cost it its runners.
const STEPS_AT_LEAST: usize = 20_000;

/// If only one of `cpu` and `cores` has a limit, a core counts as this many MHz, that of a fast one, so that `cores`
/// cannot circumvent a limit for `cpu`.
const MHZ_OF_A_CORE: u64 = 4000;

/// The labels that determine the size of a runner.
pub const SIZES: [&str; 5] = ["cpu", "cores", "mem", "maxmem", "disk"];

/// Larger numbers overflow Nomad's scheduler (docs/architecture.md: labels are hostile input).
const SIZE_DIGITS: usize = 7;

/// The characters that labels may have besides single spaces, unless configured otherwise.
pub const DEFAULT_ALLOWED: &str = "[A-Za-z0-9._/:@+=-]";

/// Which labels request one of our runners, and which of those may be rendered.
#[derive(Clone, Debug)]
pub struct LabelRules {
    pattern: String,
    /// One for each limit in [`STEPS_BACK`]; only one if the expression does not backtrack.
    matchers: Vec<Regex>,
    allowed: AllowedCharacters,
    max_length: usize,
    limits: BTreeMap<String, u64>,
    numbers: Vec<String>,
    /// `None`: all keys.
    allow_keys: Option<Keys>,
    /// `None`: unset.
    deny_keys: Option<Keys>,
}

/// Which jobs are of interest, by their labels and the name of their runner.
#[derive(Clone, Debug)]
pub struct Interest {
    rules: LabelRules,
    /// The prefix of our runners' names.
    prefix: String,
}

impl Interest {
    /// For these labels, and runners whose names have this prefix.
    pub fn new(rules: &LabelRules, jobprefix: &str) -> Self {
        Interest { rules: rules.clone(), prefix: format!("{jobprefix}-") }
    }

    /// Whether a job requests one of our runners, or is running on one.
    pub fn is_ours(&self, labels: &[String], runner: Option<&str>) -> bool {
        self.judge().is_ours(labels, runner)
    }

    /// For many jobs of one repository.
    pub fn judge(&self) -> Judge<'_> {
        Judge { verdicts: Verdicts::new(&self.rules), prefix: &self.prefix }
    }
}

/// Judges jobs within the limits of [`Verdicts`]. A job whose matching was aborted may be one of ours.
pub struct Judge<'a> {
    verdicts: Verdicts<'a>,
    prefix: &'a str,
}

impl Judge<'_> {
    /// Whether a job requests one of our runners, or is running on one.
    pub fn is_ours(&mut self, labels: &[String], runner: Option<&str>) -> bool {
        runner.is_some_and(|name| name.starts_with(self.prefix)) || self.verdicts.of(labels) != Match::No
    }
}

impl LabelRules {
    /// Rules with this `runson_match`, a Python regular expression, and defaults for the rest.
    ///
    /// # Errors
    /// The expression does not compile; the text says why.
    pub fn new(runson_match: &str) -> Result<Self, String> {
        let pattern = python_to_rust(runson_match);
        let limits = if takes_steps_back(&pattern) { &STEPS_BACK[..] } else { &STEPS_BACK[2..] };
        let matchers = limits.iter().map(|limit| RegexBuilder::new(&pattern).backtrack_limit(*limit).build());
        let matchers = matchers.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let allowed = AllowedCharacters::parse(DEFAULT_ALLOWED)?;
        let numbers = SIZES.map(str::to_owned).to_vec();
        let max_length = LABEL_LENGTH_MAX;
        Ok(LabelRules {
            pattern,
            matchers,
            allowed,
            max_length,
            limits: BTreeMap::new(),
            numbers,
            allow_keys: None,
            deny_keys: None,
        })
    }

    /// The same with other allowed characters.
    pub fn with_allowed(mut self, allowed: AllowedCharacters) -> Self {
        self.allowed = allowed;
        self
    }

    /// The same with another limit for a label's length. Values above [`LABEL_LENGTH_MAX`] are reduced to it.
    pub fn with_max_length(mut self, characters: usize) -> Self {
        self.max_length = characters.min(LABEL_LENGTH_MAX);
        self
    }

    /// The same with limits for the numbers of some labels. A limit for `mem` also applies to `maxmem`, unless that has
    /// its own; likewise for `cpu` and `cores`.
    pub fn with_limits(mut self, limits: BTreeMap<String, u64>) -> Self {
        self.limits = limits.into_iter().map(|(key, limit)| (key.to_lowercase(), limit)).collect();
        self
    }

    /// The same with other keys whose values must be numbers, in lower case. Keys with a limit are always
    /// included.
    pub fn with_numbers(mut self, keys: Vec<String>) -> Self {
        self.numbers = keys;
        self
    }

    /// The same rules, but a key with a value must be one of these, with one of its values. Keys are in lower
    /// case.
    pub fn with_allow_keys(mut self, keys: Option<Keys>) -> Self {
        self.allow_keys = keys;
        self
    }

    /// The same rules, but no key may be one of these with one of its values. Keys are in lower case.
    pub fn with_deny_keys(mut self, keys: Keys) -> Self {
        self.deny_keys = Some(keys);
        self
    }

    /// `allow_keys`; `None`: all keys are allowed.
    pub fn allow_keys(&self) -> Option<&Keys> {
        self.allow_keys.as_ref()
    }

    /// `deny_keys`; `None`: unset.
    pub fn deny_keys(&self) -> Option<&Keys> {
        self.deny_keys.as_ref()
    }

    /// `runson_numbers`.
    pub fn numbers(&self) -> &[String] {
        &self.numbers
    }

    /// `runson_allowed`.
    pub fn allowed(&self) -> &str {
        &self.allowed.text
    }

    /// `runson_max_length`, in characters.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// `runson_limits`.
    pub fn limits(&self) -> &BTreeMap<String, u64> {
        &self.limits
    }

    /// Whether one of the labels matches `runson_match` at its start. A caller with many labels uses
    /// [`Verdicts`].
    pub fn matches<S: AsRef<str>>(&self, labels: &[S]) -> Match {
        Verdicts::new(self).of(labels)
    }

    /// The verdict on a label within this many backtracking steps, and how many it has taken.
    fn judge(&self, label: &str, most: usize) -> (Match, usize) {
        // One more than the longest that may be rendered: either all of it is seen, or it breaks the rules
        // anyway.
        let seen = label.char_indices().nth(LABEL_LENGTH_MAX + 1).map_or(label, |(end, _)| &label[..end]);
        // If there is a match at the start at all, it is the leftmost one.
        let verdict = |matcher: &Regex| match matcher.find(seen) {
            Ok(Some(found)) if found.start() == 0 => Match::Yes,
            Ok(_) => Match::No,
            Err(_) => Match::GaveUp,
        };
        if let [matcher] = self.matchers.as_slice() {
            return (verdict(matcher), 0);
        }
        let mut steps = 0;
        for (matcher, limit) in self.matchers.iter().zip(STEPS_BACK) {
            if steps + limit > most {
                break;
            }
            steps += limit;
            let verdict = verdict(matcher);
            if verdict != Match::GaveUp {
                return (verdict, steps);
            }
        }
        (Match::GaveUp, steps)
    }

    /// Whether `runson_match` can backtrack (look-around or back-references), so that matching is aborted for labels
    /// that take too many steps.
    pub fn may_give_up(&self) -> bool {
        self.matchers.len() > 1
    }

    /// The parsed labels, if all of them may be rendered.
    ///
    /// # Errors
    /// The first label, in sorted order, that may not, and why.
    pub fn check<S: AsRef<str>>(&self, labels: &[S]) -> Result<RunsOn, LabelProblem> {
        if labels.is_empty() {
            return Err(LabelProblem::Empty);
        }
        if labels.len() > LABELS_MAX {
            return Err(LabelProblem::TooMany);
        }
        if labels.iter().map(|label| label.as_ref().len()).sum::<usize>() > LABELS_LENGTH_MAX {
            return Err(LabelProblem::TooLong);
        }
        let mut sorted: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
        sorted.sort_unstable();
        for label in sorted {
            self.check_raw(label)?;
        }
        let mut runs_on = RunsOn::new();
        for label in Labels::new(labels.iter().map(AsRef::as_ref)).shown() {
            let words = shlex::split(label)
                .ok_or_else(|| LabelProblem::Label { label: harmless(label), why: Why::Quotes })?;
            for word in words {
                let (key, value) = word.split_once('=').unwrap_or((&word, ""));
                let key = key.to_lowercase();
                self.check_value(&key, value)
                    .and_then(|()| self.check_key(&key, value))
                    .map_err(|why| LabelProblem::Label { label: harmless(label), why })?;
                runs_on.insert(key, value.to_owned());
            }
        }
        Ok(runs_on)
    }

    /// Before shlex, which drops everything after a `#`.
    fn check_raw(&self, label: &str) -> Result<(), LabelProblem> {
        let problem = |why| Err(LabelProblem::Label { label: harmless(label), why });
        if label.is_empty() {
            return problem(Why::Blank);
        }
        // Bytes first, because counting the characters of megabytes would be wasted work.
        if label.len() > self.max_length * 4 || label.chars().count() > self.max_length {
            return problem(Why::TooLong { limit: self.max_length });
        }
        if label.contains(',') {
            return problem(Why::Comma);
        }
        if label.starts_with(' ') || label.ends_with(' ') || label.contains("  ") {
            return problem(Why::Spaces);
        }
        match label.chars().find(|&c| c != ' ' && !self.allowed.contains(c)) {
            Some(character) => problem(Why::Character { character }),
            None => Ok(()),
        }
    }

    fn check_value(&self, key: &str, value: &str) -> Result<(), Why> {
        let name = || key.to_owned();
        if !value.is_empty() && !value.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            return Err(Why::ValueStart { key: name() });
        }
        if value.contains("..") {
            return Err(Why::Dots { key: name() });
        }
        let limit = self.limit(key);
        // `mem` alone, without a value, does not set the size.
        if value.is_empty() || (limit.is_none() && !self.numbers.iter().any(|number| number == key)) {
            return Ok(());
        }
        let digits = value.len() <= SIZE_DIGITS && value.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = value.parse().ok().filter(|_| digits).ok_or_else(|| Why::Number { key: name() })?;
        match limit {
            Some(limit) if number > limit => Err(Why::Limit { key: name(), limit }),
            _ => Ok(()),
        }
    }

    fn check_key(&self, key: &str, value: &str) -> Result<(), Why> {
        let key_name = || key.to_owned();
        match self.deny_keys.as_ref().and_then(|keys| keys::denied(keys, key, value)) {
            Some(Broken::Key) => return Err(Why::KeyDenied { key: key_name() }),
            Some(Broken::Value) => return Err(Why::ValueDenied { key: key_name() }),
            None => {}
        }
        match self.allow_keys.as_ref().and_then(|keys| keys::not_allowed(keys, key, value)) {
            Some(Broken::Key) => Err(Why::KeyNotAllowed { key: key_name() }),
            Some(Broken::Value) => Err(Why::ValueNotAllowed { key: key_name() }),
            None => Ok(()),
        }
    }

    /// The limit of a key: its own, or that of the key for the same resource.
    fn limit(&self, key: &str) -> Option<u64> {
        let of = |key: &str| self.limits.get(key).copied();
        let other = match key {
            "maxmem" => of("mem"),
            "cores" => of("cpu").map(|limit| limit / MHZ_OF_A_CORE),
            "cpu" => of("cores").map(|limit| limit.saturating_mul(MHZ_OF_A_CORE)),
            _ => None,
        };
        of(key).or(other)
    }
}

/// Whether labels match `runson_match`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// At least one does.
    Yes,
    /// None does.
    No,
    /// None of those that could be judged; matching another one took too many steps.
    GaveUp,
}

impl Match {
    pub fn is_yes(self) -> bool {
        self == Match::Yes
    }
}

/// At most this many verdicts are cached.
const VERDICTS_AT_MOST: usize = 10_000;

/// Verdicts on the labels of one pass. Each distinct label is judged once, with a limit on the total of
/// backtracking steps.
pub struct Verdicts<'a> {
    rules: &'a LabelRules,
    known: HashMap<String, Match>,
    /// The remaining steps of the pass, and of the repository.
    left: usize,
    left_to_repository: usize,
    taken: usize,
}

impl<'a> Verdicts<'a> {
    /// None yet.
    pub fn new(rules: &'a LabelRules) -> Self {
        let mut verdicts =
            Verdicts { rules, known: HashMap::new(), left: STEPS_OF_PASS, left_to_repository: 0, taken: 0 };
        verdicts.next_repository();
        verdicts
    }

    /// Starts another repository, which does not pay for the steps of the previous one.
    pub fn next_repository(&mut self) {
        self.left_to_repository = self.left.clamp(STEPS_AT_LEAST, STEPS_OF_REPOSITORY);
    }

    /// The most backtracking steps that all of it can have taken.
    pub fn steps(&self) -> usize {
        self.taken
    }

    /// Whether one of the labels matches `runson_match` at its start.
    pub fn of<S: AsRef<str>>(&mut self, labels: &[S]) -> Match {
        let mut verdict = Match::No;
        for label in labels {
            match self.of_one(label.as_ref()) {
                Match::Yes => return Match::Yes,
                Match::No => {}
                Match::GaveUp => verdict = Match::GaveUp,
            }
        }
        verdict
    }

    fn of_one(&mut self, label: &str) -> Match {
        if let Some(verdict) = self.known.get(label) {
            return *verdict;
        }
        let (verdict, steps) = self.rules.judge(label, self.left_to_repository);
        self.taken += steps;
        self.left = self.left.saturating_sub(steps);
        self.left_to_repository = self.left_to_repository.saturating_sub(steps);
        // A label that was aborted for lack of steps may have enough in the next repository.
        let is_final = verdict != Match::GaveUp || steps >= STEPS_BACK.iter().sum();
        if is_final && self.known.len() < VERDICTS_AT_MOST {
            self.known.insert(label.to_owned(), verdict);
        }
        verdict
    }
}

impl fmt::Display for LabelRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)
    }
}

/// Whether an expression can take longer than the text is long.
fn takes_steps_back(pattern: &str) -> bool {
    regex_syntax::parse(pattern).is_err()
}

/// Python's `\Z` is the very end, which is `\z` in Rust.
fn python_to_rust(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut escaped = false;
    for c in pattern.chars() {
        text.push(if escaped && c == 'Z' { 'z' } else { c });
        escaped = c == '\\' && !escaped;
    }
    text
}

/// Why labels are not rendered. Its text shows labels made safe for a terminal, and truncated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelProblem {
    /// `runs-on` names only a runner group, or nothing.
    #[error("the job has no labels")]
    Empty,
    /// More than GitHub accepts for one runner.
    #[error("there are more than {LABELS_MAX} labels, which is GitHub's limit for a runner")]
    TooMany,
    /// More text than is kept of a job's labels.
    #[error("they are longer than {LABELS_LENGTH_MAX} bytes together")]
    TooLong,
    /// One label breaks a rule.
    #[error("label \"{label}\" {why}")]
    Label {
        /// The label, made safe to show.
        label: String,
        /// What is wrong with it.
        why: Why,
    },
}

/// What is wrong with one label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// No text.
    #[error("is empty")]
    Blank,
    /// Too many characters.
    #[error("is longer than {limit} characters")]
    TooLong {
        /// `runson_max_length`.
        limit: usize,
    },
    /// Runners cannot have such a label (contract github.md §6).
    #[error("has a comma, which separates labels")]
    Comma,
    /// Spaces that are not single, or at an end.
    #[error("has more than single spaces between words")]
    Spaces,
    /// Not in `runson_allowed`.
    #[error("has the character '{}', which runson_allowed does not list", character.escape_default())]
    Character {
        /// The first one.
        character: char,
    },
    /// An unterminated quotation.
    #[error("has unbalanced quotes")]
    Quotes,
    /// Possibly an option or a path.
    #[error("sets {key} to a value that does not begin with a letter, a digit or _")]
    ValueStart {
        /// The part before the `=`.
        key: String,
    },
    /// Possibly a path upwards.
    #[error("sets {key} to a value with ..")]
    Dots {
        /// The part before the `=`.
        key: String,
    },
    /// Not a number of 1 to 7 digits.
    #[error("sets {key} to a value that is not a number of 1 to {SIZE_DIGITS} digits")]
    Number {
        /// The part before the `=`.
        key: String,
    },
    /// The key is in `deny_keys`.
    #[error("has {key}, which deny_keys lists")]
    KeyDenied {
        /// The part before the `=`.
        key: String,
    },
    /// The key is in `deny_keys` with this value.
    #[error("sets {key} to a value that deny_keys lists")]
    ValueDenied {
        /// The part before the `=`.
        key: String,
    },
    /// The key is not in `allow_keys`.
    #[error("gives a value to {key}, which allow_keys does not list")]
    KeyNotAllowed {
        /// The part before the `=`.
        key: String,
    },
    /// The key is in `allow_keys`, but not with this value.
    #[error("sets {key} to a value that allow_keys does not list")]
    ValueNotAllowed {
        /// The part before the `=`.
        key: String,
    },
    /// Above `runson_limits`.
    #[error("sets {key} above {limit}, the limit in runson_limits")]
    Limit {
        /// The part before the `=`.
        key: String,
        /// The limit.
        limit: u64,
    },
}
