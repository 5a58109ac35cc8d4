//! Jobs and allocations in Nomad's lists, with Meta that anyone may have written.
#![no_main]

use githubrunner::{
    model::{Ownership, RunnerMeta},
    nomad::{AllocationStub, JobStub, classify},
    text::is_harmful,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let meta: Option<RunnerMeta> = serde_json::from_slice(text).ok();
    if let Some(meta) = &meta {
        let written = serde_json::to_vec(meta).expect("it can be written");
        assert_eq!(&serde_json::from_slice::<RunnerMeta>(&written).expect("it can be read"), meta);
    }
    let jobs: Vec<JobStub> = serde_json::from_slice(text).unwrap_or_default();
    let allocations: Vec<AllocationStub> = serde_json::from_slice(text).unwrap_or_default();
    let allocations: Vec<&AllocationStub> = allocations.iter().collect();
    for job in &jobs {
        for ownership in [Ownership::Ours, Ownership::Nomadtools] {
            let runner = classify(job, ownership, meta.clone().unwrap_or_default(), &allocations, true, None);
            let shown = format!("{} {}", runner.state, runner.finish.map(|f| f.to_string()).unwrap_or_default());
            assert!(!shown.chars().any(is_harmful) && shown.len() < 8192, "{shown:?}");
        }
    }
});
