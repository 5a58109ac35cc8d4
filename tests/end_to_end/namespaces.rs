//! A class in its own namespace, on a real Nomad agent with ACLs, and what it costs if that namespace is closed.

use std::time::{Duration, Instant};

use githubrunner::http::Request;
use githubrunner_sim::github::{Conclusion, Status};
use serde_json::{Value, json};

use crate::common::{
    nomad_agent::{Agent, AgentOptions},
    site::{NAMESPACE, Running, Site, until},
};

/// The namespace of the class.
const GPU: &str = "gpu";

/// A namespace that failed is requested again within a minute.
const SEEN_AGAIN_WITHIN: Duration = Duration::from_secs(120);

/// The bundled policy, with its example of a second namespace or without it.
fn policy(with_gpu: bool) -> String {
    let text = std::fs::read_to_string("nomad/githubrunner.policy.hcl").unwrap();
    let (own, example) = text.split_once("# For each further namespace").unwrap();
    let example = example.lines().skip(2).map(|line| line.trim_start_matches('#'));
    if with_gpu { example.fold(own.to_owned(), |text, line| text + line + "\n") } else { own.to_owned() }
}

/// A site on a real agent with two namespaces and a token for both.
struct Two {
    agent: Agent,
    site: Site,
    token: String,
    config: String,
}

impl Two {
    async fn start() -> Option<Two> {
        let agent = Agent::start(AgentOptions { acl: true, ..AgentOptions::default() }).await?;
        agent.create_namespace(NAMESPACE).await;
        agent.create_namespace(GPU).await;
        let token = agent.create_token("daemon", &policy(true)).await;
        let mut site = Site::start().await;
        site.nomad = agent.address.clone();
        let runner = site.stand_in();
        // The jobs are kept for inspection.
        let config = site.config(&format!(
            "public: allow\ntemplate_settings: {{runner_directory: \"{}\"}}\n\
             classes: [{{name: gpu, match: {{labels: gpu}}, nomad: {{namespace: {GPU}}}}}]\n",
            runner.display()
        ));
        let config = config.replace("purge_successfull_timeout: 1s", "purge_successfull_timeout: 1h");
        Some(Two { agent, site, token, config })
    }

    async fn permits(&self, with_gpu: bool) {
        let body = json!({ "Name": "daemon", "Rules": policy(with_gpu) });
        let request = self.agent.authorized(Request::put("/v1/acl/policy/daemon").json(&body));
        self.agent.client().send(request).await.unwrap().success().unwrap();
    }

    fn run(&self) -> Running {
        let mut command = self.site.program();
        command
            .env("NOMAD_TOKEN", &self.token)
            .arg("-c")
            .arg(self.site.write_config(&self.config))
            .arg("run");
        Running::spawn(command)
    }

    /// What a command prints.
    async fn call(&self, arguments: &[&str]) -> String {
        let mut command = self.site.program();
        command.env("NOMAD_TOKEN", &self.token).arg("-c").arg(self.site.write_config(&self.config));
        let output = command.args(arguments).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// The jobs that GitHub jobs of ours ran as, in a namespace.
    async fn jobs(&self, namespace: &str) -> Vec<String> {
        let jobs = self.agent.get(&format!("/v1/jobs?namespace={namespace}")).await;
        jobs.as_array().unwrap().iter().map(|job| job["ID"].as_str().unwrap().to_owned()).collect()
    }
}

/// Serves a job of the top level and one of the class, one after the other: a runner of the class can take both.
async fn serve_both(site: &Site) {
    for labels in [&["nomadtools"][..], &["nomadtools", "gpu"]] {
        let job = site.queue(labels, 300);
        site.served(job).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_runs_in_its_namespace_and_a_closed_one_holds_only_its_class() {
    let Some(two) = Two::start().await else { return };
    let site = &two.site;
    let check = two.call(&["check"]).await;
    assert!(
        check.contains("ok       the Nomad token has the capability submit-job in namespace gpu"),
        "{check}"
    );
    let daemon = two.run();
    serve_both(site).await;
    let (there, here) = (two.jobs(GPU).await, two.jobs(NAMESPACE).await);
    assert_eq!((there.len(), here.len()), (1, 1), "{there:?} {here:?}");
    let list: Vec<Value> = serde_json::from_str(&two.call(&["list", "--json"]).await).unwrap();
    let of_gpu: Vec<&Value> = list.iter().filter(|row| row["namespace"] == GPU).collect();
    assert_eq!((list.len(), of_gpu.len()), (2, 1), "{list:?}");
    assert_eq!((&of_gpu[0]["class"], of_gpu[0]["id"].as_str()), (&json!("gpu"), Some(there[0].as_str())));
    let logs = two.call(&["logs", &there[0]]).await;
    assert!(logs.is_empty(), "the daemon's token may not read logs: {logs}");

    two.permits(false).await;
    let (own, gpu) = (site.queue(&["nomadtools"], 300), site.queue(&["nomadtools", "gpu"], 300));
    daemon.says("the Nomad namespace gpu could not be read, so nothing starts or stops there").await;
    site.served(own).await;
    assert_eq!(site.status(gpu), Status::Queued);
    assert_eq!(two.jobs(GPU).await, there, "nothing was started or purged there");
    let explained = two.call(&["explain", &format!("https://github.com/acme/app/runs/{gpu}")]).await;
    assert!(explained.contains("list-jobs in namespace \"gpu\""), "{explained}");
    let check = two.call(&["check"]).await;
    assert!(check.contains("failure  the Nomad namespace gpu exists"), "{check}");
    assert!(check.contains("ok       the Nomad token has the capability submit-job\n"), "{check}");

    two.permits(true).await;
    let deadline = Instant::now() + SEEN_AGAIN_WITHIN;
    while site.world().github.job(gpu).unwrap().conclusion != Some(Conclusion::Success) {
        assert!(Instant::now() < deadline, "{}", daemon.log().join("\n"));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(two.jobs(GPU).await.len(), 2);
    let secrets = two.agent.get(&format!("/v1/vars?namespace={GPU}&prefix=nomad/jobs")).await;
    until(site, "no registration is left", || site.world().github.runners().next().is_none()).await;
    daemon.end().await;
    assert!(secrets.as_array().is_some_and(|secrets| secrets.len() <= 1), "{secrets}");
    two.call(&["purge", "--all", "-y"]).await;
    assert_eq!((two.jobs(GPU).await.len(), two.jobs(NAMESPACE).await.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_with_a_node_pool_runs_on_the_nodes_of_that_pool() {
    let options = AgentOptions { pool: Some("gpu"), ..AgentOptions::default() };
    let Some(agent) = Agent::start(options).await else { return };
    agent.create_namespace(NAMESPACE).await;
    let mut site = Site::start().await;
    site.nomad = agent.address.clone();
    let config = site.config(&format!(
        "public: allow\ntemplate_settings: {{runner_directory: \"{}\"}}\n\
         classes: [{{name: gpu, match: {{labels: gpu}}, nomad: {{node_pool: gpu}}}}]\n",
        site.stand_in().display()
    ));
    let config = config.replace("purge_successfull_timeout: 1s", "purge_successfull_timeout: 1h");
    let daemon = site.run(&config);
    serve_both(&site).await;
    daemon.end().await;
    let allocations = agent.get(&format!("/v1/allocations?namespace={NAMESPACE}")).await;
    let list = site.call_with(&config, &["list", "--json"]).await.well();
    let rows: Vec<Value> = serde_json::from_str(&list).unwrap();
    assert_eq!(rows.len(), 2, "{list}");
    for row in rows {
        let of_row = |allocation: &&Value| allocation["JobID"] == row["id"];
        let node = &allocations.as_array().unwrap().iter().find(of_row).unwrap()["NodeName"];
        assert_eq!(*node == "gpu", row["class"] == "gpu", "{row} ran on {node}");
    }
}
