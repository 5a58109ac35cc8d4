//! Labels: those that may be rendered contain only allowed characters, and a reason is safe to show.
#![no_main]

use std::sync::OnceLock;

use githubrunner::{
    labels::{LabelRules, Verdicts},
    model::Labels,
    text::is_harmful,
};
use libfuzzer_sys::fuzz_target;

fn rules() -> &'static LabelRules {
    static RULES: OnceLock<LabelRules> = OnceLock::new();
    RULES.get_or_init(|| LabelRules::new(r"(?:(?!windows)\w+[ -]*)+$").expect("it compiles"))
}

fuzz_target!(|text: &str| {
    let labels: Vec<&str> = text.split('\n').collect();
    Verdicts::new(rules()).of(&labels);
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._/:@+=-".contains(c);
    match rules().check(&labels) {
        Ok(runs_on) => {
            for (key, value) in runs_on {
                assert!(key.chars().chain(value.chars()).all(is_allowed), "{key:?}={value:?}");
                assert!(!value.contains(".."), "{value:?}");
            }
            // The labels in Meta parse to the same set.
            let set = Labels::new(labels.iter().copied());
            assert_eq!(Labels::from_joined(&set.joined()), set);
        }
        Err(problem) => {
            let text = problem.to_string();
            assert!(text.len() < 4096 && !text.chars().any(is_harmful), "{text:?}");
        }
    }
});
