//! Lines of Nomad's event stream.
#![no_main]

use githubrunner::nomad::hint_of;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    if let Some(hint) = hint_of(line, "ghr-") {
        assert!(!hint.jobs.is_empty() && hint.jobs.iter().all(|job| job.starts_with("ghr-")));
    }
});
