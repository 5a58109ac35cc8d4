//! Two replicas, of which the holder of the lock acts: on the simulated Nomad and on a real agent.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::common::{
    nomad_agent::{Agent, AgentOptions},
    site::{NAMESPACE, REPOSITORY, Running, Site, TOKEN},
};

/// With a TTL of 10 s and a LockDelay of 1 s, the next holder gets the lock 21 s after the last one's last
/// renewal (contract nomad.md §8). We promise 25 s; this allows for a busy machine.
const FAILOVER_WITHIN: Duration = Duration::from_secs(40);

/// After a clean exit it is one second; this allows for a busy machine.
const HANDOVER_WITHIN: Duration = Duration::from_secs(10);

struct Pair {
    site: Site,
    config: String,
    first: Running,
    second: Running,
    _agent: Option<Agent>,
}

impl Pair {
    /// Two replicas, the first one the leader.
    async fn start(agent: Option<Agent>) -> Pair {
        let mut site = Site::start().await;
        if let Some(agent) = &agent {
            agent.create_namespace(NAMESPACE).await;
            site.nomad = agent.address.clone();
        }
        let config = format!(
            "github: {{url: \"{}\", token: {TOKEN}, cachefile: \"{}\"}}\nrepos: [{REPOSITORY}]\nloop: 1\n\
             template: builtin:raw_exec\ntemplate_settings: {{runner_directory: \"{}\"}}\nha: {{enabled: true}}\n",
            site.github,
            site.cache_file().display(),
            site.stand_in().display(),
        );
        let first = site.run(&config);
        first.says(LEADS).await;
        let second = site.run(&config);
        second.says("watches").await;
        Pair { site, config, first, second, _agent: agent }
    }

    /// Each job had one runner, and no busy one was stopped.
    async fn has_no_duplicates(&self, jobs: &[u64]) {
        let list = self.site.call_with(&self.config, &["list", "--json"]).await.well();
        let runners: Vec<Value> = serde_json::from_str(&list).unwrap();
        let mut by_job: BTreeMap<u64, usize> = BTreeMap::new();
        for runner in &runners {
            *by_job.entry(runner["github_job"].as_u64().unwrap()).or_default() += 1;
        }
        assert_eq!(by_job, jobs.iter().map(|job| (*job, 1)).collect(), "{list}");
        assert!(self.site.world().violations().is_empty());
    }
}

const LEADS: &str = "acquired the leader lock";

async fn takes_over(replica: &Running, since: Instant, within: Duration) -> Duration {
    while replica.lines_with(LEADS).is_empty() {
        assert!(since.elapsed() < within, "not within {within:?}:\n{}", replica.log().join("\n"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    since.elapsed()
}

async fn handover(agent: Option<Agent>) -> Duration {
    let mut pair = Pair::start(agent).await;
    let before = pair.site.queue(&["nomadtools"], 300);
    pair.site.served(before).await;
    assert!(pair.second.lines_with("start ").is_empty(), "a standby applies nothing");
    let site = &pair.site;
    let replacement = site.run(&pair.config);
    let since = Instant::now();
    std::mem::replace(&mut pair.first, replacement).end().await;
    // Either of the two others may be next.
    while pair.second.lines_with(LEADS).is_empty() && pair.first.lines_with(LEADS).is_empty() {
        assert!(since.elapsed() < HANDOVER_WITHIN, "{}", pair.second.log().join("\n"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = since.elapsed();
    let after = site.queue(&["nomadtools"], 300);
    site.served(after).await;
    pair.has_no_duplicates(&[before, after]).await;
    took
}

async fn failover(agent: Option<Agent>, signal: &str) -> Duration {
    let pair = Pair::start(agent).await;
    let site = &pair.site;
    let before = site.queue(&["nomadtools"], 300);
    site.served(before).await;
    let since = Instant::now();
    pair.first.signal(signal);
    let meanwhile = site.queue(&["nomadtools"], 300);
    let took = takes_over(&pair.second, since, FAILOVER_WITHIN).await;
    site.served(meanwhile).await;
    let mut jobs = vec![before, meanwhile];
    if signal == "STOP" {
        pair.first.signal("CONT");
        pair.first.says("lost the leader lock").await;
        let after = site.queue(&["nomadtools"], 300);
        site.served(after).await;
        jobs.push(after);
        let line = format!("for job {after}");
        assert!(pair.first.lines_with(&line).is_empty(), "{}", pair.first.log().join("\n"));
    }
    pair.has_no_duplicates(&jobs).await;
    took
}

/// All six run concurrently, because most of the time is spent waiting for a lock to expire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_over_after_an_exit_a_crash_and_a_pause() {
    let agent = || Agent::start(AgentOptions::default());
    let (exit, crash, pause) = (agent().await, agent().await, agent().await);
    let has_nomad = exit.is_some();
    let real = async {
        if !has_nomad {
            return None;
        }
        Some(tokio::join!(handover(exit), failover(crash, "KILL"), failover(pause, "STOP")))
    };
    let simulated = async { tokio::join!(handover(None), failover(None, "KILL"), failover(None, "STOP")) };
    let (real, simulated) = tokio::join!(real, simulated);
    println!(
        "handover after an exit, a crash and a pause: {simulated:?} simulated, {real:?} on a real agent"
    );
}
