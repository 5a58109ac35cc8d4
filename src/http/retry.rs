//! When and how often a request is retried.

use std::time::Duration;

use hyper::StatusCode;

use super::message::Response;
use crate::model::doubled;

/// Limits of [`super::Client::send_with_retries`]. For reads, and for writes that are harmless to repeat.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// The maximum number of attempts, including the first.
    pub attempts: u32,
    /// The total time for attempts and waits.
    pub total: Duration,
    /// The wait before the second attempt, doubled each time. The actual wait is between half and all of it.
    pub first_wait: Duration,
    /// The longest single wait. If the server requests a longer one, its response is returned instead.
    pub longest_wait: Duration,
    /// Which responses are retried.
    pub again: fn(&Response) -> bool,
    /// The wait that a response requests.
    pub asked: fn(&Response) -> Option<Duration>,
}

impl Default for RetryPolicy {
    /// Three attempts within 30 s: a pass has other things to do, and the next pass tries again anyway.
    fn default() -> Self {
        Self {
            attempts: 3,
            total: Duration::from_secs(30),
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(5),
            again: transient_status,
            asked: Response::retry_after,
        }
    }
}

/// 408, 429 and the 5xx, except for those that mean "never" (501, 505).
fn transient_status(response: &Response) -> bool {
    matches!(
        response.status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

impl RetryPolicy {
    /// The wait before attempt `next` (2, 3, …). `random` is in 0..1. `None`: the server requests more than
    /// the longest wait.
    pub(super) fn wait(&self, next: u32, asked: Option<Duration>, random: f64) -> Option<Duration> {
        let backoff = doubled(self.first_wait, next.saturating_sub(2)).min(self.longest_wait);
        let backoff = backoff.mul_f64(0.5 + random / 2.0);
        match asked {
            Some(asked) if asked > self.longest_wait => None,
            Some(asked) => Some(asked.max(backoff)),
            None => Some(backoff),
        }
    }
}
