//! The seal on a runner's Meta: permission to register jobs is not sufficient to create one that counts as ours.
//!
//! A Meta counts only with a MAC (HMAC-SHA256) with the key in the variable `githubrunner/PREFIX/key`, over the job's
//! ID and everything in the Meta, and only on a job with the ID derived from the Meta. The key is created once; if it
//! is deleted, a new one is created. A job that has not been registered again since the current key was created is
//! taken over once:
//!
//! - by its MAC with the previous key, if the process that created the current key knew that one: the variable was
//!   deleted to force a new key;
//! - otherwise by deployment and ID alone, as in the version without seals: the current key is the first of this
//!   deployment.

use std::fmt;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD as BASE64, URL_SAFE_NO_PAD as URL_SAFE},
};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};

use super::error::Error;
use crate::{
    model::{ForeignReason, Namespace, Purpose, Registration, RunnerMeta, runner_name},
    secret::Secret,
};

/// The length of a key, in bytes: that of the hash.
const KEY_LENGTH: usize = 32;

/// The first field of the sealed text, so that a MAC with this key for another purpose is not valid here.
const PURPOSE: &str = "githubrunner runner";

/// The key of a deployment, as in its variable.
#[derive(Clone)]
pub(super) struct Key {
    current: hmac::Key,
    text: Secret,
    previous: Option<hmac::Key>,
    /// The variable's CreateIndex. Indices of one cluster give the order of events, whatever the clocks say.
    created: u64,
}

/// When a job was created and changed, by the cluster's indices.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct History {
    /// CreateIndex.
    pub(super) created: u64,
    /// JobModifyIndex. Registering a job again changes it, and so does stopping it.
    pub(super) modified: u64,
    /// Told to stop.
    pub(super) stopped: bool,
    /// In a namespace other than the daemon's own. Runners there have always been sealed.
    pub(super) elsewhere: bool,
}

impl Key {
    /// From the texts in a variable that was created at this index; `None` if one of them is not a key.
    pub(super) fn new(text: &str, previous: Option<&str>, created: u64) -> Option<Key> {
        let previous = match previous {
            Some(text) => Some(key(text)?),
            None => None,
        };
        Some(Key { current: key(text)?, text: Secret::new(text), previous, created })
    }

    /// The text of a new key.
    pub(super) fn random() -> Result<Secret, Error> {
        let mut bytes = [0; KEY_LENGTH];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| Error::Seal("the system has no random numbers for a new key".to_owned()))?;
        Ok(Secret::new(BASE64.encode(bytes)))
    }

    /// Its text, for the variable of the key that replaces it.
    pub(super) fn text(&self) -> &Secret {
        &self.text
    }

    /// The MAC of a Meta on the job with this ID.
    pub(super) fn seal(&self, name: &str, meta: &RunnerMeta) -> String {
        URL_SAFE.encode(hmac::sign(&self.current, &sealed(name, meta)))
    }

    /// Whether a Meta has this key's MAC.
    pub(super) fn has_sealed(&self, name: &str, meta: &RunnerMeta) -> bool {
        is_sealed_by(&self.current, name, meta)
    }

    /// Whether the Meta has this key's MAC, or the job is taken over.
    pub(super) fn check(&self, name: &str, meta: &RunnerMeta, history: History) -> Result<(), ForeignReason> {
        if self.has_sealed(name, meta) {
            return Ok(());
        }
        // Stopping a job does not change what it is.
        let unchanged = history.modified < self.created || history.stopped;
        let is_older = history.created < self.created && unchanged;
        match &self.previous {
            None if is_older && !history.elsewhere => Ok(()),
            Some(previous) if is_older && is_sealed_by(previous, name, meta) => Ok(()),
            _ if meta.mac.is_none() => Err(ForeignReason::Unsealed),
            _ => Err(ForeignReason::WrongSeal),
        }
    }
}

/// Shows neither the key nor anything that could reveal it.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(***, created at index {})", self.created)
    }
}

fn key(text: &str) -> Option<hmac::Key> {
    let bytes = BASE64.decode(text).ok()?;
    (bytes.len() == KEY_LENGTH).then(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

/// In constant time.
fn is_sealed_by(key: &hmac::Key, name: &str, meta: &RunnerMeta) -> bool {
    let mac = meta.mac.as_deref().and_then(|mac| URL_SAFE.decode(mac).ok());
    mac.is_some_and(|mac| hmac::verify(key, &sealed(name, meta), &mac).is_ok())
}

/// The text that the MAC covers: each present field with its name, and each text with its length before it, so that
/// two different Metas never give the same text. A field that is added later adds a line if it is present, and
/// nothing otherwise.
fn sealed(name: &str, meta: &RunnerMeta) -> Vec<u8> {
    let RunnerMeta {
        labelsstr,
        repo_url,
        // Names the version that wrote it, and has no effect.
        version: _,
        deployment,
        repo_id,
        purpose,
        attempt,
        registration,
        task,
        asks,
        class,
        mac: _,
    } = meta;
    let fields = [
        ("purpose", Some(PURPOSE.to_owned())),
        ("name", Some(name.to_owned())),
        ("labels", Some(labelsstr.clone())),
        ("repository", Some(repo_url.clone())),
        ("instance", deployment.clone()),
        ("repository ID", repo_id.map(|id| id.0.to_string())),
        ("job", purpose.as_ref().and_then(Purpose::job_id).map(|id| id.to_string())),
        ("warm", purpose.as_ref().and_then(Purpose::warm).map(|warm| serde_json::json!(warm).to_string())),
        ("attempt", attempt.map(|attempt| attempt.to_string())),
        ("registration", registration.as_ref().map(Registration::to_string)),
        ("task", task.clone()),
        ("asks", asks.as_ref().map(|asks| serde_json::json!(asks).to_string())),
        ("class", class.clone()),
    ];
    let mut text = String::new();
    for (field, value) in fields {
        if let Some(value) = value {
            text.push_str(&format!("{field} {} {value}\n", value.len()));
        }
    }
    text.into_bytes()
}

/// Whether a job has the ID derived from its Meta.
pub(super) fn has_its_name(
    prefix: &str,
    namespace: Option<&Namespace>,
    name: &str,
    meta: &RunnerMeta,
) -> bool {
    let RunnerMeta { deployment: Some(deployment), purpose: Some(purpose), attempt: Some(attempt), .. } =
        meta
    else {
        return false;
    };
    let repository = meta.repository();
    repository.is_some_and(|own| {
        name == runner_name(prefix, deployment, namespace, &own.full_name(), purpose.clone(), *attempt)
    })
}

/// A sealed Meta for tests with scripted Nomads.
#[cfg(test)]
pub(crate) mod sample {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{JobId, RepositoryId};

    /// The key of [`meta`]'s seal.
    const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    /// The job ID of [`meta`] with the deployment "i".
    pub(crate) const NAME: &str = "ghr-o-r-653s2utuoiw6qcj";

    /// The content of the variable `githubrunner/ghr/key`.
    pub(crate) fn key_variable() -> Value {
        json!({ "Items": { "key": KEY }, "CreateIndex": 10 })
    }

    /// Its content before that.
    pub(crate) fn earlier_key_variable() -> Value {
        json!({ "Items": { "key": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" }, "CreateIndex": 5 })
    }

    /// The Meta of attempt 1 at job 7 of o/r, sealed, with the prefix "ghr".
    pub(crate) fn meta(deployment: &str) -> RunnerMeta {
        runner(deployment, None).1
    }

    /// The name and the Meta of that runner in a namespace.
    pub(crate) fn runner(deployment: &str, namespace: Option<&Namespace>) -> (String, RunnerMeta) {
        let meta = RunnerMeta {
            repo_url: "https://github.com/o/r".to_owned(),
            deployment: Some(deployment.to_owned()),
            repo_id: Some(RepositoryId(1)),
            purpose: Some(JobId(7).into()),
            attempt: Some(1),
            ..RunnerMeta::default()
        };
        let name = runner_name("ghr", deployment, namespace, "o/r", JobId(7), 1);
        let key = Key::new(KEY, None, 10).expect("it is one");
        let mac = Some(key.seal(&name, &meta));
        (name, RunnerMeta { mac, ..meta })
    }

    /// The stub of its job, created after the key.
    pub(crate) fn stub(name: &str, status: &str, meta: &RunnerMeta) -> Value {
        let meta = serde_json::to_string(meta).expect("it is data");
        json!({
            "ID": name, "Status": status, "SubmitTime": 1, "CreateIndex": 11, "JobModifyIndex": 11,
            "Meta": { "runner": meta },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Asks, JobId, RepositoryId, Warm};

    const TEXT: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const OTHER: &str = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn meta() -> RunnerMeta {
        RunnerMeta {
            labelsstr: "a,b".to_owned(),
            repo_url: "https://github.com/o/r".to_owned(),
            version: "1".to_owned(),
            deployment: Some("i".to_owned()),
            repo_id: Some(RepositoryId(1)),
            purpose: Some(JobId(7).into()),
            attempt: Some(1),
            registration: Some(Registration::Jit),
            task: None,
            asks: None,
            class: None,
            mac: None,
        }
    }

    fn sealed_by(key: &Key, name: &str, meta: RunnerMeta) -> RunnerMeta {
        RunnerMeta { mac: Some(key.seal(name, &meta)), ..meta }
    }

    /// Created after the key of index 10.
    const NEW: History = History { created: 11, modified: 11, stopped: false, elsewhere: false };
    /// Created before it.
    const OLD: History = History { created: 5, modified: 5, stopped: false, elsewhere: false };

    #[test]
    fn a_seal_covers_one_job_and_its_whole_meta() {
        let key = Key::new(TEXT, None, 10).unwrap();
        let good = sealed_by(&key, "n", meta());
        assert_eq!(key.check("n", &good, NEW), Ok(()));
        assert_eq!(key.check("other", &good, NEW), Err(ForeignReason::WrongSeal));
        let changes: [fn(&mut RunnerMeta); 9] = [
            |meta| meta.labelsstr = "a".to_owned(),
            |meta| meta.repo_url = "https://github.com/o/other".to_owned(),
            |meta| meta.deployment = Some("j".to_owned()),
            |meta| meta.repo_id = Some(RepositoryId(2)),
            |meta| meta.purpose = Some(JobId(8).into()),
            |meta| meta.purpose = Some(Purpose::Warm(Warm::default())),
            |meta| meta.attempt = Some(2),
            |meta| meta.registration = None,
            |meta| meta.asks = Some(Asks::default()),
        ];
        for change in changes {
            let mut changed = good.clone();
            change(&mut changed);
            assert_eq!(key.check("n", &changed, NEW), Err(ForeignReason::WrongSeal), "{changed:?}");
        }
        let other = Key::new(OTHER, None, 10).unwrap();
        assert_eq!(other.check("n", &good, NEW), Err(ForeignReason::WrongSeal));
        for mac in ["", "!", &good.mac.clone().unwrap()[1..]] {
            let cut = RunnerMeta { mac: Some(mac.to_owned()), ..meta() };
            assert_eq!(key.check("n", &cut, NEW), Err(ForeignReason::WrongSeal), "{mac}");
        }
        assert_eq!(key.check("n", &meta(), NEW), Err(ForeignReason::Unsealed));
    }

    #[test]
    fn a_text_cannot_imitate_two_fields() {
        let one = RunnerMeta { labelsstr: "a\nrepository 1 b".to_owned(), ..meta() };
        let two = RunnerMeta { labelsstr: "a".to_owned(), repo_url: "b\n".to_owned(), ..meta() };
        assert_ne!(sealed("n", &one), sealed("n", &two));
    }

    #[test]
    fn the_first_key_takes_over_older_jobs_that_were_not_registered_again() {
        let key = Key::new(TEXT, None, 10).unwrap();
        assert_eq!(key.check("n", &meta(), OLD), Ok(()));
        // Stopped by us since.
        assert_eq!(key.check("n", &meta(), History { modified: 20, stopped: true, ..OLD }), Ok(()));
        // Someone has registered another job in its place.
        let again = History { modified: 20, ..OLD };
        assert_eq!(key.check("n", &meta(), again), Err(ForeignReason::Unsealed));
        let elsewhere = History { elsewhere: true, ..OLD };
        assert_eq!(key.check("n", &meta(), elsewhere), Err(ForeignReason::Unsealed));
    }

    #[test]
    fn a_later_key_takes_over_only_jobs_sealed_with_the_previous_one() {
        let before = Key::new(TEXT, None, 1).unwrap();
        let key = Key::new(OTHER, Some(TEXT), 10).unwrap();
        let sealed = sealed_by(&before, "n", meta());
        assert_eq!(key.check("n", &sealed, OLD), Ok(()));
        assert_eq!(key.check("n", &sealed, NEW), Err(ForeignReason::WrongSeal), "who has the old key");
        assert_eq!(key.check("n", &meta(), OLD), Err(ForeignReason::Unsealed), "planted before");
    }

    #[test]
    fn a_new_key_is_a_key_and_is_shown_nowhere() {
        let text = Key::random().unwrap();
        let key = Key::new(text.expose(), None, 1).unwrap();
        assert_ne!(text, Key::random().unwrap());
        assert!(!format!("{key:?}").contains(text.expose()));
        assert!(Key::new("short", None, 1).is_none() && Key::new(TEXT, Some("short"), 1).is_none());
    }

    #[test]
    fn a_job_has_the_name_derived_from_its_meta() {
        let name = |namespace: Option<&Namespace>| runner_name("ghr", "i", namespace, "o/r", JobId(7), 1);
        let own = name(None);
        assert!(has_its_name("ghr", None, &own, &meta()));
        assert!(!has_its_name("ghr", None, "ghr-o-r-another", &meta()));
        assert!(!has_its_name("ghr", None, &own, &RunnerMeta { attempt: None, ..meta() }));
        // A copy in another namespace is not ours, with either name: the MAC covers the name.
        let gpu = Namespace { name: "gpu".to_owned(), region: None };
        let gpu_in_eu = Namespace { region: Some("eu".to_owned()), ..gpu.clone() };
        assert!(!has_its_name("ghr", Some(&gpu), &own, &meta()));
        assert!(has_its_name("ghr", Some(&gpu), &name(Some(&gpu)), &meta()));
        assert!(!has_its_name("ghr", Some(&gpu_in_eu), &name(Some(&gpu)), &meta()));
    }
}
