//! The alerts and the dashboard use metrics and labels that exist, and Prometheus's own tool accepts the rules and the
//! pages. Without `promtool` on PATH, prints a message.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use githubrunner::{
    model::{
        Action, Asks, Cap, Done, GroupKey, Hold, HoldReason, JobId, Labels, NomadView, Observation, Orphan,
        Outcome, Ownership, Plan, RemoveOrphan, Report, RepositoryId, Runner, RunnerMeta, RunnerState,
        RunnerVariable, Subject, Timestamp,
    },
    status::{Counter, Deed, Exchange, Exposition, Rate, Seen, Status},
};

const ALERTS: &str = "deploy/prometheus/alerts.yml";
const BOARD: &str = "deploy/grafana/githubrunner.json";

/// A runner that is waiting for a place.
fn waiting() -> Runner {
    let asks = Asks { cpu: 500, cores: 1, memory: 2, node_pool: "gpu".to_owned() };
    Runner {
        name: "r".to_owned(),
        namespace: None,
        ownership: Ownership::Ours,
        meta: RunnerMeta { asks: Some(asks), ..RunnerMeta::default() },
        state: RunnerState::Pending,
        finish: None,
        started: false,
        spent: false,
        ending: false,
        lost: None,
        variable: None,
        submitted_at: Timestamp::now(),
        allocation: None,
        started_at: None,
        ended_at: None,
        blocked: None,
        last_event: None,
    }
}

/// A status in which each metric has a value, so that its name and labels appear.
fn status() -> Status {
    let status = Status::new(Duration::from_secs(60));
    let remove = RemoveOrphan {
        orphan: Orphan::Variable(RunnerVariable { namespace: None, name: "r".to_owned() }),
        repository: None,
        seen: Duration::ZERO,
    };
    let outcome = Outcome::Done(Done::Performed);
    let deed = Deed::new(&Report { action: Action::RemoveOrphan(remove), outcome });
    let subject = Subject::Job { repository: "acme/widgets".to_owned(), id: JobId(1), labels: String::new() };
    let hold = Hold { subject, reason: HoldReason::Cap { cap: Cap::All, limit: 1 } };
    let group = GroupKey { repository: RepositoryId(1), labels: Labels::new(["nomadtools"]) };
    let plan = Plan {
        holds: vec![hold],
        demand: BTreeMap::from([(group, vec![JobId(2)])]),
        classes: BTreeMap::from([(JobId(1), "gpu".into())]),
        ..Plan::default()
    };
    status.classes(["gpu"].into_iter());
    let nomad = NomadView {
        now: Timestamp::now(),
        deployment: "i".to_owned(),
        runners: vec![waiting()],
        foreign: Vec::new(),
        variables: BTreeSet::new(),
        unseen: std::collections::BTreeMap::new(),
    };
    let rate = Rate {
        credential: "token".to_owned(),
        bucket: "core".to_owned(),
        limit: 5000,
        remaining: 4000,
        reset: 1_700_000_000,
    };
    status.pass(&Seen {
        at: Timestamp::now(),
        observation: &Observation { nomad: Some(nomad), ..Observation::default() },
        plan: &plan,
        deeds: &[deed],
        errors: &[],
        rates: &[rate],
        took: Duration::from_millis(20),
        leads: true,
    });
    let took = Duration::from_millis(20);
    status.exchange(Exchange { host: "github", route: "/user", code: Some(200), took, points: 1 });
    status.look("newest", took);
    status.expect(Counter::Hints, ["webhook"]);
    status.expect(Counter::WebhookRequests, ["accepted"]);
    status.ends(&BTreeMap::from([("2.300.0".to_owned(), 1_700_000_000)]));
    status
}

/// The names of samples as in a query, each with its labels. Families without a sample here have their names from the
/// types.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let (page, _) = status().metrics(Exposition::OpenMetrics);
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in page.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                _ => &[""],
            };
            for suffix in suffixes {
                known.entry(format!("{name}{suffix}")).or_default();
            }
        } else if !line.starts_with('#') {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| label.split_once('='));
            let known = known.get_mut(name).unwrap_or_else(|| panic!("{name} has no type"));
            known.extend(labels.map(|(key, _)| key.to_owned()));
        }
    }
    known
}

/// The metrics in a query, each with the labels that it selects by.
fn asked(query: &str) -> Vec<(String, Vec<String>)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut asked = Vec::new();
    for prefix in ["githubrunner_", "process_"] {
        for (at, _) in query.match_indices(prefix) {
            if query[..at].chars().next_back().is_some_and(is_word) {
                continue;
            }
            let name: String = query[at..].chars().take_while(|c| is_word(*c)).collect();
            let selected = query[at + name.len()..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let labels = selected.map_or("", |(labels, _)| labels).split("\",");
            let labels = labels.filter_map(|label| label.split_once(['=', '!']));
            asked.push((name, labels.map(|(key, _)| key.trim().to_owned()).collect()));
        }
    }
    asked
}

/// The queries of the dashboard, with its variables filled in.
fn queries_of_the_dashboard() -> Vec<String> {
    let board: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(BOARD).unwrap()).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut queries: Vec<String> =
        targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have one ID");
    let variables = board["templating"]["list"].as_array().unwrap();
    queries.extend(
        variables.iter().filter_map(|variable| variable["query"]["query"].as_str().map(str::to_owned)),
    );
    queries
}

/// The queries of the alerts.
fn queries_of_the_alerts() -> Vec<String> {
    let rules: serde_json::Value = serde_yaml::from_str(&std::fs::read_to_string(ALERTS).unwrap()).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    rules.iter().map(|rule| rule["expr"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_metric_of_the_alerts_and_the_dashboard_exists() {
    let known = known();
    // Added by Prometheus itself.
    let added = ["job", "instance", "le"];
    for (file, queries, least) in
        [(ALERTS, queries_of_the_alerts(), 10), (BOARD, queries_of_the_dashboard(), 20)]
    {
        assert!(queries.len() > least, "{file}: {queries:?}");
        for query in queries {
            let asked = asked(&query);
            assert!(!asked.is_empty(), "{file}: {query}");
            for (name, labels) in asked {
                let of = known.get(&name).unwrap_or_else(|| panic!("{file}: no metric {name}: {query}"));
                for label in labels {
                    let exists = of.contains(&label) || added.contains(&label.as_str());
                    // Some have no sample here; their labels are in the documentation.
                    let documented = || documentation().contains(&format!("{name}{{{label}}}"));
                    assert!(exists || documented(), "{file}: {name} has no label {label}: {query}");
                }
            }
        }
    }
}

#[test]
fn waiting_resources_are_in_the_units_of_an_autoscaler() {
    let (page, _) = status().metrics(Exposition::OpenMetrics);
    for line in [
        "githubrunner_waiting_runners{node_pool=\"gpu\"} 1\n",
        "githubrunner_waiting_cpu_megahertz{node_pool=\"gpu\"} 500\n",
        "githubrunner_waiting_cores{node_pool=\"gpu\"} 1\n",
        "githubrunner_waiting_memory_bytes{node_pool=\"gpu\"} 2097152\n",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
}

fn documentation() -> String {
    std::fs::read_to_string("docs/operations.md").unwrap()
}

#[test]
fn each_metric_is_documented_and_each_documented_one_exists() {
    let documentation = documentation();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let rows = documentation.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|line| line.split(" | ").next());
    let told: BTreeSet<String> = cells
        .flat_map(|cell| cell.split('`'))
        .filter(|name| name.starts_with("githubrunner_") || name.starts_with("process_"))
        .map(|name| name.chars().take_while(|c| is_word(*c)).collect())
        .collect();
    // A histogram has one row.
    let known: BTreeSet<String> = known()
        .into_keys()
        .filter(|name| !name.ends_with("_bucket") && !name.ends_with("_count"))
        .map(|name| name.strip_suffix("_sum").map_or(name.clone(), str::to_owned))
        .collect();
    let only = |these: &BTreeSet<String>, those| these.difference(those).cloned().collect::<Vec<_>>();
    assert_eq!((only(&told, &known), only(&known, &told)), (vec![], vec![]), "(documented only, there only)");
}

/// The output of promtool; `None` without promtool.
fn promtool(args: &[&str], input: &str) -> Option<(bool, String)> {
    let child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("skipped: there is no promtool on PATH");
        return None;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    Some((output.status.success(), said))
}

#[test]
fn promtool_accepts_the_alerts_and_the_page() {
    let Some((good, said)) = promtool(&["check", "rules", ALERTS], "") else { return };
    assert!(good, "{said}");
    let (page, _) = status().metrics(Exposition::Prometheus);
    let (good, said) = promtool(&["check", "metrics"], &page).unwrap();
    assert!(good, "{said}");
    // The dashboard's queries as rules, because the tool reads nothing else.
    let rules = |queries: Vec<String>| {
        let rules = queries.into_iter().filter(|query| !query.starts_with("label_values(")).enumerate();
        let rules: Vec<_> = rules
            .map(|(number, query)| {
                let query = query.replace("$__rate_interval", "5m");
                serde_json::json!({ "record": format!("board:{number}"), "expr": query })
            })
            .collect();
        assert!(!rules.is_empty());
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = serde_json::json!({ "groups": [{ "name": "board", "rules": rules }] }).to_string();
        std::fs::write(file.path(), text).unwrap();
        promtool(&["check", "rules", file.path().to_str().unwrap()], "").unwrap()
    };
    let (good, said) = rules(queries_of_the_dashboard());
    assert!(good, "{said}");
    assert!(!rules(vec!["sum(githubrunner_passes_total".to_owned()]).0);
    // It does report errors.
    assert!(!promtool(&["check", "metrics"], "a b c\n").unwrap().0);
}
