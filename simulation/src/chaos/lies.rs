//! Answers that are not so: old, shifted, miscounted, damaged.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, HeaderValue, IF_NONE_MATCH, LINK};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use githubrunner_sim::fault::Side;

/// How much of the past is kept.
const KEPT: SignedDuration = SignedDuration::from_secs(240);

/// What listings said before.
pub(super) struct Past {
    kept: bool,
    answers: BTreeMap<(Side, String), VecDeque<Answer>>,
}

struct Answer {
    at: Timestamp,
    headers: HeaderMap,
    body: Bytes,
}

impl Past {
    /// Keeps nothing unless it is needed.
    pub fn new(kept: bool) -> Past {
        Past { kept, answers: BTreeMap::new() }
    }

    /// Takes in an answer. Whether it is a listing that can lag.
    pub fn remember(
        &mut self,
        side: Side,
        request: &Request<Bytes>,
        response: &Response<Bytes>,
        now: Timestamp,
    ) -> bool {
        if !self.kept || request.method() != Method::GET || !lags(side, request.uri().path()) {
            return false;
        }
        let key = (side, request.uri().to_string());
        if response.status() == StatusCode::OK {
            let answers = self.answers.entry(key).or_default();
            while answers.len() > 1 && answers[1].at + KEPT < now {
                answers.pop_front();
            }
            let (headers, body) = (response.headers().clone(), response.body().clone());
            answers.push_back(Answer { at: now, headers, body });
        }
        matches!(response.status(), StatusCode::OK | StatusCode::NOT_MODIFIED)
    }

    /// Replaces an answer by what it would have been a while ago; when that was, if it was seen.
    pub fn show(
        &self,
        side: Side,
        request: &Request<Bytes>,
        response: &mut Response<Bytes>,
        now: Timestamp,
        lag: SignedDuration,
    ) -> Option<Timestamp> {
        let answers = self.answers.get(&(side, request.uri().to_string()))?;
        let old = answers.iter().rev().find(|answer| answer.at + lag <= now)?;
        let asked = request.headers().get(IF_NONE_MATCH);
        if asked.is_some() && asked == old.headers.get(ETAG) {
            return None;
        }
        let date = response.headers().get(DATE).cloned();
        *response.status_mut() = StatusCode::OK;
        *response.headers_mut() = old.headers.clone();
        if let Some(date) = date {
            response.headers_mut().insert(DATE, date);
        }
        // A follower says so: an index of then, and how long ago it heard from the leader.
        let silent = now.duration_since(old.at).as_millis();
        if side == Side::Nomad
            && let Ok(silent) = silent.to_string().parse()
        {
            response.headers_mut().insert("x-nomad-lastcontact", silent);
        }
        *response.body_mut() = old.body.clone();
        Some(old.at)
    }

    /// What a server of Nomad answers that has lost its leader at least `silent` ago and answers all the same: how it was
    /// when it last heard of it, and that it says so. When that was, too; if the same was asked for before.
    pub fn of_a_follower(
        &self,
        request: &Request<Bytes>,
        now: Timestamp,
        silent: SignedDuration,
    ) -> Option<(Timestamp, Response<Bytes>)> {
        let answers = self.answers.get(&(Side::Nomad, request.uri().to_string()))?;
        let old = answers.iter().rev().find(|answer| answer.at + silent <= now)?;
        let mut response = Response::new(old.body.clone());
        *response.headers_mut() = old.headers.clone();
        // Its clock goes on.
        response.headers_mut().remove(DATE);
        let silent = now.duration_since(old.at).as_millis();
        response.headers_mut().insert("x-nomad-lastcontact", silent.to_string().parse().ok()?);
        response.headers_mut().insert("x-nomad-knownleader", HeaderValue::from_static("false"));
        Some((old.at, response))
    }
}

/// GitHub's runs and jobs lag; so does what followers of Nomad show. A runner's own look-up is exact: GitHub
/// documents no lag there, and what is deleted must be known.
fn lags(side: Side, path: &str) -> bool {
    match side {
        Side::GitHub => path.contains("/actions/runs"),
        Side::Nomad => ["/v1/jobs", "/v1/allocations", "/v1/evaluations", "/v1/vars"].contains(&path),
    }
}

/// Asks for pages of a few entries instead of a hundred.
pub(super) fn shorten_pages(request: &mut Request<Bytes>, size: usize) {
    let uri = request.uri().to_string();
    if uri.contains("per_page=100")
        && let Ok(shorter) = uri.replace("per_page=100", &format!("per_page={size}")).parse()
    {
        *request.uri_mut() = shorter;
    }
}

/// Takes `disconnect` out of a job that is registered, or changes its `lost_after`.
pub(super) fn change_disconnect(request: &mut Request<Bytes>, lost_after: Option<Duration>) {
    if request.method() != Method::PUT || request.uri().path() != "/v1/jobs" {
        return;
    }
    let Ok(mut body) = serde_json::from_slice::<Value>(request.body()) else { return };
    for group in body["Job"]["TaskGroups"].as_array_mut().into_iter().flatten() {
        match (group.as_object_mut(), lost_after) {
            (Some(group), None) => drop(group.remove("Disconnect")),
            (Some(group), Some(after)) if group.contains_key("Disconnect") => {
                group["Disconnect"]["LostAfter"] = Value::from(after.as_nanos() as u64);
            }
            _ => {}
        }
    }
    *request.body_mut() = Bytes::from(body.to_string());
}

/// An entry moves to a page that was read already, or comes twice. Only where there are several pages.
pub(super) fn shift_page(
    request: &Request<Bytes>,
    response: &mut Response<Bytes>,
    at: usize,
) -> Option<String> {
    if !request.uri().path().contains("/actions/runs") || response.headers().get(LINK).is_none() {
        return None;
    }
    let mut body: Value = serde_json::from_slice(response.body()).ok()?;
    let key = ["workflow_runs", "jobs"].into_iter().find(|key| body[*key].is_array())?;
    let entries = body[key].as_array_mut().filter(|entries| !entries.is_empty())?;
    let which = at % entries.len();
    let what = if at.is_multiple_of(2) {
        entries.remove(which);
        "leaves out an entry that has moved"
    } else {
        let first = entries[0].clone();
        entries[which] = first;
        "shows an entry again"
    };
    replace(response, &body);
    Some(what.to_string())
}

/// Changes the total; false where there is none.
pub(super) fn change_total(response: &mut Response<Bytes>, by: i64) -> bool {
    let Ok(mut body) = serde_json::from_slice::<Value>(response.body()) else { return false };
    let Some(total) = body.get("total_count").and_then(Value::as_i64) else { return false };
    body["total_count"] = Value::from((total + by).max(0));
    replace(response, &body);
    true
}

fn replace(response: &mut Response<Bytes>, body: &Value) {
    response.headers_mut().remove(CONTENT_LENGTH);
    // What is not so must not be remembered as the answer to the right ETag.
    response.headers_mut().remove(ETAG);
    *response.body_mut() = Bytes::from(body.to_string());
}

/// Damages a body: cut with the length it says, bytes overwritten, another JSON, nothing.
pub(super) fn garble(body: &Bytes, kind: u8, at: usize) -> Bytes {
    let at = at % body.len().max(1);
    match kind {
        0 => body.slice(..at),
        1 => {
            let mut damaged = body.to_vec();
            let end = damaged.len().min(at + 8);
            damaged[at..end].fill(0xff);
            Bytes::from(damaged)
        }
        2 => Bytes::from_static(b"null"),
        _ => Bytes::from_static(b"\"surprise\""),
    }
}

/// A page for people instead.
pub(super) fn portal(response: &mut Response<Bytes>) {
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.remove(ETAG);
    headers.remove(LINK);
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    *response.body_mut() = Bytes::from_static(b"<html><body>Please log in to the network.</body></html>");
}
