//! Parsing, registering, stopping and purging jobs.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    allocations::blocked,
    api::{KnownKey, Nomad, Retry},
    error::{Error, Right},
    prepare::PreparedJob,
    seal::History,
    wire::{AllocationMetric, Evaluation, nullable},
};
use crate::{
    http::{Request, StatusCode, escape_segment},
    model::{Registration, RunnerMeta},
    text::shown,
};

/// How many characters of a template line an error shows.
const SHOWN_LINE: usize = 200;

/// A larger Submission is dropped with a warning (contract §2).
const SUBMISSION_MAX: usize = 1_000_000;

/// The result of a job registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The job is new. Includes Nomad's warnings, usually none.
    Created {
        /// For display.
        warnings: String,
    },
    /// This runner was registered before: by an attempt whose response was lost, or by another replica.
    Already,
}

/// What becomes of a job that is deregistered.
#[derive(Clone, Copy)]
enum Deregister {
    /// It stays, dead.
    Stop,
    /// It is removed.
    Purge,
}

impl Deregister {
    fn purge(self) -> &'static str {
        match self {
            Deregister::Stop => "false",
            Deregister::Purge => "true",
        }
    }
}

/// The response of `PUT /v1/validate/job`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Validation {
    /// Errors in the job; empty if it is valid.
    #[serde(default, deserialize_with = "nullable")]
    pub validation_errors: Vec<String>,
    /// Possible problems.
    #[serde(default, deserialize_with = "nullable")]
    pub warnings: String,
}

/// The response of `PUT /v1/job/ID/plan`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PlanAnswer {
    /// The task groups that cannot be placed now, with the reasons.
    #[serde(rename = "FailedTGAllocs", default, deserialize_with = "nullable")]
    pub failed_groups: BTreeMap<String, AllocationMetric>,
    /// For display.
    #[serde(default, deserialize_with = "nullable")]
    pub warnings: String,
}

impl PlanAnswer {
    /// Why the job cannot be placed now, for display; `None` if it can.
    pub fn blocked(&self) -> Option<crate::model::Blocked> {
        blocked(&Evaluation { failed_groups: self.failed_groups.clone(), ..Evaluation::default() })
    }
}

impl Nomad {
    /// Lets Nomad parse HCL into a job in the API's JSON. `registration` says whether the text may contain a
    /// secret, which no error may quote.
    ///
    /// # Errors
    /// [`Error::Hcl`] with Nomad's message and the line that it is about.
    pub async fn parse(&self, hcl: &str, registration: Registration) -> Result<Value, Error> {
        let body = json!({ "JobHCL": hcl, "Canonicalize": false });
        let request = Request::post("/v1/jobs/parse").json(&body).secret_answer();
        let response = self.answer(request, Retry::Yes).await?;
        if response.status == StatusCode::BAD_REQUEST {
            let message = response.shown_body();
            let line = line_of(&message).filter(|_| registration.needs_variable()).and_then(|number| {
                let line = hcl.lines().nth(number.checked_sub(1)?)?.trim();
                Some(shown(line, SHOWN_LINE).to_string())
            });
            return Err(Error::Hcl { message, line });
        }
        if !response.is_success() {
            // parse-job would be sufficient for this, but the job is going to be registered.
            return Err(self.error(&response, Right::Capability("submit-job")));
        }
        Ok(response.json()?)
    }

    /// Registers a job that must not exist yet (contract §2). It is harmless to repeat: neither a lost response nor
    /// a second replica starts it twice. `source` is the rendered HCL, for the Submission that Nomad's UI shows. It
    /// is left out if it contains a secret.
    ///
    /// # Errors
    /// [`Error::Taken`] if another job has the ID; [`Error`]. If [`Error::is_ambiguous`], it may be registered.
    pub async fn register(&self, job: &PreparedJob, source: Option<&str>) -> Result<Registered, Error> {
        // Another start, or the pass, may have found another key since this job was sealed. A job sealed with the old
        // key after that would belong to nobody, and would never be stopped.
        if let Some(KnownKey { key: Some(key), .. }) = self.last_key()
            && job.meta.mac.is_some()
            && !key.has_sealed(&job.name, &job.meta)
        {
            return Err(Error::Seal(format!(
                "{} was sealed with a key that has been replaced in the meantime; it will be sealed again",
                job.name
            )));
        }
        let mut body = json!({ "Job": job.job, "EnforceIndex": true, "JobModifyIndex": 0 });
        let shown = source.filter(|hcl| job.registration.needs_variable() && hcl.len() <= SUBMISSION_MAX);
        if let Some(hcl) = shown {
            body["Submission"] = json!({ "Source": hcl, "Format": "hcl2" });
        }
        let response = self.answer(Request::put("/v1/jobs").json(&body), Retry::Yes).await?;
        if response.is_success() {
            #[derive(Deserialize)]
            struct Answer {
                #[serde(rename = "Warnings", default, deserialize_with = "nullable")]
                warnings: String,
            }
            let Answer { warnings } = response.json()?;
            return Ok(Registered::Created { warnings });
        }
        if !says(&response.body, "job already exists") {
            return Err(self.error(&response, Right::Capability("submit-job")));
        }
        match self.read_meta(&job.name).await? {
            Some((existing, history)) if is_same_runner(&existing, &job.meta) => {
                let sealed = existing.mac == job.meta.mac || {
                    // Another replica may have registered it with other spellings.
                    let key = self.current_key().await?;
                    key.is_none_or(|key| key.check(&job.name, &existing, history).is_ok())
                };
                if sealed { Ok(Registered::Already) } else { Err(Error::Taken { name: job.name.clone() }) }
            }
            _ => Err(Error::Taken { name: job.name.clone() }),
        }
    }

    /// Stops a job, which stays as a dead one. A job that does not exist counts as stopped.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn stop(&self, name: &str) -> Result<(), Error> {
        self.deregister(name, Deregister::Stop).await
    }

    /// Purges a job at once. A live task of it would keep running until it is killed, so only dead jobs are
    /// purged (contract §4). A job that does not exist counts as purged.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn purge(&self, name: &str) -> Result<(), Error> {
        self.deregister(name, Deregister::Purge).await
    }

    async fn deregister(&self, name: &str, how: Deregister) -> Result<(), Error> {
        let request =
            Request::delete(format!("/v1/job/{}", escape_segment(name))).query("purge", how.purge());
        let response = self.answer(request, Retry::Yes).await?;
        // Of two concurrent purges, one gets the response that the job is gone.
        if response.is_success() || says(&response.body, "job not found") {
            return Ok(());
        }
        Err(self.error(&response, Right::Capability("submit-job")))
    }

    /// Validates a job without registering it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn validate(&self, job: &PreparedJob) -> Result<Validation, Error> {
        let request = Request::put("/v1/validate/job").json(&json!({ "Job": job.job }));
        Ok(self.call(request, Retry::Yes, Right::Capability("read-job")).await?.json()?)
    }

    /// Where Nomad would place a job now. Changes nothing.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn plan_job(&self, job: &PreparedJob) -> Result<PlanAnswer, Error> {
        let path = format!("/v1/job/{}/plan", escape_segment(&job.name));
        let request = Request::put(path).json(&json!({ "Job": job.job, "Diff": false }));
        Ok(self.call(request, Retry::Yes, Right::Capability("submit-job")).await?.json()?)
    }

    /// The Meta of a job, and its history; `None` if there is no such job, or its Meta is not in our format.
    async fn read_meta(&self, name: &str) -> Result<Option<(RunnerMeta, History)>, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Job {
            #[serde(default, deserialize_with = "nullable")]
            meta: BTreeMap<String, String>,
            #[serde(default, deserialize_with = "nullable")]
            create_index: u64,
            #[serde(default, deserialize_with = "nullable")]
            job_modify_index: u64,
            #[serde(default, deserialize_with = "nullable")]
            stop: bool,
        }
        let request = Request::get(format!("/v1/job/{}", escape_segment(name))).secret_answer();
        let response = self.answer(request, Retry::Yes).await?;
        if response.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !response.is_success() {
            return Err(self.error(&response, Right::Capability("read-job")));
        }
        let job: Job = response.json()?;
        let meta = job.meta.get(&self.options().meta_key).and_then(|text| serde_json::from_str(text).ok());
        let history = self.history(job.create_index, job.job_modify_index, job.stop);
        Ok(meta.map(|meta| (meta, history)))
    }
}

/// Whether two Metas belong to the same runner: same deployment, job and attempt. Versions and spellings may
/// differ.
fn is_same_runner(a: &RunnerMeta, b: &RunnerMeta) -> bool {
    a.deployment.is_some()
        && a.deployment == b.deployment
        && a.repo_id == b.repo_id
        && a.purpose == b.purpose
        && a.attempt == b.attempt
}

/// The line number in a parser's message: `… input.hcl:LINE,…`.
fn line_of(message: &str) -> Option<usize> {
    let (_, rest) = message.split_once("input.hcl:")?;
    rest.split_once(',')?.0.parse().ok()
}

fn says(body: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(body).contains(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::JobId;

    #[test]
    fn a_parsers_message_names_its_line() {
        assert_eq!(line_of("Failed to parse job: input.hcl:2,10-3,1: Invalid expression"), Some(2));
        assert_eq!(line_of("Failed to parse job: <nil>: Unset variable \"v\""), None);
        assert_eq!(line_of("Job spec is empty"), None);
    }

    #[test]
    fn one_runner_has_one_job_and_attempt() {
        let meta = RunnerMeta {
            deployment: Some("i".into()),
            purpose: Some(JobId(1).into()),
            attempt: Some(1),
            ..Default::default()
        };
        assert!(is_same_runner(&meta, &RunnerMeta { version: "other".into(), ..meta.clone() }));
        assert!(!is_same_runner(&meta, &RunnerMeta { attempt: Some(2), ..meta.clone() }));
        assert!(!is_same_runner(&RunnerMeta::default(), &RunnerMeta::default()));
    }
}
