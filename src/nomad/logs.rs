//! The logs of a runner's task (contract §5).

use std::time::Duration;

use bytes::Bytes;

use super::{
    api::Nomad,
    error::{Error, Right},
};
use crate::http::{self, Lines, Request, StatusCode, escape_segment};

/// A request to follow a log is answered only with the first bytes. That can take as long as a job, and no
/// runner lives longer than this.
const FIRST_BYTES_WITHIN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// One of a task's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Nomad's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// A log that is being read. Dropping it ends the reading.
#[derive(Debug)]
pub struct Log(Lines);

impl Log {
    /// The next piece, of any size, or `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// [`http::Error::Timeout`] if nothing came within `wait`; [`Error`].
    pub async fn next(&mut self, wait: Duration) -> Result<Option<Bytes>, http::Error> {
        self.0.chunk(wait).await
    }
}

impl Nomad {
    /// The names of an allocation's tasks that its client has reported.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn tasks(&self, job: &str, allocation: &str) -> Result<Vec<String>, Error> {
        let (read, _) = self.allocations(job).await?;
        let found = read.entries.into_iter().find(|entry| entry.job_id == job && entry.id == allocation);
        Ok(found.map(|entry| entry.task_states.into_keys().collect()).unwrap_or_default())
    }

    /// The last `most` bytes of a task's log; with `follow` also what is written from now on. `None`: the log does not
    /// exist yet, or no longer exists.
    ///
    /// # Errors
    /// [`Error::Denied`] without the capability `read-logs`; [`Error`].
    pub async fn log(
        &self,
        allocation: &str,
        task: &str,
        stream: Stream,
        most: u64,
        follow: bool,
    ) -> Result<Option<Log>, Error> {
        let mut request = Request::get(format!("/v1/client/fs/logs/{}", escape_segment(allocation)))
            .query("namespace", &self.options().namespace)
            .query("task", task)
            .query("type", stream.as_str())
            .query("origin", "end")
            .query("offset", &most.to_string())
            .query("plain", "true")
            .query("follow", if follow { "true" } else { "false" });
        if follow {
            request = request.deadline(FIRST_BYTES_WITHIN);
        }
        if let Some(region) = &self.options().region {
            request = request.query("region", region);
        }
        let token = self.token();
        match self.inner.client.lines(self.signed(request, token.as_ref())).await {
            Ok(lines) => Ok(Some(Log(lines))),
            Err(error) => match error.status() {
                Some(StatusCode::NOT_FOUND) => Ok(None),
                Some(StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) => Err(Error::Denied {
                    error,
                    right: Right::Capability("read-logs"),
                    namespace: self.options().namespace.as_str().into(),
                    with_token: token.is_some(),
                }),
                _ => Err(error.into()),
            },
        }
    }
}
