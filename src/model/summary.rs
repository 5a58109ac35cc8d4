//! Holds for display: a few of each kind individually, the rest as a number. A matrix can have thousands of jobs that
//! are all waiting for the same thing.

use std::{
    collections::HashMap,
    fmt::{self, Write},
    mem::{Discriminant, discriminant},
};

use super::{Hold, HoldReason, Plan, Subject};
use crate::text::Escaped;

/// At most this many holds of a kind are shown individually.
const TOLD: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldLine<'a> {
    One(&'a Hold),
    /// More of the same kind.
    More {
        count: usize,
        /// The first of them.
        example: &'a Hold,
    },
}

/// What holds are grouped by: the kind of subject and the kind of reason.
type Kind<'a> = (&'static str, &'a str, Discriminant<HoldReason>);

/// The lines for these holds, in their order. A summary follows the last individual hold of its kind.
pub fn lines<'a>(holds: impl IntoIterator<Item = &'a Hold>) -> Vec<HoldLine<'a>> {
    let mut lines: Vec<HoldLine> = Vec::new();
    let mut seen: HashMap<Kind, (usize, Option<usize>)> = HashMap::new();
    for hold in holds {
        let (count, more) = seen.entry(kind(hold)).or_default();
        *count += 1;
        match (*count > TOLD, more) {
            (false, _) => lines.push(HoldLine::One(hold)),
            (true, Some(at)) => {
                if let Some(HoldLine::More { count, .. }) = lines.get_mut(*at) {
                    *count += 1;
                }
            }
            (true, more) => {
                *more = Some(lines.len());
                lines.push(HoldLine::More { count: 1, example: hold });
            }
        }
    }
    lines
}

fn kind(hold: &Hold) -> Kind<'_> {
    let reason = discriminant(&hold.reason);
    match &hold.subject {
        Subject::Nomad => ("nomad", "", reason),
        Subject::Repository { .. } => ("repository", "", reason),
        Subject::Job { repository, .. } => ("job", repository, reason),
        Subject::Runner { .. } => ("runner", "", reason),
        Subject::Warm { .. } => ("warm", "", reason),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for action in &self.actions {
            writeln!(f, "{action}")?;
        }
        for line in lines(&self.holds) {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

impl HoldLine<'_> {
    /// The first hold of the line.
    pub fn hold(&self) -> &Hold {
        match self {
            HoldLine::One(hold) | HoldLine::More { example: hold, .. } => hold,
        }
    }

    /// The subject and the reason, without numbers that change in every pass.
    pub fn topic(&self) -> String {
        let hold = self.hold();
        match self {
            HoldLine::One(_) => format!("{} {:?}", hold.subject, discriminant(&hold.reason)),
            HoldLine::More { .. } => format!("more {:?}", kind(hold)),
        }
    }
}

impl fmt::Display for HoldLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let f = &mut Escaped::line(f);
        let (count, example) = match self {
            HoldLine::One(hold) => return write!(f, "{hold}"),
            HoldLine::More { count, example } => (count, example),
        };
        let (what, of) = match &example.subject {
            Subject::Nomad => ("of Nomad", ""),
            Subject::Repository { .. } => ("repositories", ""),
            Subject::Job { repository, .. } => ("jobs of ", repository.as_str()),
            Subject::Runner { .. } => ("runners", ""),
            Subject::Warm { .. } => ("warm entries", ""),
        };
        write!(f, "hold     {count} more {what}{of}  for example: {}", example.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cap, JobId};

    #[test]
    fn many_of_a_kind_are_a_number() {
        let job = |repository: &str, id| Subject::Job {
            repository: repository.to_owned(),
            id,
            labels: "nomadtools".to_owned(),
        };
        let cap = HoldReason::Cap { cap: Cap::All, limit: 3 };
        let mut holds: Vec<Hold> =
            (0..5123).map(|id| Hold { subject: job("acme/big", JobId(id)), reason: cap.clone() }).collect();
        holds.push(Hold { subject: job("acme/small", JobId(9000)), reason: cap.clone() });
        holds.push(Hold {
            subject: job("acme/big", JobId(9001)),
            reason: HoldReason::BadLabels { why: "no".to_owned() },
        });
        let lines = lines(&holds);
        let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 5 + 1 + 1 + 1);
        assert_eq!(
            text[5],
            "hold     5118 more jobs of acme/big  for example: waiting for a place: scheduler.max_runners is 3"
        );
        assert!(text[6].starts_with("hold     acme/small job 9000"), "{text:?}");
        let again = super::lines(&holds[..100]);
        assert_eq!(again[5].topic(), lines[5].topic(), "only the number has changed");
    }
}
