//! What says that lost jobs were run again: one variable for each, written before GitHub is asked (contract §8).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::api::{Nomad, Retry};
use super::error::{Error, Right};
use super::seal::Key;
use super::variables::Written;
use super::wire::{VariableStub, nanoseconds};
use crate::http::{Request, StatusCode, escape_segment};
use crate::model::RerunMark;

/// What starts an evaluation when somebody stops an allocation by hand.
const STOPPED_BY_HAND: &str = "alloc-stop";

/// What started an evaluation.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Trigger {
    #[serde(default)]
    triggered_by: String,
}

impl Nomad {
    /// The lost jobs that were run again. A token without the right to list them is answered with an empty list (contract §7), and
    /// what is written then says that they exist.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn reruns(&self) -> Result<Vec<RerunMark>, Error> {
        let prefix = self.reruns_path();
        let request = Request::get("/v1/vars").query("prefix", &prefix);
        let right = Right::Variables { path: RERUNS, capability: "list" };
        let (stubs, _) = self.list::<VariableStub>(request, right).await?;
        let marks = stubs.into_iter().filter_map(|stub| {
            RerunMark::parse(stub.path.strip_prefix(&prefix)?, nanoseconds(stub.create_time))
        });
        Ok(marks.collect())
    }

    /// Writes that a job is run again, for one caller alone: whoever comes second, even with the same in mind, finds that it exists.
    ///
    /// # Errors
    /// [`Error`]; if [`Error::is_ambiguous`], it may be written, and whoever asks again finds that it exists.
    pub async fn mark_rerun(&self, mark: &RerunMark, runner: &str) -> Result<Written, Error> {
        let once = Key::random()?;
        let items = BTreeMap::from([("runner", runner), ("once", once.expose())]);
        let right = Right::Variables { path: RERUNS, capability: "write" };
        self.create_variable(&self.rerun_path(mark), &items, right).await
    }

    /// Deletes what says that a job was run again; what is not there is deleted already.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn forget_rerun(&self, mark: &RerunMark) -> Result<(), Error> {
        let response = self.answer(Request::delete(self.rerun_path(mark)), Retry::Yes).await?;
        if response.is_success() || response.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(self.error(&response, Right::Variables { path: RERUNS, capability: "destroy" }))
    }

    /// Whether somebody has stopped an allocation of this job by hand: to Nomad that is a migration, as a drain is. `None` where
    /// nobody can tell any more, because the job's evaluations were collected.
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

/// Where they are.
const RERUNS: &str = "githubrunner/PREFIX/reruns/*";
