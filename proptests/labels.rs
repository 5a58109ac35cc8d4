//! Labels as sets, the rules for hostile labels, runner names, and durations for display.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    time::Duration,
};

use githubrunner::{
    labels::{LABEL_LENGTH_MAX, LABELS_MAX},
    model::*,
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::cases::{repository, rules};

/// Words that collide: few letters, both cases.
fn word() -> impl Strategy<Value = String> {
    "[abAB=1. -]{1,4}"
}

/// Hostile text from pieces with a meaning in HCL, Jinja, a shell or a terminal, mixed with harmless ones.
pub fn hostile() -> impl Strategy<Value = String> {
    let pieces = vec![
        "\"",
        "\n",
        "\r",
        "${",
        "%{",
        "}",
        "{{",
        "}}",
        "{%",
        "<<EOF",
        "EOF",
        "\\",
        "#",
        "//",
        "/*",
        "'",
        "`",
        ",",
        " ",
        "  ",
        "\t",
        "\0",
        "\u{1b}[2J",
        "\u{202e}",
        "é",
        "..",
        "=",
        "--",
        "-",
        "+",
        "1e6",
        "10+90000",
        "null",
        "image=",
        "tag=",
        "cpu=",
        "MEM=",
        "maxmem=",
        "disk=",
        "cores=",
        "nodocker",
        "nomadtools",
        "0",
        "7",
        "9999999",
        "12345678",
        "v1.2_3-x",
        "Ab",
        "@sha256:ff",
        "K=V",
    ];
    prop_oneof![
        vec(select(pieces), 0..7).prop_map(|pieces| pieces.concat()),
        "[A-Za-z0-9._/:@+=-]{1,20}",
        ("(image|tag|cpu|cores|mem|maxmem|disk|other)", "=?", "[A-Za-z0-9._/:-]{0,9}")
            .prop_map(|(key, sign, value)| format!("{key}{sign}{value}")),
        ("nomadtools", "( (cpu|cores|mem|maxmem|disk)=[0-9]{1,8}){0,3}").prop_map(|(a, b)| a + &b),
        ("nomadtools", "( (image|tag)=[a-z0-9_][a-z0-9./:_-]{0,12}){0,2}").prop_map(|(a, b)| a + &b),
        any::<String>(),
    ]
}

fn hash(labels: &Labels) -> u64 {
    let mut hasher = DefaultHasher::new();
    labels.hash(&mut hasher);
    hasher.finish()
}

proptest! {
    #![proptest_config(crate::cases::config(500))]

    #[test]
    fn sets_of_labels_mind_neither_order_nor_case_nor_duplicates(
        labels in vec(word(), 0..6),
        turn in 0..6_usize,
        again in 0..6_usize,
        upper in any::<u8>(),
    ) {
        let mut other: Vec<String> = labels
            .iter()
            .enumerate()
            .map(|(at, label)| if upper >> at & 1 == 1 { label.to_uppercase() } else { label.to_lowercase() })
            .collect();
        other.extend(labels.get(again).cloned());
        let turns = turn % other.len().max(1);
        other.rotate_left(turns);
        let (one, two) = (Labels::new(labels.clone()), Labels::new(other));
        prop_assert_eq!(&one, &two);
        prop_assert_eq!(one.cmp(&two), std::cmp::Ordering::Equal);
        prop_assert_eq!(hash(&one), hash(&two));
        let lower: BTreeSet<String> = labels.iter().map(|label| label.to_lowercase()).collect();
        prop_assert_eq!(one.len(), lower.len());
        prop_assert!(one.key().eq(lower.iter().map(String::as_str)));
    }

    #[test]
    fn different_sets_are_different(one in vec(word(), 0..4), two in vec(word(), 0..4)) {
        let lower = |labels: &[String]| labels.iter().map(|l| l.to_lowercase()).collect::<BTreeSet<_>>();
        prop_assert_eq!(lower(&one) == lower(&two), Labels::new(one) == Labels::new(two));
    }

    /// The labels in a job's Meta parse to the same set with the same spelling.
    #[test]
    fn joined_labels_come_back(labels in vec("[abAB= 1.-]{1,4}", 0..6)) {
        let set = Labels::new(labels);
        let back = Labels::from_joined(&set.joined());
        prop_assert_eq!(&back, &set);
        prop_assert_eq!(back.joined(), set.joined());
        let mut sorted: Vec<&str> = set.shown().collect();
        sorted.sort_unstable();
        prop_assert_eq!(sorted.join(","), set.joined());
    }

    /// The smallest spelling is shown, whichever comes first. Labels that are not in the set are not added.
    #[test]
    fn spellings_merge_to_the_smallest(words in vec("[ab]{1,2}", 1..4), cases in vec(any::<u8>(), 1..5), stranger in "[xy]") {
        let spelled = |case: u8| -> Vec<String> {
            let swap = |(at, word): (usize, &String)| if case >> at & 1 == 1 { word.to_uppercase() } else { word.clone() };
            words.iter().enumerate().map(swap).collect()
        };
        let merged = |order: &mut dyn Iterator<Item = &u8>| {
            let mut sets = order.map(|case| Labels::new(spelled(*case)));
            let mut first = sets.next().unwrap();
            sets.for_each(|other| first.merge_spelling(&other));
            first.merge_spelling(&Labels::new([stranger.clone()]));
            first
        };
        let forth = merged(&mut cases.iter());
        let back = merged(&mut cases.iter().rev());
        prop_assert_eq!(forth.joined(), back.joined());
        prop_assert!(forth.key().all(|key| key != stranger));
        let all: Vec<String> = cases.iter().flat_map(|case| spelled(*case)).collect();
        for shown in forth.shown() {
            let smallest = all.iter().filter(|l| l.to_lowercase() == shown.to_lowercase()).min().unwrap();
            prop_assert_eq!(smallest, shown);
        }
    }

    #[test]
    fn nothing_hostile_passes_the_rules(labels in vec(hostile(), 0..4)) {
        let allowed = |c: char| c == ' ' || c.is_ascii_alphanumeric() || "._/:@+=-".contains(c);
        match rules().check(&labels) {
            Ok(runs_on) => {
                prop_assert!(!labels.is_empty());
                for label in &labels {
                    prop_assert!(!label.is_empty() && label.chars().count() <= LABEL_LENGTH_MAX);
                    prop_assert!(label.chars().all(allowed), "{label:?}");
                    prop_assert!(!label.contains("  ") && label.trim() == label, "{label:?}");
                }
                for (key, value) in &runs_on {
                    prop_assert_eq!(key, &key.to_lowercase());
                    prop_assert!(key.chars().chain(value.chars()).all(allowed));
                    let first = value.chars().next();
                    prop_assert!(first.is_none_or(|c| c.is_ascii_alphanumeric() || c == '_'), "{value}");
                    prop_assert!(!value.contains(".."), "{value}");
                    if ["cpu", "cores", "mem", "maxmem", "disk"].contains(&key.as_str()) && !value.is_empty() {
                        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
                        prop_assert!(digits && value.len() <= 7, "{key}={value}");
                    }
                }
                // Every word of every label is present, and nothing else.
                let words: BTreeSet<String> = labels
                    .iter()
                    .flat_map(|label| label.split(' '))
                    .map(|word| word.split('=').next().unwrap().to_lowercase())
                    .collect();
                prop_assert_eq!(words, runs_on.keys().cloned().collect::<BTreeSet<_>>());
            }
            Err(problem) => {
                let text = problem.to_string();
                prop_assert!(text.len() < 2000 && !text.chars().any(char::is_control), "{text:?}");
                prop_assert!(!text.contains('\u{202e}'), "{text:?}");
            }
        }
    }

    #[test]
    fn limits_hold(key in "(cpu|mem|maxmem|MAXMEM|other)", number in 0..3000_u64, limit in 0..3000_u64, own in proptest::option::of(0..3000_u64)) {
        let mut limits = BTreeMap::from([("CPU".to_owned(), limit), ("mem".to_owned(), limit)]);
        limits.extend(own.map(|own| ("maxmem".to_owned(), own)));
        let rules = rules().with_limits(limits);
        let most = match key.to_lowercase().as_str() {
            "maxmem" => own.unwrap_or(limit),
            "other" => u64::MAX,
            _ => limit,
        };
        let label = format!("nomadtools {key}={number}");
        prop_assert_eq!(rules.check(&[label]).is_ok(), number <= most);
    }

    #[test]
    fn names_say_the_repository_and_differ_for_each_attempt(
        prefix in "[a-zA-Z0-9_-]{1,32}",
        owner in "[a-zA-Z0-9.é-]{1,40}",
        name in ".{1,100}",
        job in any::<u64>().prop_map(JobId),
        attempt in any::<u32>(),
        deployment in "[a-z0-9]{1,30}",
    ) {
        let repository = Repository { owner, name, ..repository(0) };
        let runner = runner_name(&prefix, &deployment, None, &repository.full_name(), job, attempt);
        prop_assert!(runner.len() <= RUNNER_NAME_MAX, "{runner}");
        prop_assert!(runner.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-'), "{runner}");
        let (other_prefix, other_deployment) = (format!("{prefix}x"), format!("{deployment}x"));
        let begin = format!("{prefix}-");
        prop_assert!(runner.starts_with(&begin));
        prop_assert_eq!(&runner, &runner_name(&prefix, &deployment, None, &repository.full_name(), job, attempt));
        prop_assert!(is_ours_by_name(&prefix, &deployment, &runner));
        prop_assert!(!is_ours_by_name(&prefix, &other_deployment, &runner));
        prop_assert!(!is_ours_by_name(&other_prefix, &deployment, &runner));
        let others = [(JobId(job.0.wrapping_add(1)), attempt), (job, attempt.wrapping_add(1))];
        for (job, attempt) in others {
            let other = runner_name(&prefix, &deployment, None, &repository.full_name(), job, attempt);
            prop_assert_ne!(&runner, &other);
            // No name is a prefix of another: older servers count such jobs together.
            prop_assert_eq!(runner.len(), other.len());
        }
        prop_assert_ne!(&runner, &runner_name(&prefix, &other_deployment, None, &repository.full_name(), job, attempt));
    }

    #[test]
    fn spans_tell_at_most_two_units_and_never_too_much(seconds in prop_oneof![0..100_000_u64, any::<u64>()]) {
        let text = span(Duration::from_secs(seconds));
        let mut told = 0_u128;
        let mut units = 0;
        let mut number = String::new();
        let mut smallest = u128::MAX;
        for c in text.chars() {
            if c.is_ascii_digit() {
                number.push(c);
                continue;
            }
            let size = match c { 'w' => 604_800, 'd' => 86_400, 'h' => 3600, 'm' => 60, 's' => 1, _ => 0 };
            prop_assert!(size > 0 && size < smallest, "{text}");
            smallest = size;
            told += number.parse::<u128>().unwrap() * size;
            number.clear();
            units += 1;
        }
        prop_assert!(number.is_empty() && (1..=2).contains(&units), "{text}");
        let rest = u128::from(seconds).checked_sub(told);
        prop_assert!(rest.is_some_and(|rest| rest * 10 < u128::from(seconds).max(1) * 3), "{text} of {seconds}s");
        prop_assert!(units == 2 || rest == Some(0) || rest.unwrap() < smallest, "{text} of {seconds}s");
    }
}

/// Neither megabytes nor very many labels take much time or memory.
#[test]
fn megabytes_are_refused_at_once() {
    let rules = rules();
    let long = "a".repeat(5_000_000);
    for label in [long.clone(), format!("nomadtools {long}"), "é".repeat(2_000_000), " ".repeat(3_000_000)] {
        let problem = rules.check(&[label.as_str()]).unwrap_err().to_string();
        assert!(problem.len() < 1000, "{}", problem.len());
        rules.matches(&[label]);
    }
    let many: Vec<String> = (0..=LABELS_MAX).map(|at| format!("l{at}")).collect();
    assert!(rules.check(&many).is_err());
    assert!(rules.check(&many[1..]).is_ok());
    let longest = "a".repeat(LABEL_LENGTH_MAX);
    assert!(rules.check(&[longest.as_str()]).is_ok());
    assert!(rules.check(&[format!("{longest}a")]).is_err());
}
