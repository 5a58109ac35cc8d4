//! The YAML reader: whatever the input, it ends soon, loses nothing silently, and its result is safe to show and
//! limited in size.
#![no_main]

use githubrunner::{
    config::{Config, Format},
    text::is_harmful,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|yaml: &str| {
    // With a newline it is YAML, not a file name.
    let answer = match Config::load(&format!("{yaml}\n"), &|_| None) {
        Ok(config) => {
            let printed = config.effective(Format::Json);
            serde_json::from_str::<serde_json::Value>(&printed).expect("it prints JSON");
            printed
        }
        Err(errors) => {
            let text = errors.to_string();
            assert!(text.len() < 64 * 1024, "{} bytes of errors", text.len());
            text
        }
    };
    assert!(!answer.chars().any(|c| is_harmful(c) && c != '\n'), "{answer:?}");
});
