//! Jobs are registered, stopped, purged and collected (contract, sections 2, 4 and 12).

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Due, Key, Nomad,
    canonical::{self, Form},
    gotime::Nanos,
    request::Refusal,
    spec::{self, int, map, text},
    state::Job,
    validate,
};

/// A larger submission is dropped, in bytes (contract, section 2).
const LARGEST_SUBMISSION: usize = 1_000_000;

/// What becomes of a deregistered job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deregister {
    /// It is stopped and stays.
    Stop,
    /// It is removed at once, while its tasks run until they are killed.
    Purge,
}

impl Nomad {
    /// A job in the servers' form, and its errors.
    ///
    /// # Errors
    /// A body that cannot be decoded.
    pub(super) fn admit(&self, job: &Value, namespace: &str) -> Result<(Value, Vec<String>), Refusal> {
        let mut job = canonical::job(job, Form::Server).map_err(|error| Refusal::new(400, error))?;
        job["Namespace"] = json!(namespace);
        let mut errors = validate::job(&job);
        if errors.is_empty() {
            let id = text(&job, "ID");
            if !self.namespaces.contains_key(namespace) {
                errors.push(format!("job {id:?} is in nonexistent namespace {namespace:?}"));
            }
            let pool = text(&job, "NodePool");
            let known = ["default", "all"].contains(&pool.as_str())
                || self.nodes.values().any(|n| n.node.pool == pool);
            if !known {
                errors.push(format!("job {id:?} is in nonexistent node pool {pool:?}"));
            }
        }
        Ok((job, errors))
    }

    /// Registers a job and returns the API's response.
    ///
    /// # Errors
    /// 400 for a body that cannot be decoded, 500 for everything else, including conflicts.
    pub(super) fn register(&mut self, body: &Value, job: Value) -> Result<Value, Refusal> {
        let key: Key = (text(&job, "Namespace"), text(&job, "ID"));
        if text(&job, "Region") != self.options.region {
            return Err(Refusal::new(500, "No path to region"));
        }
        if body["EnforceIndex"] == true {
            let wanted = body["JobModifyIndex"].as_u64().unwrap_or_default();
            let found = self.jobs.get(&key).map(|job| job.job_modify_index);
            let conflict = match (wanted, found) {
                (0, Some(_)) => Some("job already exists".to_owned()),
                (0, None) => None,
                (_, None) => Some("job does not exist".to_owned()),
                (wanted, Some(found)) if wanted != found => {
                    Some(format!("job exists with conflicting job modify index: {found}"))
                }
                _ => None,
            };
            if let Some(conflict) = conflict {
                return Err(Refusal::new(500, format!("Enforcing job modify index {wanted}: {conflict}")));
            }
        }
        let mut warnings = validate::warnings(&job, self.options.memory_oversubscription);
        let submission = body.get("Submission").filter(|submission| !submission.is_null()).cloned();
        let size = submission.as_ref().map_or(0, |s| s.to_string().len());
        if size > LARGEST_SUBMISSION {
            warnings = format!(
                "1 warning:\n\n* job source size of {size} B exceeds maximum of 1.0 MB and will be discarded"
            );
        }
        let submission = submission.filter(|_| size <= LARGEST_SUBMISSION);
        let index = self.next_index();
        let same = self.jobs.get(&key).is_some_and(|old| !old.stop && *old.spec == job);
        if !same {
            self.put_job(&key, job, submission, index);
            self.stream_job(&key, "JobRegistered");
        }
        let (kind, priority) = match self.jobs.get(&key) {
            Some(job) => (job.kind.clone(), job.priority),
            None => (String::new(), 0),
        };
        let evaluation = self.new_evaluation(&key, &kind, priority, "job-register");
        self.stream_evaluation(&evaluation, "JobRegistered");
        Ok(json!({
            "EvalCreateIndex": index,
            "EvalID": evaluation,
            "Index": index,
            "JobModifyIndex": self.jobs.get(&key).map_or(index, |job| job.job_modify_index),
            "KnownLeader": false,
            "LastContact": 0,
            "NextToken": "",
            "Warnings": warnings,
        }))
    }

    fn put_job(&mut self, key: &Key, spec: Value, submission: Option<Value>, index: u64) {
        self.tables.jobs = index;
        let old = self.jobs.get(key);
        let job = Job {
            namespace: key.0.clone(),
            id: key.1.clone(),
            kind: text(&spec, "Type"),
            priority: int(&spec, "Priority"),
            meta: map(&spec["Meta"]),
            status: old.map_or("pending", |old| if old.status == "dead" { "pending" } else { old.status }),
            stop: spec["Stop"] == true,
            version: old.map_or(0, |old| old.version + 1),
            submit_time: self.now,
            create_index: old.map_or(index, |old| old.create_index),
            modify_index: index,
            job_modify_index: index,
            groups: spec::groups(&spec).into_iter().map(Arc::new).collect(),
            spec: Arc::new(spec),
            submission,
            summary_index: index,
        };
        self.jobs.insert(key.clone(), job);
    }

    /// Stops a job or removes it.
    pub(super) fn deregister(&mut self, key: &Key, how: Deregister) -> Value {
        let purge = how == Deregister::Purge;
        let Some(job) = self.jobs.get(key) else {
            return json!({
                "EvalCreateIndex": 0, "EvalID": "", "Index": 0, "JobModifyIndex": 0, "KnownLeader": false,
                "LastContact": 0, "NextToken": "", "VolumeEvalID": "", "VolumeEvalIndex": 0,
            });
        };
        // The evaluation of a purge no longer knows the job's type.
        let kind = if purge { "service".to_owned() } else { job.kind.clone() };
        let priority = job.priority;
        let index = self.next_index();
        self.tables.jobs = index;
        if purge {
            self.stream_job(key, "JobDeregistered");
            self.remove_job(key);
            self.collect_later();
        } else if let Some(job) = self.jobs.get_mut(key) {
            if !job.stop {
                job.stop = true;
                job.version += 1;
                job.job_modify_index = index;
            }
            job.modify_index = index;
            job.submit_time = self.now;
            self.stream_job(key, "JobDeregistered");
        }
        let evaluation = self.new_evaluation(key, &kind, priority, "job-deregister");
        self.stream_evaluation(&evaluation, "JobDeregistered");
        json!({
            "EvalCreateIndex": index, "EvalID": evaluation, "Index": index, "JobModifyIndex": index,
            "KnownLeader": false, "LastContact": 0, "NextToken": "", "VolumeEvalID": "", "VolumeEvalIndex": 0,
        })
    }

    /// The servers forget a job and its allocations. The clients end what still runs.
    pub(super) fn remove_job(&mut self, key: &Key) {
        self.jobs.remove(key);
        let ids: Vec<String> = self.by_job.get(key).into_iter().flatten().cloned().collect();
        for id in ids {
            let Some(allocation) = self.allocations.get_mut(&id) else { continue };
            let alive = allocation.alive();
            if alive || !allocation.client_terminal() {
                allocation.purged = true;
                self.client_stop(&id);
            }
            if !alive {
                self.forget(&id);
            }
        }
        self.tables.allocations = self.index;
        self.room_appeared();
    }

    /// Schedules a garbage collection: at the next tick after the job is old enough.
    pub(super) fn collect_later(&mut self) {
        if !self.collect_due {
            self.collect_due = true;
            self.later(self.options.job_gc_interval, Due::Collect);
        }
    }

    pub(super) fn collect_due(&mut self) {
        self.collect_due = false;
        let threshold = Nanos::try_from(self.options.job_gc_threshold.as_nanos()).unwrap_or(Nanos::MAX);
        self.collect(threshold);
        if self.jobs.values().any(|job| job.status == "dead") || self.orphaned_evaluations().next().is_some()
        {
            self.collect_later();
        }
    }

    fn orphaned_evaluations(&self) -> impl Iterator<Item = &super::Evaluation> {
        let gone = |e: &&super::Evaluation| !self.jobs.contains_key(&(e.namespace.clone(), e.job_id.clone()));
        self.evaluations.values().filter(gone)
    }

    /// Removes dead jobs submitted at least that long ago, with everything that belongs to them except
    /// variables.
    pub(super) fn collect(&mut self, threshold: Nanos) {
        const EVALUATIONS: Nanos = 3_600_000_000_000;
        let oldest = self.now.saturating_sub(threshold);
        let done = |key: &Key| {
            let mut ids = self.by_job.get(key).into_iter().flatten();
            ids.all(|id| self.allocations.get(id).is_none_or(|a| a.client_terminal()))
        };
        let jobs: Vec<Key> = self
            .jobs
            .iter()
            .filter(|(key, job)| job.status == "dead" && job.submit_time <= oldest && done(key))
            .map(|(key, _)| key.clone())
            .collect();
        let stale = self.now.saturating_sub(EVALUATIONS.min(threshold));
        for key in &jobs {
            self.next_index();
            self.tables.jobs = self.index;
            self.stream_job(key, "JobDeregistered");
            self.remove_job(key);
        }
        let evaluations: Vec<String> = self
            .orphaned_evaluations()
            .filter(|e| !matches!(e.status, "pending" | "blocked"))
            .filter(|e| e.modify_time <= stale || jobs.contains(&(e.namespace.clone(), e.job_id.clone())))
            .map(|e| e.id.clone())
            .collect();
        for id in evaluations {
            self.evaluations.remove(&id);
        }
    }

    /// `PUT /v1/job/ID/plan`: the effects of a registration. Changes nothing.
    pub(super) fn plan(&mut self, job: &Value) -> Value {
        let key: Key = (text(job, "Namespace"), text(job, "ID"));
        let ids = (self.new_id(), self.new_id());
        let known = self.jobs.get(&key);
        let mut updates = serde_json::Map::new();
        let mut failed = serde_json::Map::new();
        for group in spec::groups(job) {
            let have = self.by_job.get(&key).into_iter().flatten().filter_map(|id| self.allocations.get(id));
            let have = have.filter(|a| a.group == group.name && !a.terminal()).count() as u64;
            let same = known.is_some_and(|old| !old.stop && *old.spec == *job);
            let (ignore, replace) = if same { (have, 0) } else { (0, have) };
            let place = group.count.saturating_sub(ignore);
            if place > 0
                && let Err(mut metrics) = self.place(&group)
            {
                (1..place).for_each(|_| metrics.coalesce());
                failed.insert(group.name.clone(), metrics.json());
            }
            updates.insert(
                group.name.clone(),
                super::view::updates(place - replace.min(place), 0, ignore, replace),
            );
        }
        let blocked = super::Evaluation {
            id: ids.0,
            namespace: key.0.clone(),
            job_id: key.1.clone(),
            kind: text(job, "Type"),
            priority: int(job, "Priority"),
            status: "blocked",
            status_description: "created to place remaining allocations".into(),
            triggered_by: "queued-allocs",
            create_index: 0,
            modify_index: 0,
            create_time: self.now,
            modify_time: self.now,
            failed: failed.clone().into_iter().collect(),
            job_modify_index: 0,
            snapshot_index: 0,
            previous: ids.1,
            blocked: String::new(),
            wait_until: 0,
            queued: None,
            placed: None,
        };
        json!({
            "Annotations": {"DesiredTGUpdates": updates, "PreemptedAllocs": null},
            "CreatedEvals": if failed.is_empty() { Value::Null } else { json!([super::view::evaluation(&blocked)]) },
            "Diff": null,
            "FailedTGAllocs": if failed.is_empty() { Value::Null } else { Value::Object(failed) },
            "Index": 0,
            "JobModifyIndex": known.map_or(0, |job| job.job_modify_index),
            "NextPeriodicLaunch": null,
            "Warnings": validate::warnings(job, self.options.memory_oversubscription),
        })
    }
}
