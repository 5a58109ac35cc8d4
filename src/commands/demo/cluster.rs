//! A real Nomad for the demo: prepares its namespace, and cleans up afterwards.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    commands::setup::Environment,
    http::{self, Client, Request, StatusCode, escape_segment, header::HeaderName},
    nomad,
};

/// The demo's own namespace, unless NOMAD_NAMESPACE names another.
const NAMESPACE: &str = "githubrunner-demo";

/// How often deleting the namespace is retried. Nomad refuses it while something in it is still ending.
const AGAIN: Duration = Duration::from_millis(100);

/// The namespace and prefix that the demo uses in a cluster.
pub(super) struct Cluster {
    client: Client,
    token: Option<http::Secret>,
    /// The namespace of the runners' jobs.
    pub namespace: String,
    /// The prefix of their names, unique to this demo.
    pub prefix: String,
    made_namespace: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct JobStub {
    #[serde(rename = "ID")]
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VariableStub {
    path: String,
}

impl Cluster {
    /// Makes sure that the namespace exists and that some client has raw_exec.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub async fn prepare(env: Environment<'_>, prefix: String) -> anyhow::Result<Cluster> {
        let namespace = env("NOMAD_NAMESPACE").filter(|name| !name.is_empty() && name != "*");
        let namespace = namespace.unwrap_or_else(|| NAMESPACE.to_owned());
        let options = nomad::Options::from_env(env, namespace.as_str(), prefix.as_str(), "runner")?;
        let client = Client::new(
            options.address.clone(),
            http::Options { tls: options.tls.clone(), ..http::Options::default() },
        )?;
        let token = options.token.map(|token| http::Secret::new(token.expose()));
        let mut cluster = Cluster { client, token, namespace, prefix, made_namespace: false };
        cluster.check_driver().await?;
        cluster.make_namespace().await?;
        Ok(cluster)
    }

    async fn check_driver(&self) -> anyhow::Result<()> {
        let answer = self.send(Request::get("/v1/nodes")).await.context(
            "demo --nomad needs a Nomad agent at NOMAD_ADDR; scripts/dev starts one, or: nomad agent -dev",
        )?;
        // Without node:read this is unknown, and the demo will show it.
        if !answer.is_success() {
            return Ok(());
        }
        let nodes: Vec<Value> = answer.json()?;
        if !nodes.iter().any(|node| node["Drivers"]["raw_exec"]["Healthy"] == Value::Bool(true)) {
            bail!(
                "no client of this Nomad has the raw_exec driver, which the demo's runners need; scripts/dev \
                 starts an agent that has it, or enable it: plugin \"raw_exec\" {{ config {{ enabled = true }} }}"
            );
        }
        Ok(())
    }

    async fn make_namespace(&mut self) -> anyhow::Result<()> {
        let namespace = &self.namespace;
        let path = format!("/v1/namespace/{}", escape_segment(namespace));
        if self.send(Request::get(path.clone())).await?.status != StatusCode::NOT_FOUND {
            // It exists, or the first pass says why it cannot be used.
            return Ok(());
        }
        let body = json!({ "Name": namespace, "Description": "Runners of githubrunner demo --nomad" });
        let answer = self.send(Request::put(path).json(&body)).await?;
        if let Err(error) = answer.success() {
            bail!(
                "the Nomad namespace {namespace:?} does not exist and cannot be created: {error}; create it with: \
                 nomad namespace apply {namespace}, or set NOMAD_NAMESPACE to one that may be used"
            );
        }
        self.made_namespace = true;
        Ok(())
    }

    /// Removes whatever this demo has left in the cluster, within a time limit. Returns what could not be
    /// removed.
    pub async fn clean_up(&self, within: Duration) -> Vec<String> {
        let deadline = Instant::now() + within;
        match timeout(within, self.remove_all(deadline)).await {
            Ok(Ok(())) => Vec::new(),
            Ok(Err(error)) => vec![format!("{error:#}")],
            Err(_) => vec![format!(
                "Nomad is slow to clean up; see nomad job status -namespace {} {}-",
                self.namespace, self.prefix
            )],
        }
    }

    async fn remove_all(&self, deadline: Instant) -> anyhow::Result<()> {
        let path = format!("/v1/namespace/{}", escape_segment(&self.namespace));
        loop {
            self.remove_jobs_and_variables().await?;
            if !self.made_namespace {
                return Ok(());
            }
            match self.send(Request::delete(path.clone())).await?.success() {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() + AGAIN >= deadline => {
                    return Err(error).context("removing the namespace");
                }
                // Requests that were in flight when the daemon ended may take effect only now.
                Err(_) => sleep(AGAIN).await,
            }
        }
    }

    async fn remove_jobs_and_variables(&self) -> anyhow::Result<()> {
        let prefix = format!("{}-", self.prefix);
        let list = Request::get("/v1/jobs").query("prefix", &prefix);
        let jobs: Vec<JobStub> = self.send(list).await?.success()?.json()?;
        for JobStub { id } in jobs {
            let purge = Request::delete(format!("/v1/job/{}", escape_segment(&id))).query("purge", "true");
            self.send(purge).await?.success()?;
        }
        let own = ["instance", "key"].map(|name| format!("githubrunner/{}/{name}", self.prefix));
        let mut variables = Vec::from(own);
        let list = Request::get("/v1/vars").query("prefix", &format!("nomad/jobs/{prefix}"));
        let found: Vec<VariableStub> = self.send(list).await?.success()?.json()?;
        variables.extend(found.into_iter().map(|variable| variable.path));
        for path in variables {
            self.send(Request::delete(format!("/v1/var/{path}"))).await?.success()?;
        }
        Ok(())
    }

    async fn send(&self, request: Request) -> Result<http::Response, http::Error> {
        let mut request = request.query("namespace", &self.namespace);
        if let Some(token) = &self.token {
            request = request.header_secret(HeaderName::from_static("x-nomad-token"), "", token);
        }
        self.client.send(request).await
    }
}
