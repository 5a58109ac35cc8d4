//! The routes.

use bytes::Bytes;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

use super::{
    Key, Nomad,
    canonical::{self, Form},
    hcl,
    request::{Exchange, Handled, Refusal, Reply},
    spec::text,
    validate,
    variables::{self, Conflict, LockOperation},
    view,
};
use crate::nomad::{jobs::Deregister, variables::Shows};

/// Handles a request.
pub fn answer(nomad: &mut Nomad, request: &Request<Bytes>) -> Response<Bytes> {
    let reply = match Exchange::new(nomad, request) {
        Ok(exchange) => route(nomad, &exchange).unwrap_or_else(Reply::from),
        Err(refusal) => Reply::from(refusal),
    };
    nomad.response(reply)
}

fn route(nomad: &mut Nomad, exchange: &Exchange<'_>) -> Handled {
    let region = exchange.param("region").unwrap_or_default();
    if !region.is_empty() && region != nomad.options.region {
        return Err(Refusal::new(500, "No path to region"));
    }
    let (head, rest) = exchange.path.split_once('/').unwrap_or((&exchange.path, ""));
    let get = *exchange.method == Method::GET;
    let put = matches!(*exchange.method, Method::PUT | Method::POST);
    if let Some(answer) = without_leader(nomad, exchange, (head, rest)) {
        return answer;
    }
    let stale = get && exchange.has("stale");
    if !nomad.leader && !stale {
        return Err(Refusal::new(500, "No cluster leader"));
    }
    match (head, rest) {
        _ if exchange.path == "jobs/" => Ok(Reply::empty(404)),
        ("jobs", "") if get => nomad.listed_once(exchange, |nomad| nomad.list_jobs(exchange)),
        ("jobs", "") if put => register(nomad, exchange, None),
        ("jobs" | "allocations" | "evaluations" | "vars" | "namespaces", "") if !get => {
            Err(Refusal::method())
        }
        ("job", _) if !exchange.path.starts_with("job/") => Ok(Reply::empty(404)),
        ("job", rest) => one_job(nomad, exchange, rest, get, put),
        ("validate", "job") if put => validate_job(nomad, exchange),
        ("validate", "job") => Err(Refusal::method()),
        ("allocations", "") => nomad.listed_once(exchange, |nomad| nomad.list_allocations(exchange, None)),
        ("allocation", rest) if rest.ends_with("/stop") => {
            nomad.stop_route(exchange, rest.trim_end_matches("/stop"))
        }
        ("allocation", id) => nomad.get_allocation(exchange, id),
        ("evaluations", "") => nomad.list_evaluations(exchange),
        ("evaluation", id) => nomad.get_evaluation(exchange, id),
        ("vars", "") => nomad.listed_once(exchange, |nomad| nomad.list_variables(exchange)),
        ("var", "") => Err(Refusal::new(400, "missing variable path")),
        ("var", path) => one_variable(nomad, exchange, path),
        ("namespaces", "") => list_namespaces(nomad, exchange),
        ("namespace", name) => one_namespace(nomad, exchange, name),
        ("nodes", "") => nomad.list_nodes(exchange),
        ("node", id) => nomad.get_node(exchange, id),
        ("client", rest) if rest.starts_with("fs/logs/") => {
            nomad.logs(exchange, rest.trim_start_matches("fs/logs/"))
        }
        ("acl", "token/self") => token_self(nomad, exchange),
        ("agent", "self") if exchange.access.all => Ok(Reply::json(&json!({
            "config": {"ACL": {"Enabled": nomad.options.acl}, "Region": nomad.options.region, "Version": {"Version": "2.0.5"}},
            "member": {"Name": "server.global", "Status": "alive"},
        }))),
        ("agent", "self") => Err(Refusal::denied()),
        ("system", "gc") if put => {
            if !exchange.access.all {
                return Err(Refusal::denied());
            }
            nomad.collect(0);
            Ok(Reply::empty(200))
        }
        _ => Ok(Reply::empty(404)),
    }
}

/// The requests that an agent answers without its servers, with or without a leader.
fn without_leader(nomad: &mut Nomad, exchange: &Exchange<'_>, path: (&str, &str)) -> Option<Handled> {
    let answer = match path {
        ("agent", "health") => json!({
            "client": {"message": "ok", "ok": true}, "server": {"message": "ok", "ok": true},
        }),
        ("status", "leader") => json!(if nomad.leader { "127.0.0.1:4647" } else { "" }),
        ("status", "peers") => json!(["127.0.0.1:4647"]),
        ("regions", "") => json!([nomad.options.region]),
        ("event", "stream") => return Some(Ok(Reply::text(200, "application/json", ""))),
        ("jobs", "parse") => {
            let put = matches!(*exchange.method, Method::PUT | Method::POST);
            return Some(if put { parse(nomad, exchange) } else { Err(Refusal::method()) });
        }
        _ => return None,
    };
    Some(Ok(Reply::json(&answer)))
}

fn list_namespaces(nomad: &Nomad, exchange: &Exchange<'_>) -> Handled {
    let prefix = exchange.param("prefix").unwrap_or_default();
    let all =
        nomad.namespaces.values().filter(|n| n.name.starts_with(prefix) && exchange.access.sees(&n.name));
    let list: Vec<Value> = all.map(view::namespace).collect();
    Ok(Reply::json(&json!(list)).query(nomad.tables.namespaces))
}

fn parse(nomad: &Nomad, exchange: &Exchange<'_>) -> Handled {
    exchange.may(&["parse-job", "submit-job"])?;
    let body = exchange.json("api.JobsParseRequest")?;
    let source = match &body["JobHCL"] {
        Value::Null => "",
        Value::String(source) => source,
        other => {
            let kind = canonical::go_kind(other);
            let text = format!(
                "json: cannot unmarshal {kind} into Go struct field JobsParseRequest.JobHCL of type string"
            );
            return Err(Refusal::new(400, text));
        }
    };
    if source.is_empty() {
        return Err(Refusal::new(400, "Job spec is empty"));
    }
    let variables = body["Variables"].as_str().unwrap_or_default();
    let job = hcl::parse(source, variables)
        .map_err(|error| Refusal::new(400, format!("Failed to parse job: {error}")))?;
    if body["Canonicalize"] != true {
        return Ok(Reply::json(&job));
    }
    let job = canonical::job(&job, Form::Api).map_err(|error| Refusal::new(500, error))?;
    let _ = nomad;
    Ok(Reply::json(&job))
}

/// The job in a body, in the servers' form. The namespace comes from the query, the body or the job.
fn body_job(
    nomad: &Nomad,
    exchange: &Exchange<'_>,
    id: Option<&str>,
) -> Result<(Value, Value, Vec<String>), Refusal> {
    let body = exchange.json("api.JobRegisterRequest")?;
    let job = &body["Job"];
    if job.is_null() {
        return Err(Refusal::new(400, "Job must be specified"));
    }
    let named = |value: &Value| value.as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    let query = exchange.param("namespace").filter(|name| !name.is_empty()).map(str::to_owned);
    let namespace = query
        .or_else(|| named(&body["Namespace"]))
        .or_else(|| named(&job["Namespace"]))
        .unwrap_or_else(|| "default".into());
    let (admitted, errors) = nomad.admit(job, &namespace)?;
    if let Some(id) = id {
        if job["ID"].is_null() {
            return Err(Refusal::new(400, "Job ID hasn't been provided"));
        }
        if job["ID"] != id {
            return Err(Refusal::new(400, "Job ID does not match name"));
        }
    }
    Ok((body, admitted, errors))
}

fn register(nomad: &mut Nomad, exchange: &Exchange<'_>, id: Option<&str>) -> Handled {
    let (body, job, errors) = body_job(nomad, exchange, id)?;
    if body["Job"]["ID"].is_null() {
        return Err(Refusal::new(400, "Job ID hasn't been provided"));
    }
    let region = text(&body["Job"], "Region");
    if !region.is_empty() && region != nomad.options.region {
        return Err(Refusal::new(500, "No path to region"));
    }
    if !errors.is_empty() {
        return Err(Refusal::new(500, validate::multierror(&errors)));
    }
    if !exchange.access.namespace(&text(&job, "Namespace"), &["submit-job"]) {
        return Err(Refusal::denied());
    }
    let answer = nomad.register(&body, job)?;
    let index = answer["Index"].as_u64().unwrap_or_default();
    Ok(Reply::json(&answer).at(index))
}

fn validate_job(nomad: &Nomad, exchange: &Exchange<'_>) -> Handled {
    let (_, job, errors) = body_job(nomad, exchange, None)?;
    if !exchange.access.namespace(&text(&job, "Namespace"), &["read-job", "submit-job"]) {
        return Err(Refusal::denied());
    }
    let failed = !errors.is_empty();
    Ok(Reply::json(&json!({
        "DriverConfigValidated": true,
        "Error": if failed { validate::multierror(&errors) } else { String::new() },
        "ValidationErrors": if failed { json!(errors) } else { Value::Null },
        "Warnings": validate::warnings(&job, nomad.options.memory_oversubscription),
    })))
}

fn one_job(nomad: &mut Nomad, exchange: &Exchange<'_>, rest: &str, get: bool, put: bool) -> Handled {
    if let Some(id) = rest.strip_suffix("/plan").filter(|_| put) {
        return plan_job(nomad, exchange, id);
    }
    if get {
        return read_job(nomad, exchange, rest);
    }
    if put {
        return register(nomad, exchange, Some(rest));
    }
    if *exchange.method == Method::DELETE {
        let purge = exchange.flag("purge", false)?;
        let (how, fine) =
            if purge { (Deregister::Purge, "purge-job") } else { (Deregister::Stop, "deregister-job") };
        exchange.may(&["submit-job", fine])?;
        let answer = nomad.deregister(&(exchange.namespace().to_owned(), rest.to_owned()), how);
        let index = answer["Index"].as_u64().unwrap_or_default();
        return Ok(Reply::json(&answer).at(index));
    }
    Err(Refusal::method())
}

fn plan_job(nomad: &mut Nomad, exchange: &Exchange<'_>, id: &str) -> Handled {
    let (_, job, errors) = body_job(nomad, exchange, None)?;
    if job["ID"] != id {
        return Err(Refusal::new(400, "Job ID does not match"));
    }
    if !exchange.access.namespace(&text(&job, "Namespace"), &["submit-job"]) {
        return Err(Refusal::denied());
    }
    if !errors.is_empty() {
        return Err(Refusal::new(500, validate::multierror(&errors)));
    }
    Ok(Reply::json(&nomad.plan(&job)).at(0))
}

fn read_job(nomad: &mut Nomad, exchange: &Exchange<'_>, rest: &str) -> Handled {
    let key = |id: &str| -> Key { (exchange.namespace().to_owned(), id.to_owned()) };
    exchange.may(&["read-job"])?;
    let jobs = nomad.tables.jobs;
    if let Some(id) = rest.strip_suffix("/evaluations") {
        return Ok(nomad.job_evaluations(&key(id)));
    }
    if let Some(id) = rest.strip_suffix("/allocations") {
        return nomad.list_allocations(exchange, Some(id));
    }
    if rest.ends_with("/deployments") {
        return Ok(Reply::json(&json!([])).query(0));
    }
    let (id, part) = match rest.rsplit_once('/') {
        Some((id, part @ ("summary" | "versions" | "submission"))) => (id, part),
        _ => (rest, ""),
    };
    let key = key(id);
    let what = if part == "versions" { "job versions not found" } else { "job not found" };
    let missing = || Refusal::new(404, what).query(jobs);
    let job = nomad.jobs.get(&key).ok_or_else(missing)?;
    let answer = match part {
        "summary" => nomad.summary(&key, job),
        "versions" => json!({
            "Diffs": null, "Index": jobs, "KnownLeader": true, "LastContact": 0, "NextToken": "",
            "Versions": [view::job(job)],
        }),
        "submission" => match &job.submission {
            Some(submission) => submission.clone(),
            None => return Err(Refusal::new(404, "job source not found").query(jobs)),
        },
        _ => view::job(job),
    };
    Ok(Reply::json(&answer).query(if part.is_empty() { job.modify_index } else { jobs }))
}

fn one_variable(nomad: &mut Nomad, exchange: &Exchange<'_>, path: &str) -> Handled {
    let namespace = exchange.namespace().to_owned();
    let may = |capability: &str| exchange.access.variable(&namespace, path, capability);
    let key: Key = (namespace.clone(), path.to_owned());
    match *exchange.method {
        Method::GET => {
            if !may("read") {
                return Err(Refusal::denied());
            }
            let index = nomad.tables.variables;
            let missing = || Refusal::new(404, "variable not found").query(index);
            let variable = nomad.variables.get(&key).ok_or_else(missing)?;
            let shows = Shows { items: true, lock: exchange.access.all };
            let reply = Reply::json(&variables::json(variable, shows));
            Ok(reply.query(variable.modify_index))
        }
        Method::PUT | Method::POST => write_variable(nomad, exchange, key),
        Method::DELETE => {
            let cas = exchange.cas()?;
            if !may("destroy") {
                return Err(Refusal::denied().at(0));
            }
            match nomad.remove_variable(&key, cas) {
                Ok(()) => Ok(Reply::empty(204).at(nomad.tables.variables)),
                Err(conflict) => refused(conflict, LockOperation::None),
            }
        }
        _ => Err(Refusal::new(400, "Invalid method")),
    }
}

fn write_variable(nomad: &mut Nomad, exchange: &Exchange<'_>, key: Key) -> Handled {
    let operations: Vec<LockOperation> = [
        ("lock-acquire", LockOperation::Acquire),
        ("lock-renew", LockOperation::Renew),
        ("lock-release", LockOperation::Release),
    ]
    .into_iter()
    .filter(|(name, _)| exchange.has(name))
    .map(|(_, operation)| operation)
    .collect();
    if operations.len() > 1 {
        return Err(Refusal::new(400, "multiple lock operations"));
    }
    let operation = operations.first().copied().unwrap_or(LockOperation::None);
    let cas = exchange.cas()?;
    if cas.is_some() && operation != LockOperation::None {
        return Err(Refusal::new(400, "CAS can't be used with lock operations"));
    }
    let body = exchange.json("structs.VariableDecrypted")?;
    let wanted = variables::wanted(&body)?;
    if operation == LockOperation::None && wanted.items.as_ref().is_none_or(|items| items.is_empty()) {
        return Err(Refusal::new(400, "variable missing required Items object"));
    }
    variables::check_path(&key.1).map_err(|refusal| refusal.at(0))?;
    if !exchange.access.variable(&key.0, &key.1, "write") {
        return Err(Refusal::denied().at(0));
    }
    match nomad.put_variable(&key, wanted, operation, cas) {
        Ok(variable) => {
            let reply = Reply::json(&variable);
            let index = variable["ModifyIndex"].as_u64().unwrap_or_default();
            Ok(if operation == LockOperation::Renew { reply } else { reply.at(index) })
        }
        Err(conflict) => refused(conflict, operation),
    }
}

fn refused(conflict: Conflict, operation: LockOperation) -> Handled {
    match conflict {
        Conflict::Refused(refusal) if operation == LockOperation::Renew => Err(refusal),
        Conflict::Refused(refusal) => Err(refusal.at(0)),
        Conflict::Found(variable) => {
            let index = variable["ModifyIndex"].as_u64().unwrap_or_default();
            let reply = Reply::text(409, "text/plain; charset=utf-8", variable.to_string());
            Ok(if operation == LockOperation::None { reply.at(index) } else { reply })
        }
    }
}

fn one_namespace(nomad: &mut Nomad, exchange: &Exchange<'_>, name: &str) -> Handled {
    let index = nomad.tables.namespaces;
    match *exchange.method {
        Method::GET => {
            if !exchange.access.sees(name) {
                return Err(Refusal::denied());
            }
            let found = nomad.namespaces.get(name);
            let found = found.ok_or_else(|| Refusal::new(404, "Namespace not found").query(index))?;
            Ok(Reply::json(&view::namespace(found)).query(found.modify_index))
        }
        _ if !exchange.access.all => Err(Refusal::denied()),
        Method::PUT | Method::POST => {
            let body = exchange.json("structs.Namespace")?;
            if body["Name"] != name {
                return Err(Refusal::new(400, "Namespace name does not match request path"));
            }
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
            if name.is_empty() || name.len() > 128 || !name.chars().all(fits) {
                let why = format!("invalid name {name:?}. Must match regex ^[a-zA-Z0-9-]{{1,128}}$");
                let text = format!("Invalid namespace {name:?}: {}", validate::multierror(&[why]));
                return Err(Refusal::new(500, text));
            }
            nomad.put_namespace(name, &text(&body, "Description"));
            Ok(Reply::empty(200).at(nomad.tables.namespaces))
        }
        Method::DELETE => {
            if nomad.namespaces.remove(name).is_none() {
                return Err(Refusal::new(500, "namespace not found"));
            }
            nomad.tables.namespaces = nomad.next_index();
            Ok(Reply::empty(200).at(nomad.tables.namespaces))
        }
        _ => Err(Refusal::method()),
    }
}

fn token_self(nomad: &Nomad, exchange: &Exchange<'_>) -> Handled {
    let missing = || Refusal::new(404, "ACL token not found").query(0);
    let token = match &exchange.access.token {
        Some(token) => token,
        None if nomad.options.acl => return Err(missing()),
        None => {
            return Ok(Reply::json(&json!({
                "ExpirationTTL": "", "AccessorID": "acls-disabled", "SecretID": "", "Name": "ACLs disabled token",
                "Type": "client", "Policies": null, "Roles": null, "Global": false, "Hash": null,
                "CreateTime": "0001-01-01T00:00:00Z", "ExpirationTime": null, "CreateIndex": 0, "ModifyIndex": 0,
            }))
            .query(0));
        }
    };
    let (kind, policies) = match &token.kind {
        super::TokenKind::Client(policies) => {
            ("client", json!(policies.iter().map(|policy| policy.name.as_str()).collect::<Vec<_>>()))
        }
        _ => ("management", Value::Null),
    };
    Ok(Reply::json(&json!({
        "ExpirationTTL": "", "AccessorID": "4e1a5983-be17-629e-24e0-27e08bf509a8", "SecretID": token.secret,
        "Name": token.name, "Type": kind, "Policies": policies, "Roles": null, "Global": false,
        "Hash": "sZdIBLxWrBZbzN/xe2rIwkMSDahevM5X/OhiC+DEcqQ=", "CreateTime": "2026-11-23T23:28:17.313200457Z",
        "ExpirationTime": null, "CreateIndex": 14, "ModifyIndex": 14,
    }))
    .query(14))
}
