//! Variables and registrations that may be orphans.

use githubrunner::model::*;
use proptest::{prelude::*, sample::select};

use crate::cases::{DEPLOYMENT, NOW, PREFIX, repository, secs};

/// Something that may be an orphan.
#[derive(Clone, Debug)]
pub struct Stray {
    /// A variable, or else a registration.
    variable: bool,
    ours: bool,
    /// An existing runner's name, or else one that no runner has or that a runner had: a job's and the
    /// attempt.
    known: Option<usize>,
    former: (u64, u32),
    online: bool,
    repository: usize,
    /// Since when it was seen without a runner.
    since: Option<u64>,
}

pub fn stray() -> impl Strategy<Value = Stray> {
    let ages = select(vec![0_u64, 59, 60, 61, 599, 600, 601]);
    let since = proptest::option::weighted(0.8, ages);
    let former = (prop_oneof![Just(900_u64), 1..9_u64], 1..3_u32);
    let known = proptest::option::of(0..6_usize);
    (any::<bool>(), any::<bool>(), known, former, any::<bool>(), 0..4_usize, since).prop_map(
        |(variable, ours, known, former, online, repository, since)| Stray {
            variable,
            ours,
            known,
            former,
            online,
            repository,
            since,
        },
    )
}

pub fn add_stray(observation: &mut Observation, stray: &Stray) {
    let Some(nomad) = &mut observation.nomad else { return };
    let deployment = if stray.ours { DEPLOYMENT } else { "somebody else" };
    let known = stray.known.and_then(|at| nomad.runners.get(at)).map(|runner| runner.name.clone());
    let (job_id, attempt) = stray.former;
    let name = known.unwrap_or_else(|| {
        runner_name(
            PREFIX,
            deployment,
            None,
            &repository(stray.repository).full_name(),
            JobId(job_id),
            attempt,
        )
    });
    let orphan = if stray.variable {
        let variable = RunnerVariable { namespace: None, name };
        nomad.variables.insert(variable.clone());
        Orphan::Variable(variable)
    } else {
        let registration = OwnRegistration {
            name: name.clone(),
            online: stray.online,
            repository: repository(stray.repository).id,
        };
        observation.registrations.push(registration);
        Orphan::Registration { name }
    };
    observation.memory.orphans.extend(stray.since.map(|since| (orphan, NOW - secs(since))));
}
