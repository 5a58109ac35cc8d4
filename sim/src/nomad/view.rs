//! The servers' state in the API's format, field by field as in the recordings.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub use super::spec::text;
use super::{
    Key, Nomad, gotime,
    spec::{Group, TaskSpec},
    state::{Allocation, Counts, Evaluation, Job, Namespace, Task},
};

/// A complete job.
pub fn job(job: &Job) -> Value {
    let mut object = (*job.spec).clone();
    for (name, value) in [
        ("CreateIndex", json!(job.create_index)),
        ("JobModifyIndex", json!(job.job_modify_index)),
        ("ModifyIndex", json!(job.modify_index)),
        ("Status", json!(job.status)),
        ("Stop", json!(job.stop)),
        ("SubmitTime", json!(job.submit_time)),
        ("Version", json!(job.version)),
    ] {
        object[name] = value;
    }
    object
}

/// `DesiredTGUpdates` of a group.
pub fn updates(place: u64, stop: u64, ignore: u64, replace: u64) -> Value {
    json!({
        "Canary": 0, "DestructiveUpdate": replace, "Disconnect": 0, "Ignore": ignore, "InPlaceUpdate": 0,
        "Migrate": 0, "Place": place, "Preemptions": 0, "Reconnect": 0, "RescheduleLater": 0,
        "RescheduleNow": 0, "Stop": stop,
    })
}

fn annotation(counts: Counts) -> Value {
    let mut updates = updates(counts.place, counts.stop, 0, 0);
    updates["Migrate"] = json!(counts.migrate);
    updates
}

/// An evaluation. Empty fields are omitted.
pub fn evaluation(evaluation: &Evaluation) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    if !evaluation.blocked.is_empty() {
        put("BlockedEval", json!(evaluation.blocked));
    }
    let any = |name: &str| evaluation.failed.values().any(|metrics| metrics[name] != 0);
    if evaluation.triggered_by == "queued-allocs" && any("NodesEvaluated") {
        put("ClassEligibility", json!({"v1:13886941364502121386": !any("NodesFiltered")}));
    }
    if evaluation.create_index > 0 {
        put("CreateIndex", json!(evaluation.create_index));
    }
    put("CreateTime", json!(evaluation.create_time));
    if !evaluation.failed.is_empty() {
        put("FailedTGAllocs", json!(evaluation.failed));
    }
    put("ID", json!(evaluation.id));
    put("JobID", json!(evaluation.job_id));
    if evaluation.job_modify_index > 0 {
        put("JobModifyIndex", json!(evaluation.job_modify_index));
    }
    if evaluation.modify_index > 0 {
        put("ModifyIndex", json!(evaluation.modify_index));
    }
    put("ModifyTime", json!(evaluation.modify_time));
    put("Namespace", json!(evaluation.namespace));
    if let Some(placed) = &evaluation.placed {
        let groups: BTreeMap<_, _> =
            placed.iter().map(|(group, counts)| (group, annotation(*counts))).collect();
        put("PlanAnnotations", json!({"DesiredTGUpdates": groups, "PreemptedAllocs": null}));
    }
    if !evaluation.previous.is_empty() {
        put("PreviousEval", json!(evaluation.previous));
    }
    put("Priority", json!(evaluation.priority));
    if let Some(queued) = &evaluation.queued {
        put("QueuedAllocations", json!(queued));
    }
    if evaluation.snapshot_index > 0 {
        put("SnapshotIndex", json!(evaluation.snapshot_index));
    }
    put("Status", json!(evaluation.status));
    if !evaluation.status_description.is_empty() {
        put("StatusDescription", json!(evaluation.status_description));
    }
    put("TriggeredBy", json!(evaluation.triggered_by));
    put("Type", json!(evaluation.kind));
    if evaluation.wait_until > 0 {
        put("WaitUntil", json!(gotime::timestamp(evaluation.wait_until).to_string()));
    }
    Value::Object(object)
}

/// An evaluation with all fields, for filters.
pub fn evaluation_datum(of: &Evaluation) -> Value {
    let mut object = json!({
        "BlockedEval": "", "ClassEligibility": null, "DeploymentID": "", "FailedTGAllocs": null, "NodeID": "",
        "PlanAnnotations": null, "PreviousEval": "", "QueuedAllocations": null, "RelatedEvals": null,
        "SnapshotIndex": 0, "StatusDescription": "", "WaitUntil": null,
    });
    if let (Value::Object(all), Value::Object(set)) = (&mut object, evaluation(of)) {
        all.extend(set);
    }
    object
}

fn task(task: &Task, clock_ahead: i64) -> Value {
    let time =
        |at: Option<i64>| at.map_or(Value::Null, |at| json!(gotime::timestamp(at + clock_ahead).to_string()));
    let mut object = json!({
        "Events": null,
        "Failed": task.failed,
        "FinishedAt": time(task.finished_at),
        "LastRestart": time(task.last_restart),
        "Paused": "",
        "Restarts": task.restarts,
        "StartedAt": time(task.started_at),
        "State": task.state(),
    });
    // Inserted as a whole, because the macro would build it a second time.
    object["Events"] = Value::Array(task.events.iter().map(|event| (**event).clone()).collect());
    object
}

fn tasks(allocation: &Allocation) -> Value {
    if allocation.tasks.is_empty() {
        return Value::Null;
    }
    let states: Map<String, Value> = allocation
        .tasks
        .iter()
        .map(|state| (state.name.clone(), task(state, allocation.clock_ahead)))
        .collect();
    Value::Object(states)
}

fn reschedules(allocation: &Allocation) -> Value {
    if allocation.replacement.reschedules.is_empty() {
        return Value::Null;
    }
    let events: Vec<Value> = allocation
        .replacement
        .reschedules
        .iter()
        .map(|r| {
            json!({
                "Delay": r.delay, "PrevAllocID": r.previous, "PrevNodeID": allocation.node_id,
                "RescheduleTime": r.at,
            })
        })
        .collect();
    json!({"Events": events, "LastReschedule": "ok"})
}

/// An allocation in the format of lists.
pub fn allocation_stub(allocation: &Allocation, task_states: bool) -> Value {
    let mut object = json!({
        "ClientDescription": allocation.client_description,
        "ClientStatus": allocation.client_status,
        "CreateIndex": allocation.create_index,
        "CreateTime": allocation.create_time,
        "DeploymentStatus": null,
        "DesiredDescription": allocation.desired_description,
        "DesiredStatus": allocation.desired_status,
        "DesiredTransition": {
            "ForceReschedule": null, "Migrate": if allocation.replacement.migrate { json!(true) } else { Value::Null },
            "MigrateDisablePlacement": null, "NoShutdownDelay": null, "Reschedule": null,
        },
        "EvalID": allocation.eval_id,
        "FollowupEvalID": allocation.replacement.followup,
        "ID": allocation.id,
        "JobID": allocation.job_id,
        "JobType": allocation.job.kind,
        "JobVersion": allocation.job.version,
        "ModifyIndex": allocation.modify_index,
        "ModifyTime": allocation.modify_time,
        "Name": allocation.name,
        "Namespace": allocation.namespace,
        "NextAllocation": allocation.next,
        "NodeID": allocation.node_id,
        "NodeName": allocation.node,
        "PreemptedAllocations": null,
        "PreemptedByAllocation": "",
        "RescheduleTracker": reschedules(allocation),
        "TaskGroup": allocation.group,
        "TaskStates": null,
    });
    if task_states {
        object["TaskStates"] = tasks(allocation);
    }
    object
}

fn resources(cpu: i64, memory: i64, most: i64, disk: i64) -> Value {
    json!({
        "CPU": cpu, "Cores": 0, "Devices": null, "DiskMB": disk, "IOPS": 0, "MemoryMB": memory,
        "MemoryMaxMB": most, "NUMA": null, "Networks": null, "SecretsMB": 0,
    })
}

/// A value for each task of a group.
fn by_task(group: &Group, each: impl Fn(&TaskSpec) -> Value) -> Map<String, Value> {
    group.tasks.iter().map(|task| (task.name.clone(), each(task))).collect()
}

/// The scheduler's metrics for its placement.
fn metrics(allocation: &Allocation) -> Value {
    json!({
        "AllocationTime": 104_035, "ClassExhausted": null, "ClassFiltered": null, "CoalescedFailures": 0,
        "ConstraintFiltered": null, "DimensionExhausted": null, "NodePool": allocation.spec.pool,
        "NodesAvailable": {"dc1": 1}, "NodesEvaluated": 1, "NodesExhausted": 0, "NodesFiltered": 0,
        "NodesInPool": 1, "QuotaExhausted": null, "ResourcesExhausted": null, "Scores": null,
        "ScoreMetaData": [{
            "NodeID": allocation.node_id, "NormScore": 0.5,
            "Scores": {
                "binpack": 0.5, "job-anti-affinity": 0.0, "node-affinity": 0.0, "node-reschedule-penalty": 0.0,
            },
        }],
    })
}

/// A complete allocation, in the format of the event stream: empty fields are omitted.
pub fn allocation(allocation: &Allocation) -> Value {
    let group = &allocation.spec;
    let cpu: i64 = group.tasks.iter().map(|task| task.cpu).sum();
    let memory: i64 = group.tasks.iter().map(|task| task.memory_mb).sum();
    let allocated = by_task(group, |task| {
        json!({
            "Cpu": {"CpuShares": task.cpu, "ReservedCores": null}, "Devices": null,
            "Memory": {"MemoryMB": task.memory_mb, "MemoryMaxMB": 0}, "Networks": null,
        })
    });
    let mut object = json!({
        "AllocModifyIndex": allocation.alloc_modify_index,
        "AllocatedResources": {
            "Shared": {"DiskMB": group.disk_mb, "Networks": null, "Ports": null},
            "TaskLifecycles": by_task(group, |_| Value::Null),
            "Tasks": allocated,
        },
        "ClientStatus": allocation.client_status,
        "CreateIndex": allocation.create_index,
        "CreateTime": allocation.create_time,
        "DesiredStatus": allocation.desired_status,
        "EvalID": allocation.eval_id,
        "ID": allocation.id,
        "JobID": allocation.job_id,
        "Metrics": metrics(allocation),
        "ModifyIndex": allocation.modify_index,
        "ModifyTime": allocation.modify_time,
        "Name": allocation.name,
        "Namespace": allocation.namespace,
        "NodeID": allocation.node_id,
        "NodeName": allocation.node,
        "Resources": resources(cpu, memory, memory, group.disk_mb),
        "SharedResources": resources(0, 0, 0, group.disk_mb),
        "SigningKeyID": "4d5d0f89-ac2e-89a0-e4b9-c949cf46302d",
        "TaskGroup": allocation.group,
        "TaskResources": by_task(group, |task| resources(task.cpu, task.memory_mb, 0, 0)),
    });
    for (name, value) in [
        ("ClientDescription", json!(allocation.client_description)),
        ("DesiredDescription", json!(allocation.desired_description)),
        ("NextAllocation", json!(allocation.next)),
        ("PreviousAllocation", json!(allocation.previous)),
        ("RescheduleTracker", reschedules(allocation)),
        ("TaskStates", tasks(allocation)),
    ] {
        if !value.is_null() && value != json!("") {
            object[name] = value;
        }
    }
    if !allocation.tasks.is_empty() {
        object["NetworkStatus"] = json!({"Address": "", "AddressIPv6": "", "DNS": null, "InterfaceName": ""});
    }
    object
}

/// A namespace.
pub fn namespace(namespace: &Namespace) -> Value {
    json!({
        "Capabilities": null,
        "ConsulConfiguration": null,
        "CreateIndex": namespace.create_index,
        "Description": namespace.description,
        "Hash": "C7UbjDwBK0dK8wQq7Izg7SJIzaV+lIo2X7wRtzY3pSw=",
        "Meta": null,
        "ModifyIndex": namespace.modify_index,
        "Name": namespace.name,
        "NodePoolConfiguration": null,
        "OptionalExtraClaims": null,
        "Quota": "",
        "RequiredExtraClaims": null,
        "VaultConfiguration": null,
    })
}

impl Nomad {
    /// A job's summary: its allocations counted by group and status.
    pub(super) fn summary(&self, key: &Key, job: &Job) -> Value {
        let mut counts: BTreeMap<&str, [u64; 7]> =
            job.groups.iter().map(|group| (group.name.as_str(), [0; 7])).collect();
        for id in self.by_job.get(key).into_iter().flatten() {
            let Some(allocation) = self.allocations.get(id).filter(|a| !a.purged) else { continue };
            let at = match allocation.client_status {
                "complete" => 0,
                "failed" => 1,
                "lost" => 2,
                "running" => 4,
                "pending" => 5,
                _ => 6,
            };
            if let Some(count) = counts.get_mut(allocation.group.as_str()) {
                count[at] += 1;
            }
        }
        if let Some(blocked) = self.blocked.get(key).and_then(|id| self.evaluations.get(id)) {
            for (group, metrics) in &blocked.failed {
                if let Some(count) = counts.get_mut(group.as_str()) {
                    count[3] = 1 + metrics["CoalescedFailures"].as_u64().unwrap_or_default();
                }
            }
        }
        let groups: BTreeMap<&str, Value> = counts
            .into_iter()
            .map(|(group, [complete, failed, lost, queued, running, starting, unknown])| {
                let count = json!({
                    "Complete": complete, "Failed": failed, "Lost": lost, "Queued": queued, "Running": running,
                    "Starting": starting, "Unknown": unknown,
                });
                (group, count)
            })
            .collect();
        json!({
            "Children": {"Dead": 0, "Pending": 0, "Running": 0},
            "CreateIndex": job.create_index,
            "JobID": job.id,
            "ModifyIndex": job.summary_index,
            "Namespace": job.namespace,
            "Summary": groups,
        })
    }

    /// A job in the format of lists.
    pub(super) fn job_stub(&self, key: &Key, job: &Job, meta: bool) -> Value {
        let mut stub = json!({
            "CreateIndex": job.create_index,
            "Datacenters": job.spec["Datacenters"],
            "ID": job.id,
            "JobModifyIndex": job.job_modify_index,
            "JobSummary": null,
            "ModifyIndex": job.modify_index,
            "Multiregion": null,
            "Name": job.spec["Name"],
            "Namespace": job.namespace,
            "NodePool": job.spec["NodePool"],
            "ParameterizedJob": !job.spec["ParameterizedJob"].is_null(),
            "ParentID": "",
            "Periodic": !job.spec["Periodic"].is_null(),
            "Priority": job.priority,
            "Status": job.status,
            "StatusDescription": "",
            "Stop": job.stop,
            "SubmitTime": job.submit_time,
            "Type": job.kind,
        });
        stub["JobSummary"] = self.summary(key, job);
        if meta && !job.meta.is_empty() {
            stub["Meta"] = json!(job.meta);
        }
        stub
    }
}
