//! Variables and their locks (contract, section 8).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Due, Key, Nomad, gotime,
    gotime::Nanos,
    request::Refusal,
    state::{Lock, Variable},
};

const SECOND: Nanos = 1_000_000_000;
const DEFAULT_TTL: Nanos = 15 * SECOND;
const LARGEST: usize = 64 * 1024;

/// The lock operation of a `PUT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockOperation {
    /// None: the items are written.
    None,
    /// `lock-acquire`
    Acquire,
    /// `lock-renew`
    Renew,
    /// `lock-release`
    Release,
}

/// The response to a conflict.
pub enum Conflict {
    /// 409 with the current variable.
    Found(Value),
    /// Anything else.
    Refused(Refusal),
}

/// A parsed body.
pub struct Wanted {
    /// The items, if given.
    pub items: Option<BTreeMap<String, String>>,
    lock: Option<WantedLock>,
}

struct WantedLock {
    id: String,
    ttl: Option<Nanos>,
    delay: Option<Nanos>,
}

/// Parses a body.
///
/// # Errors
/// 400 with the text of Go's decoder.
pub fn wanted(body: &Value) -> Result<Wanted, Refusal> {
    let items = match &body["Items"] {
        Value::Null => None,
        Value::Object(map) => {
            let mut items = BTreeMap::new();
            for (key, value) in map {
                let text = match value {
                    Value::String(text) => text.clone(),
                    Value::Null => String::new(),
                    other => {
                        let kind = super::canonical::go_kind(other);
                        return Err(Refusal::new(
                            400,
                            format!(
                                "json: cannot unmarshal {kind} into Go struct field VariableDecrypted.Items of type string"
                            ),
                        ));
                    }
                };
                items.insert(key.clone(), text);
            }
            Some(items)
        }
        other => {
            let kind = super::canonical::go_kind(other);
            return Err(Refusal::new(
                400,
                format!(
                    "json: cannot unmarshal {kind} into Go struct field VariableDecrypted.Items of type structs.VariableItems"
                ),
            ));
        }
    };
    let duration = |value: &Value| match value {
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => gotime::parse(text).map(Some).map_err(|error| Refusal::new(400, error)),
        other => Ok(other.as_i64()),
    };
    let lock = match &body["Lock"] {
        Value::Object(lock) => Some(WantedLock {
            id: lock.get("ID").and_then(Value::as_str).unwrap_or_default().to_owned(),
            ttl: duration(lock.get("TTL").unwrap_or(&Value::Null))?,
            delay: duration(lock.get("LockDelay").unwrap_or(&Value::Null))?,
        }),
        _ => None,
    };
    Ok(Wanted { items, lock })
}

/// Checks a path, with Nomad's errors.
pub fn check_path(path: &str) -> Result<(), Refusal> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_~/".contains(c);
    if path.is_empty() || path.len() > 128 || !path.chars().all(fits) {
        return Err(Refusal::new(400, format!("RPC Error:: 400,invalid path {path:?}")));
    }
    let mut parts = path.split('/');
    if parts.next() == Some("nomad") && !matches!(parts.next(), None | Some("jobs" | "job-templates")) {
        return Err(Refusal::new(
            400,
            "RPC Error:: 400,only paths at \"nomad/jobs\" or \"nomad/job-templates\" and below are valid paths under the top-level \"nomad\" directory",
        ));
    }
    Ok(())
}

/// What a response shows of a variable besides its metadata.
#[derive(Clone, Copy, Debug)]
pub struct Shows {
    pub items: bool,
    /// Only management tokens can see the lock.
    pub lock: bool,
}

impl Shows {
    pub const ALL: Shows = Shows { items: true, lock: true };
    /// A list's row.
    pub const NO_ITEMS: Shows = Shows { items: false, lock: true };
}

/// A variable in the API's format.
pub fn json(variable: &Variable, shows: Shows) -> Value {
    let Shows { items, lock } = shows;
    let mut object = Map::new();
    object.insert("CreateIndex".into(), json!(variable.create_index));
    object.insert("CreateTime".into(), json!(variable.create_time));
    if items && !variable.items.is_empty() {
        object.insert("Items".into(), json!(variable.items));
    }
    if let Some(held) = variable.lock.as_ref().filter(|_| lock) {
        let lock = json!({
            "TTL": gotime::format(held.ttl), "LockDelay": gotime::format(held.delay), "ID": held.id,
        });
        object.insert("Lock".into(), lock);
    }
    object.insert("ModifyIndex".into(), json!(variable.modify_index));
    object.insert("ModifyTime".into(), json!(variable.modify_time));
    object.insert("Namespace".into(), json!(variable.namespace));
    object.insert("Path".into(), json!(variable.path));
    Value::Object(object)
}

/// The response to a conflict with another holder's lock, which shows nothing.
fn hidden(key: &Key) -> Conflict {
    Conflict::Found(json!({
        "CreateIndex": 0, "CreateTime": 0, "ModifyIndex": 0, "ModifyTime": 0, "Namespace": key.0, "Path": key.1,
    }))
}

impl Nomad {
    /// `PUT /v1/var/PATH`. Returns the variable for the response and whether a Raft write took place.
    ///
    /// # Errors
    /// A conflict, or an invalid request.
    pub(super) fn put_variable(
        &mut self,
        key: &Key,
        wanted: Wanted,
        operation: LockOperation,
        cas: Option<u64>,
    ) -> Result<Value, Conflict> {
        match operation {
            LockOperation::None => self.write_variable(key, wanted, cas),
            LockOperation::Acquire => self.acquire(key, wanted),
            LockOperation::Renew => self.renew(key, &wanted),
            LockOperation::Release => self.release_lock(key, &wanted),
        }
    }

    fn write_variable(&mut self, key: &Key, wanted: Wanted, cas: Option<u64>) -> Result<Value, Conflict> {
        let items = wanted.items.unwrap_or_default();
        let size: usize = items.iter().map(|(k, v)| k.len() + v.len()).sum();
        if size > LARGEST {
            return Err(Conflict::Refused(Refusal::new(
                400,
                "RPC Error:: 400,variables are limited to 64KiB in total size",
            )));
        }
        self.conflict(key, wanted.lock.as_ref(), cas)?;
        let lock = wanted.lock.map(|_| ());
        let variable = self.store(key, items);
        // Writing under a lock without specifying its times resets them to the defaults.
        if let Some(held) = variable.lock.as_mut().filter(|_| lock.is_some()) {
            held.ttl = DEFAULT_TTL;
            held.delay = DEFAULT_TTL;
        }
        let answer = json(variable, Shows::ALL);
        self.variable_changed(&key.0, &key.1);
        Ok(answer)
    }

    /// The check before a write or a deletion: first the lock, then the index.
    fn conflict(&self, key: &Key, lock: Option<&WantedLock>, cas: Option<u64>) -> Result<(), Conflict> {
        let found = self.variables.get(key);
        if let Some(wanted) = cas {
            let index = found.map_or(0, |variable| variable.modify_index);
            if index != wanted {
                return Err(
                    found.map_or_else(|| hidden(key), |variable| Conflict::Found(json(variable, Shows::ALL)))
                );
            }
        }
        let holder = found.and_then(|variable| variable.lock.as_ref());
        match (holder, lock) {
            (Some(held), Some(given)) if held.id == given.id => Ok(()),
            (Some(_), _) => Err(hidden(key)),
            (None, Some(given)) if !given.id.is_empty() => Err(hidden(key)),
            (None, _) => Ok(()),
        }
    }

    fn store(&mut self, key: &Key, items: BTreeMap<String, String>) -> &mut Variable {
        let index = self.next_index();
        self.tables.variables = index;
        let now = self.now;
        let variable = self.variables.entry(key.clone()).or_insert_with(|| Variable {
            namespace: key.0.clone(),
            path: key.1.clone(),
            items: BTreeMap::new(),
            create_index: index,
            modify_index: index,
            create_time: now,
            modify_time: now,
            lock: None,
        });
        variable.items = items;
        variable.modify_index = index;
        variable.modify_time = now;
        variable
    }

    fn acquire(&mut self, key: &Key, wanted: Wanted) -> Result<Value, Conflict> {
        let (given, ttl, delay) = match &wanted.lock {
            Some(lock) => (lock.id.clone(), lock.ttl, lock.delay),
            None => (String::new(), None, None),
        };
        let positive = |span: Option<Nanos>| span.filter(|span| *span != 0).unwrap_or(DEFAULT_TTL);
        let (ttl, delay) = (positive(ttl), positive(delay));
        if !(10 * SECOND..=86_400 * SECOND).contains(&ttl) {
            let errors = super::validate::multierror(&["TTL must be between 10 seconds and 24 hours".into()]);
            return Err(Conflict::Refused(Refusal::new(400, format!("RPC Error:: 400,{errors}"))));
        }
        let held =
            self.variables.get(key).and_then(|variable| variable.lock.as_ref()).map(|lock| lock.id.clone());
        let free = match &held {
            Some(id) => *id == given,
            None => self.lock_delays.get(key).is_none_or(|until| *until <= self.now),
        };
        if !free {
            return Err(hidden(key));
        }
        self.lock_delays.remove(key);
        let id = match held {
            Some(id) => id,
            None => self.new_id(),
        };
        let expires = self.now.saturating_add(ttl.saturating_mul(2));
        let variable = self.store(key, wanted.items.unwrap_or_default());
        variable.lock = Some(Lock { id, ttl, delay, expires });
        let answer = json(variable, Shows::ALL);
        self.at(expires, Due::Lock(key.clone()));
        self.variable_changed(&key.0, &key.1);
        Ok(answer)
    }

    fn renew(&mut self, key: &Key, wanted: &Wanted) -> Result<Value, Conflict> {
        let refused = |status, text: &str| Err(Conflict::Refused(Refusal::new(status, text)));
        let id = wanted.lock.as_ref().map(|lock| lock.id.clone()).unwrap_or_default();
        if id.is_empty() {
            return refused(500, &super::validate::multierror(&["missing lock ID".into()]));
        }
        let now = self.now;
        let Some(variable) = self.variables.get_mut(key) else {
            return refused(404, "variable doesn't exist");
        };
        let Some(lock) = variable.lock.as_mut() else { return refused(409, "variable doesn't hold a lock") };
        if lock.id != id {
            return refused(409, "attempting to modify locked variable");
        }
        lock.expires = now.saturating_add(lock.ttl.saturating_mul(2));
        let expires = lock.expires;
        let answer = json(variable, Shows::NO_ITEMS);
        self.at(expires, Due::Lock(key.clone()));
        Ok(answer)
    }

    fn release_lock(&mut self, key: &Key, wanted: &Wanted) -> Result<Value, Conflict> {
        let refused = |status, text: &str| Err(Conflict::Refused(Refusal::new(status, text)));
        let Some(given) = &wanted.lock else {
            return refused(400, "RPC Error:: 400,missing lock information");
        };
        let index = self.index + 1;
        let Some(variable) = self.variables.get_mut(key) else {
            return refused(404, "variable doesn't exist");
        };
        let Some(lock) = &variable.lock else { return refused(500, "variable doesn't hold a lock") };
        if lock.id != given.id {
            return Err(hidden(key));
        }
        variable.lock = None;
        variable.modify_index = index;
        let answer = json(variable, Shows::NO_ITEMS);
        self.index = index;
        self.tables.variables = index;
        Ok(answer)
    }

    /// Twice the TTL has passed without a renewal. The lock has no holder, and cannot be acquired during the
    /// delay.
    pub(super) fn expire_lock(&mut self, key: &Key) {
        let now = self.now;
        let index = self.index + 1;
        let Some(variable) = self.variables.get_mut(key) else { return };
        let Some(lock) = variable.lock.as_ref().filter(|lock| lock.expires <= now) else { return };
        let until = now.saturating_add(lock.delay);
        variable.lock = None;
        variable.modify_index = index;
        self.index = index;
        self.tables.variables = index;
        self.lock_delays.insert(key.clone(), until);
    }

    /// `DELETE /v1/var/PATH`. Deleting a missing variable succeeds.
    ///
    /// # Errors
    /// A conflict.
    pub(super) fn remove_variable(&mut self, key: &Key, cas: Option<u64>) -> Result<(), Conflict> {
        self.conflict(key, None, cas)?;
        self.next_index();
        self.tables.variables = self.index;
        self.variables.remove(key);
        Ok(())
    }
}
