//! The placement of allocations on nodes, and why it fails.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Nomad,
    spec::{Constraint, Group},
    state::NodeState,
};

/// The resources that a task group needs, or that a node has left.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    cpu: i64,
    memory: i64,
    disk: i64,
}

impl Room {
    fn of(group: &Group) -> Room {
        let mut room = Room { cpu: 0, memory: 0, disk: group.disk_mb };
        for task in &group.tasks {
            // A core counts as 1,000 MHz.
            room.cpu = room.cpu.saturating_add(task.cpu).saturating_add(task.cores.saturating_mul(1000));
            room.memory = room.memory.saturating_add(task.memory_mb);
        }
        room
    }

    /// The exhausted dimension, in Nomad's order.
    fn exhausted(self, free: Room) -> Option<&'static str> {
        if self.cpu > free.cpu {
            Some("cpu")
        } else if self.memory > free.memory {
            Some("memory")
        } else if self.disk > free.disk {
            Some("disk")
        } else {
            None
        }
    }
}

/// The metrics of a placement, as shown in `FailedTGAllocs`.
#[derive(Debug, Default)]
pub struct Metrics {
    evaluated: u64,
    filtered: u64,
    exhausted: u64,
    in_pool: u64,
    available: BTreeMap<String, u64>,
    constraints: BTreeMap<String, u64>,
    dimensions: BTreeMap<&'static str, u64>,
    resources: Value,
    pool: String,
    coalesced: u64,
}

impl Metrics {
    /// Another allocation of the group that is not even tried.
    pub fn coalesce(&mut self) {
        self.coalesced += 1;
        let tries = i64::try_from(self.coalesced).unwrap_or(i64::MAX);
        for task in self.resources.as_object_mut().into_iter().flatten().map(|(_, task)| task) {
            for name in ["CPU", "DiskMB", "MemoryMB"] {
                let each = task[name].as_i64().unwrap_or_default() / tries;
                task[name] = json!(each.saturating_mul(tries + 1));
            }
        }
    }

    /// In the API's format.
    pub fn json(&self) -> Value {
        let or_null =
            |value: Value| if value.as_object().is_some_and(|o| o.is_empty()) { Value::Null } else { value };
        json!({
            "AllocationTime": 48_563,
            "ClassExhausted": null,
            "ClassFiltered": null,
            "CoalescedFailures": self.coalesced,
            "ConstraintFiltered": or_null(json!(self.constraints)),
            "DimensionExhausted": or_null(json!(self.dimensions)),
            "NodePool": self.pool,
            "NodesAvailable": self.available,
            "NodesEvaluated": self.evaluated,
            "NodesExhausted": self.exhausted,
            "NodesFiltered": self.filtered,
            "NodesInPool": self.in_pool,
            "QuotaExhausted": null,
            "ResourcesExhausted": self.resources,
            "ScoreMetaData": null,
            "Scores": null,
        })
    }
}

impl Nomad {
    /// The node for another allocation of a group: the fullest node with room, like Nomad's bin packing.
    pub(super) fn place(&self, group: &Group) -> Result<String, Box<Metrics>> {
        self.place_without(group, None)
    }

    /// The same, if the same plan stops an allocation and thereby frees its resources.
    pub(super) fn place_without(&self, group: &Group, stopped: Option<&str>) -> Result<String, Box<Metrics>> {
        let wanted = Room::of(group);
        let mut metrics = Metrics { pool: group.pool.clone(), resources: Value::Null, ..Metrics::default() };
        let mut best: Option<(f64, &str)> = None;
        for (name, state) in &self.nodes {
            let node = &state.node;
            if !state.up || state.draining || !(group.pool == "all" || node.pool == group.pool) {
                continue;
            }
            if !group.datacenters.iter().any(|pattern| glob(pattern, &node.datacenter)) {
                continue;
            }
            metrics.in_pool += 1;
            *metrics.available.entry(node.datacenter.clone()).or_default() += 1;
            metrics.evaluated += 1;
            if let Some(reason) = unfit(group, state) {
                metrics.filtered += 1;
                *metrics.constraints.entry(reason).or_default() += 1;
                continue;
            }
            let free = self.free(state, stopped);
            if let Some(dimension) = wanted.exhausted(free) {
                metrics.exhausted += 1;
                *metrics.dimensions.entry(dimension).or_default() += 1;
                metrics.resources = exhausted_resources(group, dimension);
                continue;
            }
            let fullness =
                |free: i64, wanted: i64, all: u64| 1.0 - (free - wanted) as f64 / (all.max(1)) as f64;
            let score = fullness(free.cpu, wanted.cpu, node.cpu)
                + fullness(free.memory, wanted.memory, node.memory_mb);
            if best.is_none_or(|(other, _)| score > other) {
                best = Some((score, name));
            }
        }
        best.map(|(_, name)| name.to_owned()).ok_or_else(|| Box::new(metrics))
    }

    /// The free resources of a node. A stopped allocation counts until its client reports its end.
    fn free(&self, state: &NodeState, stopped: Option<&str>) -> Room {
        let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let node = &state.node;
        let mut free =
            Room { cpu: whole(node.cpu), memory: whole(node.memory_mb), disk: whole(node.disk_mb) };
        for allocation in self.allocations.values() {
            let counts = !allocation.client_terminal() && !allocation.purged;
            if allocation.node == node.name && counts && stopped != Some(allocation.id.as_str()) {
                let used = Room::of(&allocation.spec);
                free.cpu -= used.cpu;
                free.memory -= used.memory;
                free.disk -= used.disk;
            }
        }
        free
    }
}

/// Why a group cannot run on a node even if it is empty, with the text of `ConstraintFiltered`.
fn unfit(group: &Group, state: &NodeState) -> Option<String> {
    if group.tasks.iter().any(|task| !state.node.drivers.contains(&task.driver)) {
        return Some("missing drivers".into());
    }
    let failing = group.constraints.iter().find(|constraint| !satisfied(constraint, state))?;
    Some(format!("{} {} {}", failing.left, failing.operand, failing.right))
}

fn satisfied(constraint: &Constraint, state: &NodeState) -> bool {
    let (left, right) = (resolve(&constraint.left, state), resolve(&constraint.right, state));
    match (constraint.operand.as_str(), left, right) {
        ("distinct_hosts" | "distinct_property", _, _) => true,
        ("is_set", left, _) => left.is_some(),
        ("is_not_set", left, _) => left.is_none(),
        ("!=" | "not", left, right) => left != right,
        (_, None, _) | (_, _, None) => false,
        ("=" | "==" | "is", Some(left), Some(right)) => left == right,
        ("<", Some(left), Some(right)) => left < right,
        ("<=", Some(left), Some(right)) => left <= right,
        (">", Some(left), Some(right)) => left > right,
        (">=", Some(left), Some(right)) => left >= right,
        ("regexp", Some(left), Some(right)) => {
            fancy_regex::Regex::new(&right).is_ok_and(|regex| regex.is_match(&left).unwrap_or(false))
        }
        ("set_contains" | "set_contains_all", Some(left), Some(right)) => {
            right.split(',').all(|wanted| left.split(',').any(|had| had.trim() == wanted.trim()))
        }
        ("set_contains_any", Some(left), Some(right)) => {
            right.split(',').any(|wanted| left.split(',').any(|had| had.trim() == wanted.trim()))
        }
        // Versions are not compared.
        _ => true,
    }
}

/// Resolves `${attr.x}`, `${meta.x}`, `${node.x}` for a node. A literal is itself.
fn resolve(target: &str, state: &NodeState) -> Option<String> {
    let Some(name) = target.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
        return Some(target.to_owned());
    };
    let node = &state.node;
    match name {
        "node.datacenter" => Some(node.datacenter.clone()),
        "node.class" => Some(node.class.clone()),
        "node.pool" => Some(node.pool.clone()),
        "node.unique.name" | "attr.unique.hostname" => Some(node.name.clone()),
        "node.unique.id" => Some(state.id.clone()),
        "node.region" => Some("global".into()),
        // Every Nomad client has these.
        "attr.os.signals" => Some("SIGHUP,SIGINT,SIGKILL,SIGQUIT,SIGTERM,SIGUSR1,SIGUSR2,SIGABRT".into()),
        "attr.nomad.service_discovery" => Some("true".into()),
        _ => match name.split_once('.') {
            Some(("attr", key)) => node.attributes.get(key).cloned(),
            Some(("meta", key)) => node.meta.get(key).cloned(),
            _ => None,
        },
    }
}

/// The resources of the tasks, with only the exhausted dimension set.
fn exhausted_resources(group: &Group, dimension: &str) -> Value {
    let tasks = group.tasks.iter().map(|task| {
        let only = |name: &str, value: i64| if dimension == name { value } else { 0 };
        let resources = json!({
            "CPU": only("cpu", task.cpu), "Cores": 0, "Devices": null, "DiskMB": only("disk", group.disk_mb),
            "IOPS": 0, "MemoryMB": only("memory", task.memory_mb), "MemoryMaxMB": 0, "NUMA": null,
            "Networks": null, "SecretsMB": 0,
        });
        (task.name.clone(), resources)
    });
    Value::Object(tasks.collect())
}

/// Whether a text matches a pattern with `*`.
pub fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(head) else { return false };
    if tail.is_empty() {
        return true;
    }
    loop {
        if glob(tail, rest) {
            return true;
        }
        let mut chars = rest.chars();
        if chars.next().is_none() {
            return false;
        }
        rest = chars.as_str();
    }
}
