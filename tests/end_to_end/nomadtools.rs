//! Configurations of nomadtools' users run unchanged, except for GitHub's address, with the right warnings.

use githubrunner_sim::github::Status;
use serde_json::json;

use crate::common::site::{NAMESPACE, REPOSITORY, Site, TOKEN};

/// The daemon's warnings until the job was served.
async fn served_with(site: &Site, config: &str) -> Vec<String> {
    let value: serde_json::Value = serde_yaml::from_str(config).unwrap();
    let schema = jsonschema::validator_for(&githubrunner::config::schema()).unwrap();
    let problems: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
    assert!(problems.is_empty(), "the schema takes it too: {problems:?}");
    let job = site.queue(&["nomadtools mem=1000"], 300);
    let daemon = site.run(config);
    site.served(job).await;
    let log = daemon.end().await;
    assert!(!log.iter().any(|line| line.contains("ERROR")), "{}", log.join("\n"));
    log.into_iter().filter(|line| line.contains(" WARN ")).collect()
}

/// The simulated GitHub instead of github.com, with everything fast.
fn here(site: &Site) -> String {
    format!("url: \"{}\"\n  cachefile: \"{}\"", site.github, site.cache_file().display())
}

/// The specifications of all jobs in Nomad.
fn jobs_in_nomad(site: &Site) -> String {
    site.world().nomad.jobs().map(|job| job.spec.to_string()).collect()
}

#[tokio::test]
async fn a_token_and_repositories() {
    let site = Site::start().await;
    let config = format!(
        "---\ngithub:\n  {}\n  token: {TOKEN}\nrepos:\n  # one repository\n  - {REPOSITORY}\n  # all of an owner\n  - acme\n",
        here(&site)
    );
    assert_eq!(served_with(&site, &config).await, Vec::<String>::new());
    let jobs = jobs_in_nomad(&site);
    assert!(jobs.contains("myoung34/github-runner:latest") && jobs.contains("\"MemoryMB\":1000"), "{jobs}");
    assert!(!jobs.contains(TOKEN), "the default template hands out no long-lived token any more: {jobs}");
}

#[tokio::test]
async fn settings_of_the_default_template() {
    let site = Site::start().await;
    let config = format!(
        "---\nloop: 1\nrepos:\n  # - acme\n  - {REPOSITORY}\nnomad:\n  namespace: github\n  # purge: true\n\
         template_settings:\n  # docker: host\n  docker: dind\n  ephemeral: false\n\
         scheduler:\n  runner_inactivity_timeout: 1w\ngithub:\n  {}\n  token: {TOKEN}\n",
        here(&site)
    );
    assert_eq!(served_with(&site, &config).await, Vec::<String>::new());
    let jobs = jobs_in_nomad(&site);
    assert!(jobs.contains("START_DOCKER_SERVICE") && jobs.contains("\"privileged\":true"), "{jobs}");
    // It is not ephemeral: it waits for the next job.
    assert_eq!(site.world().github.runners().filter(|runner| runner.online).count(), 1);
}

/// A template in the style of nomadtools: macros, Python's methods, filters, a heredoc, settings, and the
/// token.
const OWN_TEMPLATE: &str = r#"
  locals {
    ABOUT = <<ENDOFABOUT
  {% macro show(mapping) %}{% for key, value in mapping.items() -%}
    {{ nomadlib.escape(key|string|replace("\n", "\\n")) }} is {{ nomadlib.escape(value|string) }}
  {% endfor %}{% endmacro -%}
  {{ show(RUNSON) }}
  {{ show(SETTINGS) }}
  ENDOFABOUT
  }
  job "{{ RUN.RUNNER_NAME }}" {
    {{ SETTINGS.extra_job }}
    type = "batch"
    group "{{ RUN.RUNNER_NAME }}" {
      reschedule {
        attempts  = 0
        unlimited = false
      }
      restart {
        attempts = 0
        mode     = "fail"
      }
      task "{{ RUN.RUNNER_NAME }}" {
        driver       = "docker"
        kill_timeout = "5m"
        config {
          {{ SETTINGS.extra_config }}
          image = "{{ RUNSON.image | default('acme/runner:' + RUNSON.tag | default('latest')) }}"
        }
        env {
          ACCESS_TOKEN = "{{ SETTINGS.access_token or CONFIG.github.token }}"
          REPO_URL     = "{{ RUN.REPO_URL }}"
          RUNNER_NAME  = "{{ RUN.RUNNER_NAME }}"
          LABELS       = "{{ RUN.LABELS }}"
          RUNNER_SCOPE = "repo"
  {% if SETTINGS.ephemeral %}
          EPHEMERAL    = "true"
  {% endif %}
        }
        resources {
  {% if RUNSON.cpu %}
          cpu    = {{ RUNSON.cpu }}
  {% endif %}
  {% if RUNSON.mem %}
          memory = {{ RUNSON.mem }}
  {% endif %}
        }
        template {
          destination     = "local/script.sh"
          change_mode     = "noop"
          left_delimiter  = "QQQ"
          right_delimiter = "PPP"
          data            = <<ENDOFSCRIPT
  {{ nomadlib.escape(SETTINGS.entrypoint or "echo ${HOME:-nowhere}") }}
  ENDOFSCRIPT
        }
      }
    }
  }
"#;

#[tokio::test]
async fn a_custom_template_with_the_token_causes_one_warning() {
    let site = Site::start().await;
    let config = format!(
        "repos: [{REPOSITORY}]\nloop: 1\ngithub:\n  {}\n  token: {TOKEN}\n\
         template_default_settings: {{extra_config: \"init = true\", ephemeral: true}}\n\
         template_settings: {{extra_job: 'priority = 60'}}\ntemplate: |\n{OWN_TEMPLATE}",
        here(&site)
    );
    let warnings = served_with(&site, &config).await;
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains("RUN.CREDENTIALS") && !warnings[0].contains(TOKEN), "{warnings:#?}");
    let jobs = jobs_in_nomad(&site);
    assert!(jobs.contains(TOKEN) && jobs.contains("acme/runner:latest"), "as it was written: {jobs}");
    assert!(jobs.contains("\"Priority\":60") && jobs.contains("\"init\":true"), "{jobs}");
    // The Submission, which people can read, is omitted.
    assert!(site.world().nomad.jobs().all(|job| job.submission.is_none()));
}

#[tokio::test]
async fn an_access_token_that_consul_template_finds() {
    let site = Site::start().await;
    let expression = r#"{{ with nomadVar "nomad/jobs" }}{{ .github_token }}{{ end }}"#;
    let variable = json!({ "Items": { "github_token": TOKEN } });
    let put =
        githubrunner::http::Request::put("/v1/var/nomad/jobs").query("namespace", NAMESPACE).json(&variable);
    let endpoint = githubrunner::http::Endpoint::parse(&site.nomad).unwrap();
    let client = githubrunner::http::Client::new(endpoint, githubrunner::http::Options::default()).unwrap();
    client.send(put).await.unwrap().success().unwrap();
    for section in ["github", "template_settings"] {
        let (github, settings) = match section {
            "github" => (format!("\n  access_token: '{expression}'"), String::new()),
            _ => (String::new(), format!("template_settings: {{access_token: '{expression}'}}\n")),
        };
        let config = format!(
            "repos: [{REPOSITORY}]\nloop: 1\n{settings}\
             scheduler: {{purge_successfull_timeout: 1s, purge_failure_timeout: 1s}}\n\
             github:\n  {}\n  token: {TOKEN}{github}\n",
            here(&site)
        );
        let warnings = served_with(&site, &config).await;
        assert_eq!(warnings.len(), 1, "{section}: {warnings:#?}");
        assert!(
            warnings[0].contains("remove github.access_token, template_settings.access_token"),
            "{warnings:#?}"
        );
        let jobs = jobs_in_nomad(&site);
        assert!(jobs.contains(".github_token") && !jobs.contains(TOKEN), "{section}: {jobs}");
    }
    assert!(site.world().github.jobs().all(|job| job.status == Status::Completed));
}
