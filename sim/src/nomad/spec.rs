//! The parts of a job's specification that scheduling and running need.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::gotime::Nanos;

/// A task group, including what it inherits from its job.
#[derive(Debug, Clone)]
pub struct Group {
    pub(super) name: String,
    pub(super) count: u64,
    pub(super) tasks: Vec<Arc<TaskSpec>>,
    pub(super) reschedule: ReschedulePolicy,
    pub(super) disk_mb: i64,
    pub(super) max_run: Option<Nanos>,
    pub(super) lost_after: Option<Nanos>,
    pub(super) replace: bool,
    pub(super) datacenters: Vec<String>,
    pub(super) pool: String,
    pub(super) constraints: Vec<Constraint>,
}

/// A task.
#[derive(Debug, Clone)]
pub struct TaskSpec {
    pub(super) name: String,
    pub(super) driver: String,
    pub(super) config: Value,
    pub(super) cpu: i64,
    pub(super) cores: i64,
    pub(super) memory_mb: i64,
    pub(super) env: BTreeMap<String, String>,
    pub(super) meta: BTreeMap<String, String>,
    pub(super) templates: Vec<TemplateSpec>,
    pub(super) restart: RestartPolicy,
    pub(super) kill_timeout: Nanos,
    pub(super) kill_signal: String,
    pub(super) leader: bool,
    pub(super) hook: String,
    pub(super) sidecar: bool,
    pub(super) token_in_env: bool,
}

/// A `template` block.
#[derive(Debug, Clone)]
pub struct TemplateSpec {
    pub(super) data: String,
    pub(super) env: bool,
    pub(super) once: bool,
    pub(super) noop: bool,
}

/// A `restart` block.
#[derive(Debug, Clone)]
pub struct RestartPolicy {
    pub(super) attempts: i64,
    pub(super) interval: Nanos,
    pub(super) delay: Nanos,
    pub(super) fail: bool,
}

/// A `reschedule` block.
#[derive(Debug, Clone)]
pub struct ReschedulePolicy {
    pub(super) attempts: i64,
    pub(super) interval: Nanos,
    pub(super) delay: Nanos,
    pub(super) function: String,
    pub(super) max_delay: Nanos,
    pub(super) unlimited: bool,
}

/// A `constraint` block.
#[derive(Debug, Clone)]
pub struct Constraint {
    pub(super) left: String,
    pub(super) operand: String,
    pub(super) right: String,
}

/// The groups of a job in the servers' form.
pub fn groups(job: &Value) -> Vec<Group> {
    let datacenters: Vec<String> =
        list(job, "Datacenters").filter_map(|dc| dc.as_str().map(str::to_owned)).collect();
    let pool = text(job, "NodePool");
    list(job, "TaskGroups")
        .map(|group| {
            let mut inherited: Vec<Constraint> = constraints(job);
            inherited.extend(constraints(group));
            let tasks: Vec<Arc<TaskSpec>> = list(group, "Tasks").map(|spec| Arc::new(task(spec))).collect();
            for task in list(group, "Tasks") {
                inherited.extend(constraints(task));
            }
            let reschedule = &group["ReschedulePolicy"];
            Group {
                name: text(group, "Name"),
                count: u64::try_from(int(group, "Count")).unwrap_or_default(),
                tasks,
                reschedule: ReschedulePolicy {
                    attempts: int(reschedule, "Attempts"),
                    interval: int(reschedule, "Interval"),
                    delay: int(reschedule, "Delay"),
                    function: text(reschedule, "DelayFunction"),
                    max_delay: int(reschedule, "MaxDelay"),
                    unlimited: flag(reschedule, "Unlimited"),
                },
                disk_mb: int(&group["EphemeralDisk"], "SizeMB"),
                max_run: Some(int(group, "MaxRunDuration")).filter(|d| *d > 0),
                lost_after: Some(int(&group["Disconnect"], "LostAfter")).filter(|d| *d > 0),
                replace: group["Disconnect"]["Replace"].as_bool().unwrap_or(true),
                datacenters: datacenters.clone(),
                pool: pool.clone(),
                constraints: inherited,
            }
        })
        .collect()
}

fn task(task: &Value) -> TaskSpec {
    let resources = &task["Resources"];
    let restart = &task["RestartPolicy"];
    TaskSpec {
        name: text(task, "Name"),
        driver: text(task, "Driver"),
        config: task["Config"].clone(),
        cpu: int(resources, "CPU"),
        cores: int(resources, "Cores"),
        memory_mb: int(resources, "MemoryMB"),
        env: map(&task["Env"]),
        meta: map(&task["Meta"]),
        templates: list(task, "Templates")
            .map(|template| TemplateSpec {
                data: text(template, "EmbeddedTmpl"),
                env: flag(template, "Envvars"),
                once: flag(template, "Once"),
                noop: template["ChangeMode"] == "noop",
            })
            .collect(),
        restart: RestartPolicy {
            attempts: int(restart, "Attempts"),
            interval: int(restart, "Interval"),
            delay: int(restart, "Delay"),
            fail: restart["Mode"] != "delay",
        },
        kill_timeout: int(task, "KillTimeout"),
        kill_signal: match text(task, "KillSignal") {
            empty if empty.is_empty() => "SIGINT".into(),
            signal => signal,
        },
        leader: flag(task, "Leader"),
        hook: text(&task["Lifecycle"], "Hook"),
        sidecar: flag(&task["Lifecycle"], "Sidecar"),
        token_in_env: flag(&task["Identity"], "Env"),
    }
}

fn constraints(value: &Value) -> Vec<Constraint> {
    list(value, "Constraints")
        .map(|constraint| Constraint {
            left: text(constraint, "LTarget"),
            operand: text(constraint, "Operand"),
            right: text(constraint, "RTarget"),
        })
        .collect()
}

/// A string field; empty if absent.
pub fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// An integer field; 0 if absent.
pub fn int(value: &Value, key: &str) -> i64 {
    value[key].as_i64().unwrap_or_default()
}

fn flag(value: &Value, key: &str) -> bool {
    value[key].as_bool().unwrap_or_default()
}

/// The items of a list field; none if absent.
pub fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

/// A map of strings; empty if absent.
pub fn map(value: &Value) -> BTreeMap<String, String> {
    let object = value.as_object().into_iter().flatten();
    object.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}
