//! Wrong responses: old, shifted, miscounted, damaged.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use githubrunner_sim::fault::Side;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, HeaderValue, IF_NONE_MATCH, LINK},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::deployment::{GITHUB_TOKEN, JIT_MARK, NOMAD_TOKEN};

/// How much of the past is kept.
const KEPT: SignedDuration = SignedDuration::from_secs(240);

/// Earlier listings.
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

    /// Records a response. Returns whether it is a listing that can lag.
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

    /// Replaces a response by an earlier one. Returns its time, if there is one.
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
        // A follower reports this: an old index, and how long ago it heard from the leader.
        let silent = now.duration_since(old.at).as_millis();
        if side == Side::Nomad
            && let Ok(silent) = silent.to_string().parse()
        {
            response.headers_mut().insert("x-nomad-lastcontact", silent);
        }
        *response.body_mut() = old.body.clone();
        Some(old.at)
    }

    /// The response of a Nomad server that lost its leader at least `silent` ago and answers anyway: with the state
    /// when it last heard from the leader, and with that time. Only if the same was requested before.
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
        // Its clock continues.
        response.headers_mut().remove(DATE);
        let silent = now.duration_since(old.at).as_millis();
        response.headers_mut().insert("x-nomad-lastcontact", silent.to_string().parse().ok()?);
        response.headers_mut().insert("x-nomad-knownleader", HeaderValue::from_static("false"));
        Some((old.at, response))
    }
}

/// GitHub's runs and jobs lag, and so do followers of Nomad. A verification of one runner is exact: GitHub
/// documents no lag there, and deletions must be known.
fn lags(side: Side, path: &str) -> bool {
    match side {
        Side::GitHub => path.contains("/actions/runs"),
        Side::Nomad => ["/v1/jobs", "/v1/allocations", "/v1/evaluations", "/v1/vars"].contains(&path),
    }
}

/// Requests pages of a few entries instead of a hundred.
pub(super) fn shorten_pages(request: &mut Request<Bytes>, size: usize) {
    let uri = request.uri().to_string();
    if uri.contains("per_page=100")
        && let Ok(shorter) = uri.replace("per_page=100", &format!("per_page={size}")).parse()
    {
        *request.uri_mut() = shorter;
    }
}

/// Removes `disconnect` from a job that is being registered, or changes its `lost_after`.
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

/// An entry moves to a page that was already read, or appears twice. Only if there are several pages.
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

/// Changes the total; false if there is none.
pub(super) fn change_total(response: &mut Response<Bytes>, by: i64) -> bool {
    let Ok(mut body) = serde_json::from_slice::<Value>(response.body()) else { return false };
    let Some(total) = body.get("total_count").and_then(Value::as_i64) else { return false };
    body["total_count"] = Value::from((total + by).max(0));
    replace(response, &body);
    true
}

/// The next page of a truncated list.
const ELSEWHERE: HeaderValue =
    HeaderValue::from_static("<https://git.example/api/v3/x?page=2>; rel=\"next\"");

/// GitHub's lists that prove an absence, by the end of their paths and the key of their items.
const LISTS: [(&str, &str); 7] = [
    ("/actions/runners", "runners"),
    ("/actions/runner-groups", "runner_groups"),
    ("/actions/runs", "workflow_runs"),
    ("/jobs", "jobs"),
    ("/installation/repositories", "repositories"),
    ("/app/installations", ""),
    ("/repos", ""),
];

/// The items of a list in a response body.
fn items<'a>(request: &Request<Bytes>, body: &'a mut Value) -> Option<&'a mut Vec<Value>> {
    let path = request.uri().path();
    let (_, key) = LISTS.into_iter().find(|(end, _)| path.ends_with(end))?;
    if key.is_empty() { body.as_array_mut() } else { body.get_mut(key)?.as_array_mut() }
}

/// Keeps only the first items of a list, and shows in one way that there are more: by a link to another host, by
/// its total, or by missing single sign-on.
pub(super) fn cut_list(
    request: &Request<Bytes>,
    response: &mut Response<Bytes>,
    kind: u8,
    counts: bool,
    at: usize,
) -> Option<String> {
    let mut body: Value = serde_json::from_slice(response.body()).ok()?;
    let list = items(request, &mut body)?;
    let whole = list.len();
    list.truncate(at % (whole + 1));
    let left = list.len();
    let has_total = body.get("total_count").is_some();
    let what = match kind {
        0 if has_total && counts && left < whole => "counts more than it shows",
        1 => {
            let header = HeaderValue::from_static("partial-results; organizations=21955855,20582480");
            response.headers_mut().insert("x-github-sso", header);
            "leaves out what the token is not authorized for"
        }
        _ => {
            response.headers_mut().insert(LINK, ELSEWHERE);
            "goes on at another host"
        }
    };
    // The others show it in no other way.
    if has_total && what != "counts more than it shows" {
        let total = body["total_count"].as_u64().unwrap_or(0);
        body["total_count"] = Value::from(total.saturating_sub((whole - left) as u64));
    }
    replace(response, &body);
    Some(format!("{what}, {left} of {whole}"))
}

/// Not allowed in a template, a path or Meta.
pub const HOSTILE: &str = "h0stile";

/// Terminal commands, a forged log line, reversed text, and invisible characters.
pub const FORGED: &str = "a\u{1b}[2J\u{1b}]0;x\u{7}\r\n ERROR forged \u{202e}\u{2066}\u{200b}\u{9b}31m";

/// An error text that quotes the request, and more.
pub(super) fn hostile_error(side: Side, json: bool) -> String {
    let token = if side == Side::GitHub { GITHUB_TOKEN } else { NOMAD_TOKEN };
    let text = format!("{FORGED} {token} {JIT_MARK}{} {FORGED}", "A".repeat(200));
    let text = format!("{text} {}", "long ".repeat(1000));
    if json { serde_json::json!({ "message": text }).to_string() } else { text }
}

/// The number of variants of [`rename`].
pub(super) const NAMES: u8 = 6;

/// Gives a repository in a response a name or URL that GitHub does not permit.
pub(super) fn rename(request: &Request<Bytes>, response: &mut Response<Bytes>, kind: u8, at: usize) -> bool {
    let Ok(mut body) = serde_json::from_slice::<Value>(response.body()) else { return false };
    let repository = match body.get("html_url").is_some() && body.get("owner").is_some() {
        true => &mut body,
        false => {
            let repositories = items(request, &mut body).into_iter().flatten();
            let mut repositories: Vec<&mut Value> =
                repositories.filter(|item| item.get("owner").is_some()).collect();
            let count = repositories.len();
            if count == 0 {
                return false;
            }
            repositories.swap_remove(at % count)
        }
    };
    let page = repository["html_url"].as_str().unwrap_or_default().to_owned();
    match kind {
        0 => {
            let code = format!("{page}\"\n}} }}\ntask \"{HOSTILE}\" {{ driver = \"raw_exec\"");
            repository["html_url"] = Value::from(code);
        }
        1 => repository["html_url"] = Value::from(format!("https://github.com/{HOSTILE}/app")),
        2 => repository["html_url"] = Value::from(format!("{page}?{HOSTILE}")),
        3 => repository["owner"]["login"] = Value::from(format!("../{HOSTILE}")),
        4 => repository["name"] = Value::from(format!("\u{1b}]0;{HOSTILE}\u{7}")),
        _ => repository["owner"]["login"] = Value::from(HOSTILE.repeat(100_000)),
    }
    replace(response, &body);
    true
}

/// The number of variants of [`spoil_secret`].
pub(super) const SECRETS: u8 = 5;

/// Replaces the secret in the response to a registration.
pub(super) fn spoil_secret(response: &mut Response<Bytes>, kind: u8) {
    let Ok(mut body) = serde_json::from_slice::<Value>(response.body()) else { return };
    let key = if body.get("token").is_some() { "token" } else { "encoded_jit_config" };
    let secret = body[key].as_str().unwrap_or_default().to_owned();
    match kind {
        0 => body[key] = Value::from(format!("{secret}\nLD_PRELOAD=/{HOSTILE}.so")),
        1 => body[key] = Value::from(""),
        2 => body[key] = Value::from(format!("{{{{ {HOSTILE} }}}}")),
        3 => body[key] = Value::from(HOSTILE.repeat(100_000)),
        _ if body.get("runner").is_some() => {
            // An earlier registration has a smaller ID, and may belong to a busy runner.
            let id = body["runner"]["id"].as_u64().unwrap_or_default();
            body["runner"]["id"] = Value::from(id.saturating_sub(1 + id % 9));
            body["runner"]["name"] = Value::from(HOSTILE);
        }
        _ => body[key] = Value::from(format!(" {secret}")),
    }
    replace(response, &body);
}

/// Whether a request is for more than ten jobs at a time of a run that cannot return so many.
pub(super) fn is_large_page(request: &Request<Bytes>) -> bool {
    let uri = request.uri();
    let of_run = uri.path().strip_suffix("/jobs").and_then(|path| path.rsplit('/').next());
    let is_sick = of_run.and_then(|run| run.parse::<u64>().ok()).is_some_and(|run| run.is_multiple_of(2));
    let size = uri.query().into_iter().flat_map(|query| query.split('&'));
    let size =
        size.filter_map(|pair| pair.strip_prefix("per_page=")).find_map(|size| size.parse::<u64>().ok());
    is_sick && size.is_some_and(|size| size > 10)
}

fn replace(response: &mut Response<Bytes>, body: &Value) {
    response.headers_mut().remove(CONTENT_LENGTH);
    // A wrong response must not be cached under the right ETag.
    response.headers_mut().remove(ETAG);
    *response.body_mut() = Bytes::from(body.to_string());
}

/// Damages a body: truncated despite its length, bytes overwritten, other JSON, empty.
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

/// An HTML page instead.
pub(super) fn portal(response: &mut Response<Bytes>) {
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.remove(ETAG);
    headers.remove(LINK);
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    *response.body_mut() = Bytes::from_static(b"<html><body>Please log in to the network.</body></html>");
}
