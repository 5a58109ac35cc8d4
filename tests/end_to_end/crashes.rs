//! The daemon, killed with SIGKILL at random moments and restarted.

use std::time::{Duration, Instant};

use githubrunner_sim::github::Conclusion;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::common::{
    nomad_agent::{Agent, AgentOptions},
    site::{NAMESPACE, REPOSITORY, Site, TOKEN, WITHIN},
};

/// How often it is killed.
const KILLS: usize = 12;

/// The maximum lifetime of each run, in milliseconds: from before its first request to after its first
/// credentials.
const LIFE: std::ops::Range<u64> = 5..900;

async fn survive(agent: Option<Agent>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut site = Site::start().await;
    if let Some(agent) = &agent {
        agent.create_namespace(NAMESPACE).await;
        site.nomad = agent.address.clone();
    }
    let config = format!(
        "github: {{url: \"{}\", token: {TOKEN}, cachefile: \"{}\"}}\nrepos: [{REPOSITORY}]\nloop: 1\n\
         template: builtin:raw_exec\ntemplate_settings: {{runner_directory: \"{}\"}}\n\
         scheduler: {{strict: true, purge_successfull_timeout: 1s, purge_failure_timeout: 1s}}\n",
        site.github,
        site.cache_file().display(),
        site.stand_in().display(),
    );
    let mut jobs = Vec::new();
    for _ in 0..KILLS {
        jobs.push(site.queue(&["nomadtools"], random.random_range(50..2000)));
        let daemon = site.run(&config);
        tokio::time::sleep(Duration::from_millis(random.random_range(LIFE))).await;
        daemon.signal("KILL");
    }
    let daemon = site.run(&config);
    let deadline = Instant::now() + 4 * WITHIN;
    let is_served =
        |job: &u64| site.world().github.job(*job).unwrap().conclusion == Some(Conclusion::Success);
    loop {
        let left = site.call_with(&config, &["list"]).await.well();
        if jobs.iter().all(is_served)
            && left.lines().count() == 1
            && site.world().github.runners().next().is_none()
        {
            break;
        }
        assert!(Instant::now() < deadline, "seed {seed}:\n{left}\n{}", daemon.log().join("\n"));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(site.world().violations().is_empty());
    match &agent {
        Some(agent) => {
            let path = format!("/v1/vars?namespace={NAMESPACE}&prefix=nomad/jobs");
            assert_eq!(agent.get(&path).await, serde_json::json!([]));
        }
        None => assert_eq!(site.secrets(), [""; 0]),
    }
    daemon.end().await;
}

/// The moments are random, the outcome is not: every job is served, nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_it_loses_nothing_and_leaves_nothing() {
    let agent = Agent::start(AgentOptions::default()).await;
    let real = async {
        if agent.is_some() {
            survive(agent, 2).await;
        }
    };
    tokio::join!(real, survive(None, 1));
}
