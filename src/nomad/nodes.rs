//! Which nodes are being drained. Nomad stops a batch job there only at the drain's deadline, and does not mark its
//! allocation before, so the nodes have to be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
    time::Duration,
};

use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::{
    api::Nomad,
    error::{Error, Right},
    remembered::KnownDrains,
};
use crate::{http::Request, model::Runner};

/// A drain takes minutes, so the nodes are read less often than the runners.
const KNOWN_FOR: Duration = Duration::from_secs(10);

/// How soon the nodes are read again after a failure. The right to read them is optional.
const AFTER_FAILURE: Duration = Duration::from_secs(300);

/// A pass does not wait longer for them.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// One entry of `GET /v1/nodes` (contract §3).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeStub {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    drain: bool,
}

impl Nomad {
    /// Marks the runners whose node is being drained. If the nodes cannot be read, none is marked.
    pub(super) async fn mark_draining(&self, runners: &mut [Runner]) {
        let placed = |runner: &&mut Runner| runner.is_live() && runner.allocation.is_some();
        let mut regions: BTreeMap<Option<String>, BTreeSet<String>> = BTreeMap::new();
        for runner in runners.iter_mut().filter(placed) {
            let region = runner.namespace.as_ref().and_then(|namespace| namespace.region.clone());
            if !regions.contains_key(&region) {
                let nodes = self.at(runner.namespace.as_ref()).draining(&region).await;
                regions.insert(region.clone(), nodes);
            }
            if let (Some(allocation), Some(nodes)) = (&mut runner.allocation, regions.get(&region)) {
                allocation.draining = nodes.contains(&allocation.node_id);
            }
        }
    }

    /// The nodes of this client's region that are being drained.
    async fn draining(&self, region: &Option<String>) -> BTreeSet<String> {
        let known = {
            let drains = self.inner.drains.lock().unwrap_or_else(PoisonError::into_inner);
            drains.get(region).cloned().unwrap_or_default()
        };
        if known.until.is_some_and(|until| Instant::now() < until) {
            return known.nodes;
        }
        let read = timeout(READ_WITHIN, self.read_draining()).await;
        let failure = match read {
            Ok(Ok(nodes)) => {
                self.remember_draining(region, nodes.clone(), KNOWN_FOR);
                return nodes;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("timed out after {} s", READ_WITHIN.as_secs()),
        };
        tracing::debug!("Nomad's nodes cannot be read, so idle runners stay on draining ones: {failure}");
        self.remember_draining(region, BTreeSet::new(), AFTER_FAILURE);
        BTreeSet::new()
    }

    fn remember_draining(&self, region: &Option<String>, nodes: BTreeSet<String>, known_for: Duration) {
        let known = KnownDrains { nodes, until: Some(Instant::now() + known_for) };
        self.inner.drains.lock().unwrap_or_else(PoisonError::into_inner).insert(region.clone(), known);
    }

    /// Reads the nodes that are being drained.
    ///
    /// # Errors
    /// [`Error`]; the token needs `node:read`.
    pub async fn read_draining(&self) -> Result<BTreeSet<String>, Error> {
        // Only what is ineligible can be draining: with many nodes that is a short list.
        let request = Request::get("/v1/nodes").query("filter", "SchedulingEligibility == \"ineligible\"");
        let (nodes, _) = self.list::<NodeStub>(request, Right::Nodes).await?;
        Ok(nodes.into_iter().filter(|node| node.drain).map(|node| node.id).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    };

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        http::tests::{Answer, Seen, answer, server},
        nomad::{
            Options,
            seal::sample::{self, NAME},
        },
    };

    fn ok(body: &Value) -> Answer {
        answer(200, &[("date", "Tue, 24 Nov 2026 07:08:09 GMT")], body.to_string())
    }

    /// A Nomad with a runner on node `n1`, of whose two ineligible nodes that one is being drained.
    fn nomad(may_read_nodes: bool) -> (Nomad, Arc<Mutex<Vec<Seen>>>, Arc<AtomicBool>) {
        let drains = Arc::new(AtomicBool::new(true));
        let draining = drains.clone();
        let (endpoint, seen) = server(move |seen: &Seen| match seen.path.split('?').next().unwrap() {
            "/v1/nodes" if !may_read_nodes => answer(403, &[], "Permission denied".to_owned()),
            "/v1/nodes" => ok(&json!([
                { "ID": "n1", "Drain": draining.load(Ordering::Relaxed) },
                { "ID": "n2", "Drain": false },
            ])),
            "/v1/jobs" => ok(&json!([sample::stub(NAME, "running", &sample::meta("i"))])),
            "/v1/allocations" => {
                ok(&json!([{ "ID": "a", "JobID": NAME, "NodeID": "n1", "ClientStatus": "running" }]))
            }
            "/v1/vars" => ok(&json!([])),
            "/v1/var/githubrunner/ghr/instance" => ok(&json!({ "Items": { "id": "i" } })),
            "/v1/var/githubrunner/ghr/key" => ok(&sample::key_variable()),
            path => answer(404, &[], path.to_owned()),
        });
        (Nomad::new(Options::new(endpoint, "github", "ghr", "runner"), "i").unwrap(), seen, drains)
    }

    async fn is_draining(nomad: &Nomad) -> bool {
        nomad.observe().await.unwrap().runners[0].allocation.as_ref().unwrap().draining
    }

    fn asked(seen: &Mutex<Vec<Seen>>) -> usize {
        seen.lock().unwrap().iter().filter(|seen| seen.path.starts_with("/v1/nodes")).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_seen_and_the_nodes_are_not_read_in_every_pass() {
        let (nomad, seen, drains) = nomad(true);
        assert!(is_draining(&nomad).await);
        drains.store(false, Ordering::Relaxed);
        assert!(is_draining(&nomad).await, "known for 10 s");
        assert_eq!(asked(&seen), 1);
        tokio::time::advance(KNOWN_FOR).await;
        assert!(!is_draining(&nomad).await);
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_right_no_drain_is_seen_and_the_pass_goes_on() {
        let (nomad, seen, _) = nomad(false);
        assert!(!is_draining(&nomad).await);
        tokio::time::advance(KNOWN_FOR).await;
        assert!(!is_draining(&nomad).await);
        assert_eq!(asked(&seen), 1);
        let error = nomad.read_draining().await.unwrap_err().to_string();
        assert!(error.contains("needs node { policy = \"read\" }"), "{error}");
    }
}
