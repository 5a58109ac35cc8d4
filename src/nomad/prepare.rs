//! Turns a parsed job into a runner's job. Pure. The parsed job is not trusted, because template and labels produced
//! it.

use serde_json::{Map, Value, json};

use super::{error::Error, options::Options};
use crate::model::{Asks, Registration, RunnerMeta};

/// The maximum of CPU (MHz), cores, memory and disk (MB) that a job may request. Far more than any machine has, and
/// far less than what overflows Nomad's scheduler, which then places such jobs anywhere.
pub const RESOURCE_MAX: i64 = 10_000_000;

/// The longest job ID. With the prefix `nomad/jobs/` it is a variable's path of at most 128 characters
/// (contract §8).
pub(super) const NAME_MAX: usize = 117;

/// How long a runner's node may be disconnected before Nomad replaces the runner: 24 h in nanoseconds. GitHub
/// gives up on a job long before. Without this, Nomad kills the runner when its node comes back.
const LOST_AFTER: i64 = 24 * 60 * 60 * 1_000_000_000;

/// A job that is ready to be registered. No `Debug`, because in `access_token` mode it contains the token.
#[derive(Clone)]
pub struct PreparedJob {
    pub(super) name: String,
    pub(super) meta: RunnerMeta,
    pub(super) registration: Registration,
    pub(super) job: Value,
}

/// Placement that overrides the template. Empty or `None`: the template's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// `datacenters`
    pub datacenters: Vec<String>,
    /// `node_pool`
    pub node_pool: Option<String>,
    /// `priority`
    pub priority: Option<usize>,
}

impl PreparedJob {
    /// The same job with this placement.
    #[must_use]
    pub fn placed(mut self, placement: &Placement) -> Self {
        let Placement { datacenters, node_pool, priority } = placement;
        if let Value::Object(job) = &mut self.job {
            if !datacenters.is_empty() {
                job.insert("Datacenters".to_owned(), json!(datacenters));
            }
            if let Some(pool) = node_pool {
                job.insert("NodePool".to_owned(), json!(pool));
            }
            if let Some(priority) = priority {
                job.insert("Priority".to_owned(), json!(priority));
            }
        }
        self
    }

    /// The job's ID.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The job in the API's JSON.
    pub fn job(&self) -> &Value {
        &self.job
    }
}

/// The job of a template whose text is a job in the API's JSON (`{"Job": …}` or just the job), which needs no
/// parsing. `None` for HCL, including its JSON form (`{"job": …}`).
///
/// # Errors
/// [`Error::Job`] if it starts like JSON and is not.
pub fn job_from_json(text: &str) -> Result<Option<Value>, Error> {
    if !text.trim_start().starts_with('{') {
        return Ok(None);
    }
    let value: Value = serde_json::from_str(text).map_err(|error| {
        // The error's own text may quote the rendered job.
        Error::Job(format!(
            "it starts like JSON but is not valid JSON, at line {} column {}",
            error.line(),
            error.column()
        ))
    })?;
    let Value::Object(mut object) = value else { return Ok(None) };
    if let Some(job @ Value::Object(_)) = object.remove("Job") {
        return Ok(Some(job));
    }
    let is_job = ["ID", "Name", "TaskGroups"].iter().any(|key| object.contains_key(*key));
    Ok(is_job.then_some(Value::Object(object)))
}

/// Turns a parsed job into the job of one runner. Sets its ID, Name, Namespace, Region and Meta, type batch and
/// count 1. For single-use credentials: no restart, no rescheduling, and no replacement for 24 h while the node is
/// disconnected.
///
/// # Errors
/// [`Error::Job`] if it cannot be a runner: another type, periodic, a resource out of bounds.
pub fn prepare(
    job: Value,
    options: &Options,
    meta: RunnerMeta,
    name: &str,
    registration: Registration,
) -> Result<PreparedJob, Error> {
    let Value::Object(mut job) = job else { return Err(unfit("it is not a JSON object")) };
    check_name(name, &options.prefix)?;
    for key in ["Periodic", "ParameterizedJob", "Multiregion"] {
        if job.get(key).is_some_and(|value| !value.is_null()) {
            return Err(unfit(&format!("{key} is not allowed: a runner runs once, immediately")));
        }
    }
    match job.get("Type").and_then(Value::as_str).unwrap_or_default() {
        "" | "batch" => {}
        other => {
            return Err(unfit(&format!("its type is {other:?}; write type = \"batch\": a runner ends")));
        }
    }
    let text = serde_json::to_string(&meta).map_err(|error| unfit(&format!("its Meta: {error}")))?;
    object(&mut job, "Meta")?.insert(options.meta_key.clone(), Value::String(text));
    job.insert("ID".to_owned(), json!(name));
    job.insert("Name".to_owned(), json!(name));
    job.insert("Namespace".to_owned(), json!(options.namespace));
    job.insert("Type".to_owned(), json!("batch"));
    if let Some(region) = &options.region {
        job.insert("Region".to_owned(), json!(region));
    }
    let groups = match job.get_mut("TaskGroups") {
        Some(Value::Array(groups)) if !groups.is_empty() => groups,
        _ => return Err(unfit("it has no group")),
    };
    if registration.needs_variable() && groups.len() > 1 {
        return Err(unfit("it has several groups; one runner is one group"));
    }
    for group in groups {
        let Value::Object(group) = group else { return Err(unfit("a group is not a JSON object")) };
        check_resources(group)?;
        group.insert("Count".to_owned(), json!(1));
        if registration.needs_variable() {
            run_once(group)?;
        }
    }
    Ok(PreparedJob { name: name.to_owned(), meta, registration, job: Value::Object(job) })
}

/// Sockets that give control over a host.
const SOCKETS: [&str; 4] = ["docker.sock", "podman.sock", "containerd.sock", "crio.sock"];

/// How a job gives one of its tasks access to its host, for display; `None` if nothing in the job shows that.
pub fn reaches_host(job: &Value) -> Option<String> {
    let groups = job["TaskGroups"].as_array().into_iter().flatten();
    let mut tasks = groups.flat_map(|group| group["Tasks"].as_array().into_iter().flatten());
    tasks.find_map(|task| {
        let name = task["Name"].as_str().unwrap_or_default();
        let config = &task["Config"];
        let is_true = |value: &Value| *value == Value::Bool(true) || value.as_str() == Some("true");
        if task["Driver"].as_str() == Some("raw_exec") {
            return Some(format!("task {name:?} uses raw_exec"));
        }
        if is_true(&config["privileged"]) {
            return Some(format!("task {name:?} is privileged"));
        }
        let socket = SOCKETS.iter().find(|socket| mentions(config, socket))?;
        Some(format!("task {name:?} mounts {socket}"))
    })
}

/// Whether any text in it contains this.
fn mentions(value: &Value, part: &str) -> bool {
    match value {
        Value::String(text) => text.contains(part),
        Value::Array(items) => items.iter().any(|item| mentions(item, part)),
        Value::Object(entries) => entries.values().any(|value| mentions(value, part)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The name of the task that is the runner: the leader, or else the only one without a lifecycle. `None` if neither
/// applies, or for a job with a single task.
pub fn main_task(job: &Value) -> Option<String> {
    let tasks = job["TaskGroups"][0]["Tasks"].as_array().filter(|tasks| tasks.len() > 1)?;
    let mut leaders = tasks.iter().filter(|task| task["Leader"] == true);
    let mut main = tasks.iter().filter(|task| task["Lifecycle"].is_null());
    let task = match (leaders.next(), main.next(), main.next()) {
        (Some(leader), ..) => leader,
        (None, Some(main), None) => main,
        _ => return None,
    };
    task["Name"].as_str().map(str::to_owned)
}

/// Nomad's defaults for a task without resources: MHz and MiB.
const TASK_CPU: u64 = 100;
const TASK_MEMORY: u64 = 300;

/// The resources that a parsed job requests from Nomad. Tasks that run one after the other share resources, as
/// in Nomad's own calculation.
pub fn asks(job: &Value) -> Asks {
    let mut main = [0u64; 3];
    let mut before = [0u64; 3];
    let mut after = [0u64; 3];
    let mut beside = [0u64; 3];
    for task in job["TaskGroups"][0]["Tasks"].as_array().into_iter().flatten() {
        let resources = &task["Resources"];
        let amount = |key: &str| resources[key].as_u64();
        let cores = amount("Cores").unwrap_or(0);
        let cpu = if cores > 0 { 0 } else { amount("CPU").filter(|cpu| *cpu > 0).unwrap_or(TASK_CPU) };
        let memory = amount("MemoryMB").filter(|memory| *memory > 0).unwrap_or(TASK_MEMORY);
        let lifecycle = &task["Lifecycle"];
        let sum = match lifecycle["Hook"].as_str() {
            _ if lifecycle["Sidecar"] == true => &mut beside,
            Some("prestart") => &mut before,
            Some("poststop") => &mut after,
            _ => &mut main,
        };
        for (sum, amount) in sum.iter_mut().zip([cpu, cores, memory]) {
            *sum = sum.saturating_add(amount);
        }
    }
    let [cpu, cores, memory] =
        [0, 1, 2].map(|at| main[at].max(before[at]).max(after[at]).saturating_add(beside[at]));
    let node_pool = job["NodePool"].as_str().filter(|pool| !pool.is_empty()).unwrap_or("default");
    Asks { cpu, cores, memory, node_pool: node_pool.chars().take(NODE_POOL_MAX).collect() }
}

/// Nomad's maximum length of a node pool name.
const NODE_POOL_MAX: usize = 128;

/// Used credentials cannot be used again, so: no restart, no rescheduling, no replacement.
fn run_once(group: &mut Map<String, Value>) -> Result<(), Error> {
    no_restarts(group)?;
    let reschedule = object(group, "ReschedulePolicy")?;
    reschedule.insert("Attempts".to_owned(), json!(0));
    reschedule.insert("Unlimited".to_owned(), json!(false));
    // `disconnect` replaces these three, and Nomad rejects a job with both.
    for key in ["MaxClientDisconnect", "StopAfterClientDisconnect", "PreventRescheduleOnLost"] {
        group.remove(key);
    }
    let disconnect = object(group, "Disconnect")?;
    disconnect.remove("StopOnClientAfter");
    disconnect.insert("LostAfter".to_owned(), json!(LOST_AFTER));
    disconnect.insert("Replace".to_owned(), json!(false));
    for task in tasks(group)? {
        // A task without its own policy uses its group's.
        if task.get("RestartPolicy").is_some_and(|policy| !policy.is_null()) {
            no_restarts(task)?;
        }
    }
    Ok(())
}

fn no_restarts(owner: &mut Map<String, Value>) -> Result<(), Error> {
    let restart = object(owner, "RestartPolicy")?;
    restart.insert("Attempts".to_owned(), json!(0));
    restart.insert("Mode".to_owned(), json!("fail"));
    Ok(())
}

fn check_resources(group: &mut Map<String, Value>) -> Result<(), Error> {
    if let Some(disk) = group.get("EphemeralDisk") {
        check_amount("group's ephemeral_disk size", disk.get("SizeMB"))?;
    }
    for task in tasks(group)? {
        let name = task.get("Name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(resources) = task.get("Resources") else { continue };
        for (key, what) in [
            ("CPU", "cpu"),
            ("Cores", "cores"),
            ("MemoryMB", "memory"),
            ("MemoryMaxMB", "memory_max"),
            ("DiskMB", "disk"),
        ] {
            check_amount(&format!("task {name:?}'s {what}"), resources.get(key))?;
        }
    }
    Ok(())
}

fn check_amount(what: &str, amount: Option<&Value>) -> Result<(), Error> {
    match amount {
        None | Some(Value::Null) => Ok(()),
        Some(amount) if amount.as_i64().is_some_and(|amount| (0..=RESOURCE_MAX).contains(&amount)) => Ok(()),
        Some(amount) => Err(unfit(&format!("the {what} is {amount}, not a number from 0 to {RESOURCE_MAX}"))),
    }
}

fn check_name(name: &str, prefix: &str) -> Result<(), Error> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let ours = name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'));
    if ours && name.len() <= NAME_MAX && name.chars().all(valid) {
        Ok(())
    } else {
        Err(unfit(&format!(
            "{name:?} is not a valid name: PREFIX-…, at most {NAME_MAX} letters, digits, dashes and underscores"
        )))
    }
}

fn tasks(group: &mut Map<String, Value>) -> Result<Vec<&mut Map<String, Value>>, Error> {
    match group.get_mut("Tasks") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(tasks)) => tasks
            .iter_mut()
            .map(|task| task.as_object_mut().ok_or_else(|| unfit("a task is not a JSON object")))
            .collect(),
        Some(_) => Err(unfit("its Tasks are not a list")),
    }
}

/// The object under a key, created if missing.
fn object<'a>(owner: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Map<String, Value>, Error> {
    let value = owner.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().ok_or_else(|| unfit(&format!("its {key} is not a JSON object")))
}

fn unfit(why: &str) -> Error {
    Error::Job(why.to_owned())
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
