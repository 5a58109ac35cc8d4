//! Variables and registrations with our name that belong to no runner. Foreign ones are never touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Draft, survey::Survey};
use crate::model::{Action, Observation, Orphan, RemoveOrphan, RepositoryId, is_ours_by_name};

/// Variables are listed a moment after jobs, so one pass alone does not prove that a variable has no job.
const VARIABLE_AT_LEAST: Duration = Duration::from_secs(60);

/// A registration is created before its runner comes online, which can take as long as pulling an image.
const REGISTRATION_AT_LEAST: Duration = Duration::from_secs(600);

/// Removes what has been an orphan for long enough. Returns all current orphans.
pub(super) fn remove(survey: &Survey, observation: &Observation, draft: &mut Draft) -> BTreeSet<Orphan> {
    let ours = |name: &str| is_ours_by_name(&survey.policy.prefix, &survey.nomad.deployment, name);
    let foreign: BTreeSet<&str> = survey.nomad.foreign.iter().map(|foreign| foreign.name.as_str()).collect();
    let unseen: BTreeSet<&str> = survey.unseen.iter().map(|runner| runner.name.as_str()).collect();
    let has_job =
        |name: &str| survey.runners.contains_key(name) || foreign.contains(name) || unseen.contains(name);
    let variables = survey.nomad.variables.iter().filter(|variable| !has_job(&variable.name));
    let variables = variables.map(|variable| (Orphan::Variable(variable.clone()), None));
    // An organization's registration appears in the list of each of its repositories.
    let mut offline: BTreeMap<&str, (bool, Option<RepositoryId>)> = BTreeMap::new();
    for registration in &observation.registrations {
        let (is_offline, repository) = offline.entry(&registration.name).or_insert((true, None));
        *is_offline &= !registration.online;
        let known = Some(registration.repository).filter(|id| observation.repositories.contains_key(id));
        *repository = [*repository, known].into_iter().flatten().min();
    }
    let is_live = |name: &str| survey.runners.get(name).is_some_and(|runner| runner.is_live());
    // Its runner may be in a namespace that could not be read.
    let sees_all = survey.nomad.unseen.is_empty();
    let registrations = offline
        .into_iter()
        .filter(|(name, (is_offline, _))| sees_all && *is_offline && !is_live(name))
        .map(|(name, (_, repository))| (Orphan::Registration { name: name.to_owned() }, repository));
    let alone: BTreeMap<Orphan, Option<RepositoryId>> =
        variables.chain(registrations).filter(|(orphan, _)| ours(orphan.name())).collect();
    for (orphan, repository) in &alone {
        let Some(since) = survey.memory.orphans.get(orphan) else { continue };
        let seen = survey.now.since(*since);
        let at_least = match orphan {
            Orphan::Variable(_) => VARIABLE_AT_LEAST,
            Orphan::Registration { .. } => REGISTRATION_AT_LEAST,
        };
        let repository = repository.and_then(|id| Some(survey.repositories.get(&id)?.repository.clone()));
        let is_known = repository.is_some() || matches!(orphan, Orphan::Variable(_));
        if seen >= at_least && is_known {
            draft.actions.push(Action::RemoveOrphan(RemoveOrphan {
                orphan: orphan.clone(),
                repository,
                seen,
            }));
        }
    }
    alone.into_keys().collect()
}
