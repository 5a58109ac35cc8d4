//! The records of re-runs of lost jobs: one variable for each, written before the request to GitHub (contract
//! §8).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    api::{Nomad, Retry},
    error::{Error, Right},
    seal::Key,
    variables::Written,
    wire::{VariableStub, nanoseconds},
};
use crate::{
    http::{Request, StatusCode, escape_segment},
    model::RerunMark,
};

/// The trigger of an evaluation if someone stops an allocation manually.
const STOPPED_BY_HAND: &str = "alloc-stop";

/// The trigger of an evaluation.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Trigger {
    #[serde(default)]
    triggered_by: String,
}

impl Nomad {
    /// The lost jobs that were run again. A token that may not list them gets an empty list (contract §7). A later
    /// write then reports that the variable exists.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn reruns(&self) -> Result<Vec<RerunMark>, Error> {
        let prefix = self.reruns_path();
        let request = Request::get("/v1/vars").query("prefix", &prefix);
        let right = Right::Variables { path: RERUNS, capability: "list" };
        let (stubs, _) = self.at(None).list::<VariableStub>(request, right).await?;
        let marks = stubs.into_iter().filter_map(|stub| {
            RerunMark::parse(stub.path.strip_prefix(&prefix)?, nanoseconds(stub.create_time))
        });
        Ok(marks.collect())
    }

    /// Records that a job is run again. Only one caller succeeds. For any later one, even with the same content, it
    /// exists already.
    ///
    /// # Errors
    /// [`Error`]. If [`Error::is_ambiguous`], it may have been written, and a retry finds that it exists.
    pub async fn mark_rerun(&self, mark: &RerunMark, runner: &str) -> Result<Written, Error> {
        let once = Key::random()?;
        let items = BTreeMap::from([("runner", runner), ("once", once.expose())]);
        let right = Right::Variables { path: RERUNS, capability: "write" };
        self.at(None).create_variable(&self.rerun_path(mark), &items, right).await
    }

    /// Deletes the record of a re-run. If it does not exist, that is a success.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn forget_rerun(&self, mark: &RerunMark) -> Result<(), Error> {
        let own = self.at(None);
        let response = own.answer(Request::delete(own.rerun_path(mark)), Retry::Yes).await?;
        if response.is_success() || response.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(own.error(&response, Right::Variables { path: RERUNS, capability: "destroy" }))
    }

    /// Whether someone has stopped an allocation of this job manually. To Nomad, that is a migration, like a drain.
    /// `None` if it is unknown because the job's evaluations have been collected.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn stopped_by_hand(&self, name: &str) -> Result<Option<bool>, Error> {
        let request = Request::get(format!("/v1/job/{}/evaluations", escape_segment(name)));
        let response = self.call(request, Retry::Yes, Right::Capability("read-job")).await?;
        let evaluations: Vec<Trigger> = response.json()?;
        let by_hand = evaluations.iter().any(|evaluation| evaluation.triggered_by == STOPPED_BY_HAND);
        Ok(Some(by_hand).filter(|by_hand| *by_hand || !evaluations.is_empty()))
    }

    fn reruns_path(&self) -> String {
        format!("githubrunner/{}/reruns/", self.options().prefix)
    }

    fn rerun_path(&self, mark: &RerunMark) -> String {
        format!("/v1/var/{}{}", self.reruns_path(), escape_segment(&mark.name()))
    }
}

/// The path of the records.
const RERUNS: &str = "githubrunner/PREFIX/reruns/*";
