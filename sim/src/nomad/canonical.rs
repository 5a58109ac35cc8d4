//! Sets the fields that a job omits, as the parse endpoint's `Canonicalize` does and as the servers do when a
//! job is registered (contract, sections 1 and 2).

use serde_json::{Map, Value, json};

use super::{
    hcl::unset,
    schema::{IDENTITY, JOB, Kind, RESOURCES, Type, UPDATE},
    spec::text,
};

/// The target form of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The API's form, as returned by the parse endpoint.
    Api,
    /// The servers' stored form.
    Server,
}

const SECOND: i64 = 1_000_000_000;

/// The job with all fields.
///
/// # Errors
/// A field of the wrong type, with the text of Go's decoder.
pub fn job(job: &Value, form: Form) -> Result<Value, String> {
    let given = match job {
        Value::Object(given) => given,
        other => {
            return Err(format!(
                "json: cannot unmarshal {} into Go struct field JobRegisterRequest.Job of type api.Job",
                go_kind(other)
            ));
        }
    };
    let mut job = complete(&JOB, given, form, "Job.Job")?;
    if job["ID"].is_null() {
        job.insert("ID".into(), json!(""));
    }
    if job["Name"].is_null() {
        let id = job["ID"].clone();
        job.insert("Name".into(), id);
    }
    for (field, default) in [("Type", json!("service")), ("Priority", json!(50))] {
        if job[field] == "" || job[field] == 0 {
            job.insert(field.into(), default);
        }
    }
    let kind = job["Type"].as_str().unwrap_or_default().to_owned();
    let server = form == Form::Server;
    if server {
        if given_list_is_empty(&job["Datacenters"]) {
            job.insert("Datacenters".into(), json!(["*"]));
        }
        for (field, default) in [("NodePool", "default"), ("Namespace", "default"), ("Region", "global")] {
            if job[field] == "" {
                job.insert(field.into(), json!(default));
            }
        }
        let update = match (&job["Update"], kind.as_str()) {
            (Value::Object(update), _) => Value::Object(update.clone()),
            (_, "service") => with_defaults(&UPDATE, json!({"MaxParallel": 1, "Stagger": 30 * SECOND})),
            _ => with_defaults(&UPDATE, json!({})),
        };
        job.insert("Update".into(), update);
        empty_maps_to_null(&mut job, &["Meta"]);
    }
    let reschedule = given.get("Reschedule").cloned().unwrap_or_default();
    let namespace = job["Namespace"].clone();
    if let Some(Value::Array(groups)) = job.get_mut("TaskGroups") {
        for group in groups.iter_mut().filter_map(Value::as_object_mut) {
            self::group(group, &kind, &reschedule, &namespace, form);
        }
    }
    if given_list_is_empty(&job["TaskGroups"]) {
        job.insert("TaskGroups".into(), Value::Null);
    }
    Ok(Value::Object(job))
}

fn given_list_is_empty(value: &Value) -> bool {
    value.as_array().is_none_or(Vec::is_empty)
}

fn empty_maps_to_null(object: &mut Map<String, Value>, fields: &[&str]) {
    for field in fields {
        if object.get(*field).and_then(Value::as_object).is_some_and(Map::is_empty) {
            object.insert((*field).into(), Value::Null);
        }
    }
}

/// An object with all fields of its type, in the schema's order. Unknown fields are dropped.
fn complete(
    ty: &Type,
    given: &Map<String, Value>,
    form: Form,
    path: &str,
) -> Result<Map<String, Value>, String> {
    let mut object = Map::new();
    for field in ty.fields {
        let default = unset(if form == Form::Server { field.server } else { field.canonical });
        let value = match given.get(field.json) {
            None | Some(Value::Null) => default,
            Some(value) => {
                let path = format!("{path}.{}", field.json);
                check(field.kind, value, &path)?;
                match default {
                    // The servers omit these fields if they are empty.
                    None if form == Form::Server && empty(value) => None,
                    None if form == Form::Server && matches!(field.json, "Migrate" | "Reschedule") => None,
                    Some(Value::String(default)) if value == "" => Some(Value::String(default)),
                    _ => Some(inner(field.kind, value, form, &path)?),
                }
            }
        };
        if let Some(value) = value {
            object.insert(field.json.into(), value);
        }
    }
    Ok(object)
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) => false,
    }
}

fn inner(kind: Kind, value: &Value, form: Form, path: &str) -> Result<Value, String> {
    let one = |ty: &Type, value: &Value| match value {
        Value::Object(object) => complete(ty, object, form, path).map(Value::Object),
        other => Ok(other.clone()),
    };
    match (kind, value) {
        (Kind::One(ty), value) => one(ty, value),
        (Kind::Many(ty) | Kind::Named(ty, _), Value::Array(items)) => {
            items.iter().map(|item| one(ty, item)).collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        (Kind::Keyed(ty, _), Value::Object(map)) => map
            .iter()
            .map(|(key, item)| one(ty, item).map(|item| (key.clone(), item)))
            .collect::<Result<Map<_, _>, _>>()
            .map(Value::Object),
        (_, value) => Ok(value.clone()),
    }
}

fn check(kind: Kind, value: &Value, path: &str) -> Result<(), String> {
    let (fits, go) = match kind {
        Kind::Str => (value.is_string(), "string"),
        Kind::Int => (value.is_i64() || value.is_u64(), "int"),
        Kind::Bool => (value.is_boolean(), "bool"),
        Kind::Span => (value.is_i64() || value.is_string(), "time.Duration"),
        Kind::Strs => (value.is_array(), "[]string"),
        Kind::Map => (value.is_object(), "map[string]string"),
        Kind::One(_) => (value.is_object(), "api.Block"),
        Kind::Many(_) => (value.is_array(), "[]*api.Block"),
        Kind::Named(..) if path.ends_with(".TaskGroups") => (value.is_array(), "[]*api.TaskGroup"),
        Kind::Named(..) => (value.is_array(), "[]*api.Task"),
        Kind::Keyed(..) => (value.is_object(), "map[string]*api.VolumeRequest"),
        Kind::Any => (true, ""),
    };
    if fits {
        return Ok(());
    }
    Err(format!("json: cannot unmarshal {} into Go struct field {path} of type {go}", go_kind(value)))
}

/// Go's name for the kind of a JSON value.
pub fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn with_defaults(ty: &Type, given: Value) -> Value {
    let given = given.as_object().cloned().unwrap_or_default();
    complete(ty, &given, Form::Server, "").map(Value::Object).unwrap_or_default()
}

fn group(group: &mut Map<String, Value>, kind: &str, job_reschedule: &Value, namespace: &Value, form: Form) {
    let restart = match kind {
        "batch" | "sysbatch" => json!({"Attempts": 3, "Delay": 15 * SECOND, "Interval": 24 * 3600 * SECOND}),
        _ => json!({"Attempts": 2, "Delay": 15 * SECOND, "Interval": 1800 * SECOND}),
    };
    let restart =
        fill(&group["RestartPolicy"], &[&restart], &json!({"Mode": "fail", "RenderTemplates": false}));
    let reschedule = match kind {
        "batch" => json!({
            "Attempts": 1, "Delay": 5 * SECOND, "DelayFunction": "constant", "Interval": 24 * 3600 * SECOND,
            "MaxDelay": 0, "Unlimited": false,
        }),
        "service" => json!({
            "Attempts": 0, "Delay": 30 * SECOND, "DelayFunction": "exponential", "Interval": 0,
            "MaxDelay": 3600 * SECOND, "Unlimited": true,
        }),
        _ => Value::Null,
    };
    let reschedule = match reschedule {
        Value::Null => group["ReschedulePolicy"].clone(),
        defaults => fill(&group["ReschedulePolicy"], &[job_reschedule], &defaults),
    };
    group.insert("ReschedulePolicy".into(), reschedule);
    if group["EphemeralDisk"].is_null() {
        group.insert("EphemeralDisk".into(), json!({"Migrate": false, "SizeMB": 300, "Sticky": false}));
    }
    if form == Form::Server {
        empty_maps_to_null(group, &["Meta"]);
        services(group, namespace);
    }
    let mut signals: Vec<String> = Vec::new();
    if let Some(Value::Array(tasks)) = group.get_mut("Tasks") {
        for task in tasks.iter_mut().filter_map(Value::as_object_mut) {
            let policy = fill(&task["RestartPolicy"], &[], &restart);
            task.insert("RestartPolicy".into(), policy);
            self::task(task, namespace, form);
            let signal = text(&Value::Object(task.clone()), "KillSignal");
            if !signal.is_empty() && !signals.contains(&signal) {
                signals.push(signal);
            }
        }
    }
    group.insert("RestartPolicy".into(), restart);
    if form == Form::Server {
        let implied = implied_constraints(group, &signals);
        if let Some(Value::Array(constraints)) = group.get_mut("Constraints") {
            constraints.extend(implied);
        } else if !implied.is_empty() {
            group.insert("Constraints".into(), json!(implied));
        }
    }
}

/// Constraints that the servers add: signals, Nomad's service discovery, named identities.
fn implied_constraints(group: &Map<String, Value>, signals: &[String]) -> Vec<Value> {
    let constraint = |left: &str, operand: &str, right: &str| json!({"LTarget": left, "Operand": operand, "RTarget": right});
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let tasks = group.get("Tasks").map(items).unwrap_or_default();
    let mut services = group.get("Services").map(items).unwrap_or_default();
    services.extend(tasks.iter().flat_map(|task| items(&task["Services"])));
    services.retain(|service| service["Provider"] == "nomad");
    let mut implied = Vec::new();
    if !signals.is_empty() {
        implied.push(constraint("${attr.os.signals}", "set_contains", &signals.join(",")));
    }
    if !services.is_empty() {
        implied.push(constraint("${attr.nomad.service_discovery}", "=", "true"));
    }
    if services.iter().any(|service| !given_list_is_empty(&service["Checks"])) {
        implied.push(constraint("${attr.nomad.version}", "semver", ">= 1.4.0"));
    }
    if tasks.iter().any(|task| !given_list_is_empty(&task["Identities"])) {
        implied.push(constraint("${attr.nomad.version}", "semver", ">= 1.7.0-a"));
    }
    implied
}

/// The servers store every number in a driver's configuration as a float: 5 becomes 5.0.
fn floats(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().and_then(serde_json::Number::from_f64) {
                *number = float;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(floats),
        Value::Object(map) => map.values_mut().for_each(floats),
        _ => {}
    }
}

fn services(owner: &mut Map<String, Value>, namespace: &Value) {
    let Some(Value::Array(services)) = owner.get_mut("Services") else { return };
    for service in services.iter_mut().filter_map(Value::as_object_mut) {
        service.insert("Namespace".into(), namespace.clone());
        let name = service["Name"].as_str().unwrap_or_default().to_owned();
        if let Some(Value::Array(checks)) = service.get_mut("Checks") {
            for check in checks.iter_mut().filter(|check| check["Name"] == "") {
                check["Name"] = json!(format!("service: {name:?} check"));
            }
        }
    }
}

fn task(task: &mut Map<String, Value>, namespace: &Value, form: Form) {
    let server = form == Form::Server;
    if task["Resources"].is_null() {
        let resources = complete(&RESOURCES, &Map::new(), form, "").unwrap_or_default();
        task.insert("Resources".into(), Value::Object(resources));
    }
    // With cores instead of CPU, the CPU is that of the cores.
    let resources = &mut task["Resources"];
    if resources["Cores"].as_i64().unwrap_or_default() > 0 && resources["CPU"] == 100 {
        resources["CPU"] = json!(0);
    }
    if task["LogConfig"].is_null() {
        let mut logs = json!({"Disabled": false, "MaxFileSizeMB": 10, "MaxFiles": 10});
        if !server {
            logs["Enabled"] = Value::Null;
        }
        task.insert("LogConfig".into(), logs);
    }
    if !server {
        return;
    }
    floats(&mut task["Config"]);
    empty_maps_to_null(task, &["Meta", "Env"]);
    services(task, namespace);
    if task["Identity"].is_null() {
        task.insert("Identity".into(), with_defaults(&IDENTITY, json!({})));
    }
    let identity = &mut task["Identity"];
    identity["Name"] = json!("default");
    if given_list_is_empty(&identity["Audience"]) {
        identity["Audience"] = json!(["nomadproject.io"]);
    }
}

/// A policy: its own values, otherwise those of the first of the others that has them, otherwise the
/// defaults.
fn fill(own: &Value, others: &[&Value], defaults: &Value) -> Value {
    let mut keys: Vec<&String> = Vec::new();
    for source in std::iter::once(own).chain(others.iter().copied()).chain(std::iter::once(defaults)) {
        keys.extend(source.as_object().into_iter().flat_map(Map::keys));
    }
    keys.sort();
    keys.dedup();
    let mut filled = Map::new();
    for key in keys {
        let value = std::iter::once(own)
            .chain(others.iter().copied())
            .chain(std::iter::once(defaults))
            .map(|source| &source[key.as_str()])
            .find(|value| !value.is_null());
        filled.insert(key.clone(), value.cloned().unwrap_or_default());
    }
    Value::Object(filled)
}
