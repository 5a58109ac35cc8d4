//! Tests each right that the daemon needs, without leaving anything behind.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    api::{Nomad, Retry},
    error::{Error, Right},
    prepare::PreparedJob,
};
use crate::{
    http::{Request, StatusCode, escape_segment},
    secret::Secret,
};

/// A modify index that no variable has, so that a permitted write ends as a conflict.
const NO_INDEX: &str = "9007199254740991";

impl Nomad {
    /// Whether the servers respond and have a leader.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn check_leader(&self) -> Result<(), Error> {
        let request = Request::get("/v1/status/leader");
        self.call(request, Retry::Yes, Right::Capability("list-jobs")).await.map(|_| ())
    }

    /// Tests each right. `job` is one that could be registered, `probe` an unused job ID of ours. A silent
    /// refusal (contract nomad.md §7) is detected by reading back what was written.
    pub async fn try_rights(&self, job: &PreparedJob, probe: &str) -> Vec<(Right, Result<(), Error>)> {
        let list = |path, right| self.call(Request::get(path).query("per_page", "1"), Retry::Yes, right);
        let list_jobs = Right::Capability("list-jobs");
        let read_job = Right::Capability("read-job");
        let mut tried = vec![
            (list_jobs, list("/v1/jobs", list_jobs).await.map(|_| ())),
            (read_job, list("/v1/allocations", read_job).await.map(|_| ())),
            (Right::Capability("submit-job"), self.plan_job(job).await.map(|_| ())),
        ];
        // Elsewhere, only the runners' variables are needed.
        if self.namespace().is_none() {
            tried.extend(self.try_own_variables().await);
        }
        tried.extend(self.try_job_variables(probe).await);
        tried
    }

    /// Tests the rights to the daemon's own variables.
    pub async fn try_own_variables(&self) -> Vec<(Right, Result<(), Error>)> {
        let right = |capability| Right::Variables { path: "githubrunner/*", capability };
        let path = format!("/v1/var/githubrunner/{}/check", escape_segment(&self.options().prefix));
        let read = self.expect(Request::get(path.clone()), StatusCode::NOT_FOUND, right("read")).await;
        let body = json!({ "Items": { "check": "check" } });
        let request = Request::put(path).query("cas", NO_INDEX).json(&body);
        let write = self.expect(request, StatusCode::CONFLICT, right("write")).await;
        vec![(right("read"), read), (right("write"), write)]
    }

    async fn try_job_variables(&self, probe: &str) -> Vec<(Right, Result<(), Error>)> {
        let right = |capability| Right::Variables { path: "nomad/jobs/PREFIX-*", capability };
        let path = format!("/v1/var/nomad/jobs/{}", escape_segment(probe));
        // Deleting a missing variable succeeds too. A variable is written below only if it can be deleted
        // again.
        let destroy = self.delete_variable(probe).await;
        let body = json!({ "Items": { "check": "check" } });
        let request = Request::put(path.clone()).query("cas", NO_INDEX).json(&body);
        let write = self.expect(request, StatusCode::CONFLICT, right("write")).await;
        let read = self.expect(Request::get(path), StatusCode::NOT_FOUND, right("read")).await;
        let list = match destroy.is_ok() && write.is_ok() {
            true => self.try_listing(probe, right("list")).await,
            false => self.variables(probe).await.map(|_| ()),
        };
        vec![
            (right("write"), write),
            (right("read"), read),
            (right("list"), list),
            (right("destroy"), destroy),
        ]
    }

    /// Without the right to it, a list is empty. So one variable is written, listed, and deleted.
    async fn try_listing(&self, probe: &str, right: Right) -> Result<(), Error> {
        let items = BTreeMap::from([("check".to_owned(), Secret::new("check"))]);
        self.put_variable(probe, &items).await?;
        let listed = self.variables(probe).await;
        self.delete_variable(probe).await?;
        if listed?.contains_key(probe) { Ok(()) } else { Err(self.silently_refused(right)) }
    }

    /// Whether our namespace exists.
    ///
    /// # Errors
    /// [`Error::NamespaceMissing`] if it does not.
    pub async fn check_namespace(&self) -> Result<(), Error> {
        let namespace = &self.options().namespace;
        let request = Request::get(format!("/v1/namespace/{}", escape_segment(namespace)));
        let response = self.answer(request, Retry::Yes).await?;
        match response.status {
            StatusCode::NOT_FOUND => Err(Error::NamespaceMissing { namespace: namespace.clone() }),
            status if status.is_success() => Ok(()),
            // Any capability in the namespace is sufficient to read it.
            _ => Err(self.error(&response, Right::Capability("list-jobs"))),
        }
    }

    /// Sends once. Accepts a success, or the status that means that only the content was invalid.
    async fn expect(&self, request: Request, status: StatusCode, right: Right) -> Result<(), Error> {
        let response = self.answer(request.secret_answer(), Retry::Yes).await?;
        if response.is_success() || response.status == status {
            return Ok(());
        }
        Err(self.error(&response, right))
    }

    fn silently_refused(&self, right: Right) -> Error {
        let advice = right.advice(self.token().is_some(), &self.options().namespace);
        Error::EmptyList(format!("Nomad lists no variables although one exists; {advice}"))
    }
}
