//! Reads our runners from Nomad in three requests, however many there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
    time::Duration,
};

use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::{
    allocations::{blocked, classify},
    api::{ListRead, Nomad, Retry},
    error::{Error, Right},
    prepare::NAME_MAX,
    seal::{History, Key, has_its_name},
    wire::{AllocationStub, Evaluation, JobStub},
};
use crate::{
    http::{self, Request},
    model::{
        Blocked, Foreign, ForeignReason, NomadView, Ownership, Runner, RunnerMeta, RunnerVariable, Timestamp,
        Unseen,
    },
    text::shown,
};

/// A namespace other than the daemon's own must be read within this time: the others wait for it.
const READ_WITHIN: Duration = Duration::from_secs(20);

/// How soon such a namespace is requested again after a failure. The wait doubles while that fails. The daemon's own is
/// requested in every pass.
const FIRST_REST: Duration = Duration::from_secs(5);

/// The longest wait.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What is remembered of a namespace if there are several.
#[derive(Clone, Default)]
pub(super) struct Remembered {
    /// The runners, as they were last seen.
    runners: Vec<Runner>,
    /// The last failure, if it was not read since.
    failure: Option<Failure>,
}

/// A namespace could not be read.
#[derive(Clone)]
struct Failure {
    error: Error,
    /// It is not requested again before this time.
    until: Instant,
    rest: Duration,
}

impl Nomad {
    /// Our runners and variables in all namespaces, each requested once. Those that cannot be read are unseen, and
    /// their runners are as they were last seen.
    ///
    /// # Errors
    /// [`Error`]; then nothing is known of any runner. If some namespace can be read, it is not an error.
    pub async fn observe(&self) -> Result<NomadView, Error> {
        let mut view = self.observe_all().await?;
        self.mark_draining(&mut view.runners).await;
        Ok(view)
    }

    async fn observe_all(&self) -> Result<NomadView, Error> {
        if self.options().elsewhere.is_empty() {
            return self.observe_one().await;
        }
        // It identifies our jobs in all of them.
        self.deployment().await?;
        let nomads = self.everywhere();
        let seen = join_all(nomads.iter().map(Nomad::observe_or_rest)).await;
        let mut whole: Option<NomadView> = None;
        let (mut unseen, mut first) = (BTreeMap::new(), None);
        let mut remembered = self.inner.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        for (nomad, seen) in nomads.iter().zip(seen) {
            let remembered = remembered.entry(nomad.namespace().cloned()).or_default();
            match seen {
                Ok(view) => {
                    remembered.runners.clone_from(&view.runners);
                    remembered.failure = None;
                    whole = Some(match whole {
                        Some(whole) => joined(whole, view),
                        None => view,
                    });
                }
                Err(error) => {
                    remembered.fails(&error);
                    unseen.insert(nomad.namespace().cloned(), nomad.unseen(&error));
                    first.get_or_insert(error);
                }
            }
        }
        let mut whole = match (whole, first) {
            (Some(whole), _) => whole,
            (None, Some(error)) => return Err(error),
            (None, None) => return Err(no_date()),
        };
        for namespace in unseen.keys() {
            let last = remembered.get(namespace).into_iter().flat_map(|last| &last.runners);
            whole.runners.extend(last.cloned());
        }
        Ok(NomadView { unseen, ..whole })
    }

    /// One namespace, unless it failed a moment ago.
    async fn observe_or_rest(&self) -> Result<NomadView, Error> {
        if self.namespace().is_none() {
            return self.observe_one().await;
        }
        let failure = {
            let remembered = self.inner.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.get(&self.namespace().cloned()).and_then(|remembered| remembered.failure.clone())
        };
        if let Some(failure) = failure.filter(|failure| Instant::now() < failure.until) {
            return Err(failure.error);
        }
        match timeout(READ_WITHIN, self.observe_one()).await {
            Ok(seen) => seen,
            Err(_) => Err(Error::Unusable(format!(
                "timed out after {} s while listing the runners there",
                READ_WITHIN.as_secs()
            ))),
        }
    }

    fn unseen(&self, error: &Error) -> Unseen {
        let namespace =
            self.namespace().map_or_else(|| self.options().namespace.clone(), ToString::to_string);
        Unseen { namespace, kind: error.kind(), why: error.to_string() }
    }

    /// Our runners and variables in one namespace, in three requests: jobs, allocations, variables. Without a job of
    /// ours, the deployment variable (elsewhere, the namespace) is read instead of the allocations, to distinguish an
    /// empty namespace from a missing one. Blocked evaluations are read only while a job of ours has no allocation;
    /// the deployment variable also from time to time.
    async fn observe_one(&self) -> Result<NomadView, Error> {
        let prefix = format!("{}-", self.options().prefix);
        let Jobs { jobs, mut now, unread } = self.jobs(&prefix).await?;
        let deployment = match self.known_deployment() {
            Some(deployment) if jobs.iter().any(|job| job.is_of(&deployment)) => deployment,
            _ if self.namespace().is_some() => {
                self.check_namespace().await?;
                self.deployment().await?
            }
            _ => self.confirm_deployment().await?,
        };
        let owner = self.owner(&jobs, deployment).await?;
        let mut foreign: Vec<Foreign> = unread.names.iter().map(|name| unreadable(name)).collect();
        let mut jobs: Vec<OurJob> =
            jobs.into_iter().filter_map(|job| owner.sort(job, &mut foreign)).collect();
        let mut allocations = Vec::new();
        if !jobs.is_empty() {
            let (read, nameless) = self.allocations(&prefix).await?;
            let listed = group(&read.entries);
            // The state of such a runner is unknown, so it is left alone. Without its unreadable allocation it would
            // look as if it had none.
            let is_unknown = |name: &String| nameless && !listed.contains_key(name.as_str());
            for job in jobs.extract_if(.., |job| is_unknown(&job.stub.id)) {
                foreign.push(unreadable(&job.stub.id));
            }
            (allocations, now) = (read.entries, read.now);
        }
        let variables = self.variables(&prefix).await?;
        let by_job = group(&allocations);
        let unplaced =
            jobs.iter().any(|job| !by_job.contains_key(job.stub.id.as_str()) && !job.stub.is_over());
        let mut reasons = if unplaced { self.blocked(&prefix).await? } else { BTreeMap::new() };
        let runners = jobs.into_iter().map(|job| {
            let allocations = by_job.get(job.stub.id.as_str()).map(Vec::as_slice).unwrap_or_default();
            let variable = variables.get(&job.stub.id).copied();
            let reason = reasons.remove(&job.stub.id);
            let runner = classify(&job.stub, job.ownership, job.meta, allocations, variable, reason);
            Runner { namespace: self.namespace().cloned(), ..runner }
        });
        let (now, runners) = (now.ok_or_else(no_date)?, runners.collect());
        let variables = variables
            .into_keys()
            .map(|name| RunnerVariable { namespace: self.namespace().cloned(), name })
            .collect();
        let unseen = BTreeMap::new();
        Ok(NomadView { now, deployment: owner.deployment, runners, foreign, variables, unseen })
    }

    /// The current state of one runner, with the servers' clock; `None` if there is no such job of ours. For
    /// actions that are allowed only if nothing has changed since the pass.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read_runner(&self, name: &str) -> Result<Option<Runner>, Error> {
        let deployment = self.deployment().await?;
        let Jobs { jobs, unread, .. } = self.jobs(name).await?;
        unread.must_not_be(name)?;
        let owner = self.owner(&jobs, deployment).await?;
        let mut jobs = jobs.into_iter().filter(|job| job.id == name);
        let Some(job) = jobs.find_map(|job| owner.sort(job, &mut Vec::new())) else { return Ok(None) };
        let (ListRead { entries: allocations, .. }, nameless) = self.allocations(name).await?;
        Unread { names: BTreeSet::new(), nameless }.must_not_be(name)?;
        let variable = self.variables(name).await?.get(name).copied();
        let allocations = group(&allocations).remove(name).unwrap_or_default();
        let runner = classify(&job.stub, job.ownership, job.meta, &allocations, variable, None);
        Ok(Some(Runner { namespace: self.namespace().cloned(), ..runner }))
    }

    /// A job's history, as far as it can be compared with the key's.
    pub(super) fn history(&self, created: u64, modified: u64, stopped: bool) -> History {
        let elsewhere = self.namespace().is_some();
        match self.is_in_another_region() {
            // Its indices are another cluster's. Only a MAC with the current key counts.
            true => History { created: u64::MAX, modified: u64::MAX, stopped, elsewhere },
            false => History { created, modified, stopped, elsewhere },
        }
    }

    /// What identifies our jobs. The key is only read if a job claims to be ours, and once more if a job does not match
    /// the key as it was read before: another replica may have created another one since.
    async fn owner(&self, jobs: &[ReadJob], deployment: String) -> Result<Owner, Error> {
        let mut owner = Owner { nomad: self.clone(), deployment, key: None };
        let ours: Vec<&ReadJob> = jobs.iter().filter(|job| job.is_of(&owner.deployment)).collect();
        if ours.is_empty() {
            return Ok(owner);
        }
        owner.key = self.current_key().await?;
        let is_of_another_key = |job: &&ReadJob| {
            let reason = owner.check(&job.id, &job.meta, &job.stub).err();
            reason == Some(ForeignReason::WrongSeal)
        };
        if ours.iter().any(is_of_another_key) {
            owner.key = self.confirm_key().await?;
        }
        Ok(owner)
    }

    /// The jobs whose ID begins with `prefix` and whose Meta is in our format.
    async fn jobs(&self, prefix: &str) -> Result<Jobs, Error> {
        let list = Request::get("/v1/jobs").query("prefix", prefix);
        let right = Right::Capability("list-jobs");
        let read = self.list_but::<JobStub>(list.clone().query("meta", "true"), right).await?;
        // Without its Meta.
        let (smaller, nameless) = self.smaller::<JobStub>(list, right, &read.unread).await?;
        let unread = Unread { names: smaller.into_iter().map(|stub| stub.id).collect(), nameless };
        let ListRead { entries: stubs, now, .. } = read;
        let key = &self.options().meta_key;
        let read = |mut stub: JobStub| {
            let text = stub.meta.remove(key)?;
            stub.meta.clear();
            let meta = serde_json::from_str(&text).ok()?;
            // Children of a job that launches others have its Meta, but are not our runners.
            let is_plain = stub.parent_id.is_empty() && !stub.periodic && !stub.parameterized_job;
            // The API's prefix is only a search filter; the rule that everything else is foreign is ours.
            (is_plain && stub.id.starts_with(prefix)).then_some(ReadJob { id: stub.id.clone(), stub, meta })
        };
        Ok(Jobs { jobs: stubs.into_iter().filter_map(read).collect(), now, unread })
    }

    /// The allocations of the jobs whose ID begins with `prefix`. One that is too large is returned without its tasks.
    /// Also tells whether there are others, of unknown jobs.
    pub(super) async fn allocations(&self, prefix: &str) -> Result<(ListRead<AllocationStub>, bool), Error> {
        let filter = format!("JobID matches \"^{}\"", escape_pattern(prefix));
        let list = Request::get("/v1/allocations").query("filter", &filter);
        let right = Right::Capability("read-job");
        let mut read = self.list_but::<AllocationStub>(list.clone(), right).await?;
        let (smaller, nameless) =
            self.smaller::<AllocationStub>(list.query("task_states", "false"), right, &read.unread).await?;
        for allocation in smaller {
            // If the large one is gone by now, Nomad returns the next one, which is in the list.
            if read.entries.iter().all(|listed| listed.id != allocation.id) {
                read.entries.push(AllocationStub { tasks_unread: true, ..allocation });
            }
        }
        Ok((read, nameless))
    }

    /// The entries that are too large to read, each requested individually and in a smaller form; and whether there are
    /// more.
    async fn smaller<T: DeserializeOwned>(
        &self,
        smaller: Request,
        right: Right,
        unread: &[String],
    ) -> Result<(Vec<T>, bool), Error> {
        let (mut found, mut more) = (Vec::new(), unread.len() > UNREAD_AT_MOST);
        for token in unread.iter().take(UNREAD_AT_MOST) {
            let mut request = smaller.clone().query("per_page", "1");
            if !token.is_empty() {
                request = request.query("next_token", token);
            }
            match self.call(request, Retry::Yes, right).await {
                Ok(response) => found.append(&mut response.json()?),
                Err(Error::Exchange { error: http::Error::BodyTooLarge { .. } }) => more = true,
                Err(error) => return Err(error),
            }
        }
        Ok((found, more))
    }

    /// Why our pending jobs cannot be placed, by job.
    async fn blocked(&self, prefix: &str) -> Result<BTreeMap<String, Blocked>, Error> {
        let pattern = escape_pattern(prefix);
        let filter = format!("Status == \"blocked\" and JobID matches \"^{pattern}\"");
        let request = Request::get("/v1/evaluations").query("filter", &filter);
        let (mut evaluations, _) = self.list::<Evaluation>(request, Right::Capability("read-job")).await?;
        evaluations.sort_by_key(|evaluation| evaluation.modify_index);
        let reasons = evaluations.into_iter().filter_map(|evaluation| {
            let reason = blocked(&evaluation)?;
            Some((evaluation.job_id, reason))
        });
        Ok(reasons.collect())
    }
}

/// At most this many oversized entries are requested individually in one pass.
const UNREAD_AT_MOST: usize = 100;

/// Our jobs, and others whose Meta looks like ours.
struct Jobs {
    jobs: Vec<ReadJob>,
    now: Option<Timestamp>,
    unread: Unread,
}

/// The entries of a list that are too large to read.
#[derive(Default)]
pub(super) struct Unread {
    /// The affected jobs.
    names: BTreeSet<String>,
    /// There are more, for unknown jobs.
    nameless: bool,
}

impl Unread {
    /// An action on a runner needs complete data about it.
    fn must_not_be(&self, name: &str) -> Result<(), Error> {
        if !self.nameless && !self.names.contains(name) {
            return Ok(());
        }
        Err(Error::Unusable(format!("Nomad's data about {name} is too large to read")))
    }
}

fn unreadable(name: &str) -> Foreign {
    Foreign { name: shown(name, NAME_MAX).to_string(), reason: ForeignReason::Unreadable }
}

/// A job with our prefix whose Meta is in our format.
struct ReadJob {
    id: String,
    stub: JobStub,
    meta: RunnerMeta,
}

/// A runner's job: of this deployment, or of nomadtools.
struct OurJob {
    stub: JobStub,
    meta: RunnerMeta,
    ownership: Ownership,
}

impl ReadJob {
    fn is_of(&self, deployment: &str) -> bool {
        self.meta.deployment.as_deref() == Some(deployment)
    }
}

/// What identifies our jobs.
struct Owner {
    /// Where the jobs are.
    nomad: Nomad,
    deployment: String,
    /// `None` if it does not exist yet: then every job that will be taken over is ours.
    key: Option<Key>,
}

impl Owner {
    /// The job if it is ours or nomadtools', or else `None`. Jobs that claim to be ours and are not are added to
    /// `foreign`.
    fn sort(&self, job: ReadJob, foreign: &mut Vec<Foreign>) -> Option<OurJob> {
        let ownership = match &job.meta.deployment {
            None => Ownership::Nomadtools,
            Some(_) if !job.is_of(&self.deployment) => return None,
            Some(_) => match self.check(&job.id, &job.meta, &job.stub) {
                Ok(()) => Ownership::Ours,
                Err(reason) => {
                    foreign.push(Foreign { name: shown(&job.id, NAME_MAX).to_string(), reason });
                    return None;
                }
            },
        };
        Some(OurJob { stub: job.stub, meta: job.meta, ownership })
    }

    /// Whether a job with our deployment ID in its Meta is ours.
    fn check(&self, name: &str, meta: &RunnerMeta, stub: &JobStub) -> Result<(), ForeignReason> {
        let Owner { nomad, key, .. } = self;
        if !has_its_name(&nomad.options().prefix, nomad.namespace(), name, meta) {
            return Err(ForeignReason::Name);
        }
        let history = nomad.history(stub.create_index, stub.job_modify_index, stub.stop);
        match key {
            Some(key) => key.check(name, meta, history),
            // Nothing is taken over elsewhere.
            None if history.elsewhere => Err(ForeignReason::Unsealed),
            None => Ok(()),
        }
    }
}

impl JobStub {
    /// Whether it no longer waits for an allocation.
    fn is_over(&self) -> bool {
        self.stop || self.status == "dead"
    }
}

/// Allocations by job.
fn group(allocations: &[AllocationStub]) -> BTreeMap<&str, Vec<&AllocationStub>> {
    let mut by_job: BTreeMap<&str, Vec<&AllocationStub>> = BTreeMap::new();
    for allocation in allocations {
        by_job.entry(allocation.job_id.as_str()).or_default().push(allocation);
    }
    by_job
}

/// A text as a regular expression within a filter's quoted string. Any special character is matched by a character
/// class.
fn escape_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
            pattern.push(c);
        } else {
            // The filter's string must not contain a quote or a backslash.
            pattern.push_str("[^a-zA-Z0-9_-]");
        }
    }
    pattern
}

impl Remembered {
    /// Whether it had runners when it was last seen.
    pub(super) fn has_runners(&self) -> bool {
        !self.runners.is_empty()
    }

    fn fails(&mut self, error: &Error) {
        let earlier = self.failure.as_ref();
        if earlier.is_some_and(|failure| Instant::now() < failure.until) {
            return;
        }
        let rest = earlier.map_or(FIRST_REST, |failure| (failure.rest * 2).min(LONGEST_REST));
        self.failure = Some(Failure { error: error.clone(), until: Instant::now() + rest, rest });
    }
}

/// Two views of the same deployment as one. The earlier clock makes everything younger, so nothing is done too soon.
fn joined(mut one: NomadView, other: NomadView) -> NomadView {
    one.now = one.now.min(other.now);
    one.runners.extend(other.runners);
    one.foreign.extend(other.foreign);
    one.variables.extend(other.variables);
    one
}

fn no_date() -> Error {
    Error::Unusable("Nomad's responses have no Date header, so ages are unknown".to_owned())
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
