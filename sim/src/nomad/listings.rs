//! Lists: prefix, filter, pages, and a token's access (contract, sections 3 and 12).

use std::{
    cmp::Ordering,
    sync::{Arc, PoisonError},
};

use serde_json::{Value, json};

use super::{
    Key, Nomad,
    filter::{self, Filter},
    request::{Exchange, Handled, Refusal, Reply},
    state::Namespace,
    variables, view,
};
use crate::nomad::variables::Shows;

/// The maximum number of cached lists.
const MOST_LISTS: usize = 32;

/// One item of a list: its position, the value for filters, and its JSON.
struct Item<'i> {
    token: String,
    datum: Box<dyn Fn() -> Value + 'i>,
    shown: Box<dyn Fn() -> Arc<str> + 'i>,
}

fn text(value: &Value) -> Arc<str> {
    value.to_string().into()
}

/// The items of a page, and the start of the next one.
fn page(
    exchange: &Exchange<'_>,
    items: Vec<Item<'_>>,
    numbered: bool,
) -> Result<(String, Option<String>), Refusal> {
    let filter: Option<Filter> = exchange
        .param("filter")
        .filter(|text| !text.is_empty())
        .map(filter::parse)
        .transpose()
        .map_err(|error| Refusal::new(400, error))?;
    let per_page: usize = match exchange.param("per_page").filter(|text| !text.is_empty()) {
        None => usize::MAX,
        Some(text) => text
            .parse()
            .map_err(|_| Refusal::new(400, "Expect a number for `per_page` query string parameter"))?,
    };
    let per_page = if per_page == 0 { usize::MAX } else { per_page };
    let start = exchange.param("next_token").unwrap_or_default();
    let mut shown: Vec<Arc<str>> = Vec::new();
    let mut next = None;
    for item in items {
        if !start.is_empty() && compare(&item.token, start, numbered) == Ordering::Less {
            continue;
        }
        let fits = |datum: &Value| match &filter {
            Some(filter) => filter::matches(filter, datum).map_err(|error| Refusal::new(400, error)),
            None => Ok(true),
        };
        if filter.is_some() && !fits(&(item.datum)())? {
            continue;
        }
        if shown.len() == per_page {
            next = Some(item.token);
            break;
        }
        shown.push((item.shown)());
    }
    Ok((format!("[{}]", shown.join(",")), next))
}

/// Tokens are compared as text, or by the index before their dot.
fn compare(token: &str, start: &str, numbered: bool) -> Ordering {
    let parts = |text: &str| -> Option<(u64, String)> {
        let (index, id) = text.split_once('.')?;
        Some((index.parse().ok()?, id.to_owned()))
    };
    match (parts(token), parts(start)) {
        (Some(a), Some(b)) if numbered => a.cmp(&b),
        _ => token.cmp(start),
    }
}

impl Nomad {
    /// Whether an item of this namespace belongs to the list.
    fn listed(&self, exchange: &Exchange<'_>, namespace: &str, capability: &str) -> bool {
        match exchange.namespace() {
            "*" => exchange.access.namespace(namespace, &[capability]),
            wanted => wanted == namespace,
        }
    }

    /// A list of one namespace needs the capability there. A list of all shows what the token can see.
    fn may_list(&self, exchange: &Exchange<'_>, capability: &str) -> Result<(), Refusal> {
        if exchange.namespace() == "*" { Ok(()) } else { exchange.may(&[capability]) }
    }

    pub(super) fn list_jobs(&self, exchange: &Exchange<'_>) -> Handled {
        self.may_list(exchange, "list-jobs")?;
        let meta = exchange.flag("meta", false)?;
        let prefix = exchange.param("prefix").unwrap_or_default();
        let items = self
            .jobs
            .iter()
            .filter(|(key, _)| key.1.starts_with(prefix) && self.listed(exchange, &key.0, "list-jobs"))
            .map(|(key, job)| Item {
                token: format!("{}.{}", key.0, key.1),
                datum: Box::new(move || view::job(job)),
                shown: Box::new(move || text(&self.job_stub(key, job, meta))),
            });
        let (list, next) = page(exchange, items.collect(), false)?;
        Ok(Reply::text(200, "application/json", list).query(self.tables.jobs).next(next))
    }

    pub(super) fn list_allocations(&self, exchange: &Exchange<'_>, job: Option<&str>) -> Handled {
        self.may_list(exchange, "read-job")?;
        let states = exchange.flag("task_states", true)?;
        let prefix = exchange.param("prefix").unwrap_or_default();
        if !prefix.is_empty() {
            check_prefix("alloc", prefix)?;
        }
        let mut allocations: Vec<&super::Allocation> = match job {
            Some(id) => {
                let key: Key = (exchange.namespace().to_owned(), id.to_owned());
                let ids = self.by_job.get(&key).into_iter().flatten();
                ids.filter_map(|id| self.allocations.get(id)).collect()
            }
            None => self.allocations.values().collect(),
        };
        allocations.retain(|a| {
            !a.purged && a.id.starts_with(prefix) && self.listed(exchange, &a.namespace, "read-job")
        });
        allocations.sort_by(|a, b| (a.create_index, &a.id).cmp(&(b.create_index, &b.id)));
        // Data that a filter does not use need not be generated.
        let of_tasks = states && exchange.param("filter").is_some_and(|filter| filter.contains("TaskStates"));
        let items = allocations.into_iter().map(|allocation| Item {
            token: format!("{}.{}", allocation.create_index, allocation.id),
            datum: Box::new(move || view::allocation_stub(allocation, of_tasks)),
            shown: Box::new(move || self.stub(allocation, states)),
        });
        let (list, next) = page(exchange, items.collect(), true)?;
        Ok(Reply::text(200, "application/json", list).query(self.tables.allocations).next(next))
    }

    /// A repeated request for a list gets the same list until something changes. With ACLs, it is generated each
    /// time.
    pub(super) fn listed_once(&self, exchange: &Exchange<'_>, list: impl Fn(&Nomad) -> Handled) -> Handled {
        if self.options.acl {
            return list(self);
        }
        let address = exchange.address();
        let known = {
            let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
            lists.get(&address).filter(|(index, _)| *index == self.index).map(|(_, reply)| reply.clone())
        };
        if let Some(reply) = known {
            if cfg!(test) {
                assert!(list(self).is_ok_and(|fresh| fresh == reply), "changed without an index: {address}");
            }
            return Ok(reply);
        }
        let reply = list(self)?;
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if lists.len() >= MOST_LISTS {
            lists.clear();
        }
        lists.insert(address, (self.index, reply.clone()));
        Ok(reply)
    }

    /// An allocation in a list, generated once for each of its changes, which have different indexes.
    fn stub(&self, allocation: &super::Allocation, states: bool) -> Arc<str> {
        let mut stubs = self.stubs.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || text(&view::allocation_stub(allocation, states));
        match stubs.get(&(allocation.id.clone(), states)) {
            Some((index, stub)) if *index == allocation.modify_index => {
                if cfg!(test) {
                    assert_eq!(**stub, *fresh(), "changed without an index");
                }
                Arc::clone(stub)
            }
            _ => {
                let stub = fresh();
                stubs.insert((allocation.id.clone(), states), (allocation.modify_index, Arc::clone(&stub)));
                stub
            }
        }
    }

    pub(super) fn get_allocation(&self, exchange: &Exchange<'_>, id: &str) -> Handled {
        check_id("alloc", id)?;
        let missing = || Refusal::new(404, "alloc not found").query(self.tables.allocations);
        let allocation = self.allocations.get(id).filter(|a| !a.purged).ok_or_else(missing)?;
        if !exchange.access.namespace(&allocation.namespace, &["read-job"]) {
            return Err(Refusal::denied());
        }
        let mut object = view::allocation(allocation);
        let key: Key = (allocation.namespace.clone(), allocation.job_id.clone());
        if let Some(job) = self.jobs.get(&key) {
            object["Job"] = view::job(job);
        }
        Ok(Reply::json(&object).query(allocation.modify_index))
    }

    pub(super) fn list_evaluations(&self, exchange: &Exchange<'_>) -> Handled {
        self.may_list(exchange, "read-job")?;
        let prefix = exchange.param("prefix").unwrap_or_default();
        let (job, status) = (exchange.param("job"), exchange.param("status"));
        let mut evaluations: Vec<&super::Evaluation> = self
            .evaluations
            .values()
            .filter(|e| self.listed(exchange, &e.namespace, "read-job") && e.id.starts_with(prefix))
            .filter(|e| job.is_none_or(|job| job.is_empty() || e.job_id == job))
            .filter(|e| status.is_none_or(|status| status.is_empty() || e.status == status))
            .collect();
        evaluations.sort_by(|a, b| (a.create_index, &a.id).cmp(&(b.create_index, &b.id)));
        let items = evaluations.into_iter().map(|evaluation| Item {
            token: format!("{}.{}", evaluation.create_index, evaluation.id),
            datum: Box::new(move || view::evaluation_datum(evaluation)),
            shown: Box::new(move || text(&view::evaluation(evaluation))),
        });
        let (list, next) = page(exchange, items.collect(), true)?;
        Ok(Reply::text(200, "application/json", list).query(self.tables.evaluations).next(next))
    }

    pub(super) fn get_evaluation(&self, exchange: &Exchange<'_>, id: &str) -> Handled {
        check_id("failed to lookup eval: eval", id)?;
        let missing = || Refusal::new(404, "eval not found").query(self.tables.evaluations);
        let evaluation = self.evaluations.get(id).ok_or_else(missing)?;
        if !exchange.access.namespace(&evaluation.namespace, &["read-job"]) {
            return Err(Refusal::denied());
        }
        Ok(Reply::json(&view::evaluation(evaluation)).query(evaluation.modify_index))
    }

    /// A job's evaluations, ordered by ID. The last one is not necessarily the newest.
    pub(super) fn job_evaluations(&self, key: &Key) -> Reply {
        let mine = self.evaluations.values().filter(|e| e.namespace == key.0 && e.job_id == key.1);
        let list: Vec<Value> = mine.map(view::evaluation).collect();
        Reply::json(&json!(list)).query(self.tables.evaluations)
    }

    /// Without permission, the list is empty instead of refused (contract, section 7).
    pub(super) fn list_variables(&self, exchange: &Exchange<'_>) -> Handled {
        let prefix = exchange.param("prefix").unwrap_or_default();
        let wanted = exchange.namespace();
        let items = self
            .variables
            .iter()
            .filter(|(key, _)| key.1.starts_with(prefix) && (wanted == "*" || wanted == key.0))
            .filter(|(key, _)| exchange.access.variable(&key.0, &key.1, "list"))
            .map(|(key, variable)| Item {
                token: format!("{}.{}", key.0, key.1),
                datum: Box::new(move || variables::json(variable, Shows::NO_ITEMS)),
                shown: Box::new(move || {
                    let shows = Shows { items: false, lock: exchange.access.all };
                    text(&variables::json(variable, shows))
                }),
            });
        let (list, next) = page(exchange, items.collect(), false)?;
        Ok(Reply::text(200, "application/json", list).query(self.tables.variables.max(1)).next(next))
    }

    pub(super) fn list_nodes(&self, exchange: &Exchange<'_>) -> Handled {
        if !exchange.access.all {
            return Err(Refusal::denied());
        }
        let nodes: Vec<Value> = self.nodes.values().map(node).collect();
        Ok(Reply::json(&json!(nodes)).query(self.tables.nodes))
    }

    pub(super) fn get_node(&self, exchange: &Exchange<'_>, id: &str) -> Handled {
        if !exchange.access.all {
            return Err(Refusal::denied());
        }
        check_id("node", id)?;
        let found = self.nodes.values().find(|state| state.id == id);
        let found = found.ok_or_else(|| Refusal::new(404, "node not found").query(self.tables.nodes))?;
        Ok(Reply::json(&node(found)).query(found.modify_index))
    }

    /// `/v1/client/fs/logs/ALLOC` (contract, section 5). The existence of the allocation is checked before the token.
    pub(super) fn logs(&self, exchange: &Exchange<'_>, id: &str) -> Handled {
        let bad = |text: &str| Refusal::new(400, text);
        if id.is_empty() {
            return Err(bad("must provide a valid alloc id"));
        }
        let task = exchange.param("task").filter(|task| !task.is_empty());
        let task = task.ok_or_else(|| bad("must provide task name"))?;
        let stdout = match exchange.param("type") {
            Some("stdout") => true,
            Some("stderr") => false,
            _ => return Err(bad("must provide log type (stdout/stderr)")),
        };
        let offset = exchange.param("offset").filter(|text| !text.is_empty());
        let offset: i64 = offset.unwrap_or("0").parse().map_err(|_| {
            let text = exchange.param("offset").unwrap_or_default();
            bad(&format!("error parsing offset: strconv.ParseInt: parsing {text:?}: invalid syntax"))
        })?;
        let from_end = match exchange.param("origin").filter(|text| !text.is_empty()) {
            None | Some("start") => false,
            Some("end") => true,
            Some(_) => return Err(bad("origin must be start or end")),
        };
        check_id("alloc", id)?;
        let unknown = || Refusal::new(404, format!("Unknown allocation {id:?}"));
        let allocation = self.allocations.get(id).filter(|a| !a.purged).ok_or_else(unknown)?;
        if !exchange.access.namespace(&allocation.namespace, &["read-logs", "read-fs"]) {
            return Err(Refusal::denied());
        }
        let state = allocation.client.tasks.iter().find(|state| state.name == task);
        let state = state.ok_or_else(|| bad(&format!("unknown task name {task:?}")))?;
        if state.started_at.is_none() {
            return Err(Refusal::new(404, format!("task {task:?} not started yet. No logs available")));
        }
        let log = if stdout { self.logs.get(&(id.to_owned(), task.to_owned())).cloned() } else { None };
        let log = log.unwrap_or_default().into_bytes();
        let offset = usize::try_from(offset.max(0)).unwrap_or(usize::MAX);
        let start = if from_end { log.len().saturating_sub(offset) } else { offset.min(log.len()) };
        Ok(Reply::text(200, "text/plain", &log[start..]))
    }

    pub(super) fn put_namespace(&mut self, name: &str, description: &str) {
        let index = self.next_index();
        self.tables.namespaces = index;
        let fresh = Namespace {
            name: name.into(),
            description: String::new(),
            create_index: index,
            modify_index: index,
        };
        let namespace = self.namespaces.entry(name.to_owned()).or_insert(fresh);
        namespace.description = description.to_owned();
        namespace.modify_index = index;
    }
}

fn node(state: &super::state::NodeState) -> Value {
    let drivers: serde_json::Map<String, Value> = state
        .node
        .drivers
        .iter()
        .map(|driver| {
            (driver.clone(), json!({"Detected": true, "Healthy": true, "HealthDescription": "Healthy"}))
        })
        .collect();
    json!({
        "Address": "127.0.0.1", "CreateIndex": 8, "Datacenter": state.node.datacenter,
        "Drain": state.draining, "Drivers": drivers, "ID": state.id, "ModifyIndex": state.modify_index,
        "Name": state.node.name, "NodeClass": state.node.class, "NodePool": state.node.pool,
        "SchedulingEligibility": if state.draining { "ineligible" } else { "eligible" },
        "Status": if state.up { "ready" } else { "down" }, "StatusDescription": "", "Version": "2.0.5",
    })
}

pub(super) fn check_id(what: &str, id: &str) -> Result<(), Refusal> {
    if id.len() == 36 {
        return Ok(());
    }
    Err(Refusal::new(500, format!("{what} lookup failed: index error: UUID must be 36 characters")))
}

fn check_prefix(what: &str, prefix: &str) -> Result<(), Refusal> {
    let digits: Vec<char> = prefix.chars().filter(|c| *c != '-').collect();
    let error = if let Some(bad) = digits.iter().find(|c| !c.is_ascii_hexdigit()) {
        format!("Invalid UUID: encoding/hex: invalid byte: U+{:04X} '{bad}'", u32::from(*bad))
    } else if digits.len() % 2 == 1 {
        "Input (without hyphens) must be even length".to_owned()
    } else {
        return Ok(());
    };
    Err(Refusal::new(500, format!("{what} lookup failed: index error: {error}")))
}
