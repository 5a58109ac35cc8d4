//! What people install: the job file and the pack define the same job, the unit is hardened, and the package
//! contains what it names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

use common::nomad_agent::{Agent, AgentOptions};

const JOB: &str = "nomad/githubrunner.nomad.hcl";
const PACK: &str = "packs/githubrunner";
const UNIT: &str = "packaging/githubrunner.service";

/// The maximum exposure in `systemd-analyze security`, in tenths.
const EXPOSURE: &str = "20";

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The variables of an HCL text, by name, with the block's attributes.
fn variables(hcl: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let body: hcl::Body = hcl::from_str(hcl).unwrap();
    let blocks = body.blocks().filter(|block| block.identifier() == "variable");
    blocks
        .map(|block| {
            let name = block.labels()[0].as_str().to_owned();
            let attributes = block.body().attributes();
            (name, attributes.map(|a| (a.key().to_owned(), a.expr().to_string())).collect())
        })
        .collect()
}

/// The subset of Go's templates that the pack uses: `var` with or without `toJson`, `if eq … else if … else … end`,
/// comments, `fail`.
fn rendered(template: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    // For each open `if`: whether this branch is taken, and whether one was.
    let mut open: Vec<(bool, bool)> = Vec::new();
    let mut rest = template;
    let mut trims = false;
    while !rest.is_empty() {
        let (text, after) = rest.split_once("[[").unwrap_or((rest, ""));
        let text = if trims { text.trim_start() } else { text };
        let (action, tail) = after.split_once("]]").unwrap_or(("", ""));
        let text = if action.starts_with('-') { text.trim_end() } else { text };
        if open.iter().all(|(taken, _)| *taken) {
            out.push_str(text);
        }
        trims = action.ends_with('-');
        let action = action.trim_matches('-').trim();
        let holds = |condition: &str| {
            let words: Vec<&str> = condition.split_whitespace().collect();
            let ["eq", "(var", name, ".)", value] = words[..] else { panic!("{condition}") };
            values[name.trim_matches('"')] == value
        };
        let takes = open.iter().all(|(taken, _)| *taken);
        if let Some(condition) = action.strip_prefix("if ") {
            let is_so = holds(condition);
            open.push((is_so, is_so));
        } else if let Some(condition) = action.strip_prefix("else if ") {
            let (taken, was) = open.pop().unwrap();
            let is_so = !taken && !was && holds(condition);
            open.push((is_so, was || is_so));
        } else if action == "else" {
            let (_, was) = open.pop().unwrap();
            open.push((!was, true));
        } else if action == "end" {
            open.pop().unwrap();
        } else if let Some(what) = action.strip_prefix("var \"").filter(|_| takes) {
            let (name, how) = what.split_once("\" .").unwrap();
            let value = &values[name];
            match how.trim() {
                "| toJson" => out.push_str(value),
                "" => out.push_str(value.trim_matches('"')),
                other => panic!("{other}"),
            }
        } else if takes && action.starts_with("fail") {
            panic!("the template fails: {action}");
        } else {
            assert!(!takes || action.is_empty() || action.starts_with("/*"), "{action}");
        }
        rest = tail;
    }
    assert!(open.is_empty());
    out
}

/// The pack's template with its variables' defaults, some of them replaced.
fn pack(others: &[(&str, &str)]) -> String {
    let mut values: BTreeMap<String, String> = variables(&read(&format!("{PACK}/variables.hcl")))
        .into_iter()
        .map(|(name, attributes)| (name, attributes["default"].clone()))
        .collect();
    for (name, value) in others {
        assert!(values.insert((*name).to_owned(), format!("\"{value}\"")).is_some(), "{name}");
    }
    rendered(&read(&format!("{PACK}/templates/githubrunner.nomad.tpl")), &values)
}

/// The lines of the job itself, without empty ones.
fn job(hcl: &str) -> Vec<&str> {
    let (_, job) = hcl.split_once("\njob \"githubrunner\" {").unwrap();
    job.lines().filter(|line| !line.trim().is_empty()).collect()
}

#[test]
fn the_pack_is_the_job_of_the_job_file() {
    let file = read(JOB);
    assert_eq!(job(&pack(&[])), job(&file));
    let (of_job, of_pack) = (variables(&file), variables(&read(&format!("{PACK}/variables.hcl"))));
    assert!(of_job.len() >= 9, "{of_job:?}");
    for (name, attributes) in &of_job {
        assert_eq!(of_pack.get(name), Some(attributes), "{name}");
    }
    // And what the pack passes to them is the same again.
    for (name, attributes) in variables(&pack(&[])) {
        let same = |key: &str| {
            let plain = |text: &String| text.split_whitespace().collect::<String>();
            plain(&attributes[key]) == plain(&of_job[&name][key])
        };
        assert!(same("type") && same("default"), "{name}: {attributes:?}");
    }
    let metadata = read(&format!("{PACK}/metadata.hcl"));
    let version = format!("version     = \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(metadata.contains(&version), "{metadata}");
}

#[test]
fn each_token_source_is_another_block() {
    let has = |source: &str, words: &str| pack(&[("token_source", source)]).contains(words);
    assert!(has("variable", "GH_TOKEN={{ .token }}") && !has("variable", "vault {"));
    assert!(has("vault", "vault {") && has("vault", "{{ with secret \\\"nomad/jobs/githubrunner\\\" }}"));
    assert!(
        has("secret", "secret \"github\" {")
            && has("secret", "GH_TOKEN            = \"${secret.github.token}\"")
    );
    for source in ["vault", "secret"] {
        assert!(!has(source, "GH_TOKEN={{ .token }}"), "{source}");
    }
    let of_vault = pack(&[("token_source", "secret"), ("secret_provider", "vault")]);
    assert!(
        of_vault.contains("engine = \"kv_v2\"") && !of_vault.contains("namespace = \"github\"\n        }")
    );
}

/// A command of `nomad` on this agent.
fn nomad(agent: &Agent, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("nomad").args(arguments).env("NOMAD_ADDR", &agent.address).output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

#[tokio::test]
async fn a_real_agent_accepts_the_job_and_each_variant_of_the_pack() {
    let Some(agent) = Agent::start(AgentOptions::default()).await else { return };
    agent.create_namespace("github").await;
    let directory = tempfile::tempdir().unwrap();
    let links = "links={\"board\" = \"https://grafana.example.com/d/githubrunner\"}";
    for more in [&[][..], &["-var", links, "-var", "image=example/githubrunner:1", "-var", "service_tags=[]"]]
    {
        let (well, said) = nomad(&agent, &[&["job", "validate"], more, &[JOB]].concat());
        assert!(well && said.contains("Job validation successful"), "{more:?}: {said}");
    }
    let (_, json) = nomad(&agent, &["job", "run", "-output", "-var", links, JOB]);
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    let job = parsed.get("Job").unwrap_or(&parsed);
    let actions: Vec<&str> = job["TaskGroups"][0]["Tasks"][0]["Actions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|action| action["Name"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["plan", "check", "list"]);
    assert_eq!(job["UI"]["Links"][0]["Label"], "board");
    assert_eq!(job["TaskGroups"][0]["Services"][0]["Tags"][0], "prometheus");
    for (others, what) in [
        (&[][..], "variable"),
        (&[("token_source", "secret")], "secret"),
        (&[("token_source", "vault")], "vault"),
    ] {
        let path = directory.path().join(format!("{what}.nomad.hcl"));
        std::fs::write(&path, pack(others)).unwrap();
        let (well, said) = nomad(&agent, &["job", "validate", path.to_str().unwrap()]);
        // An agent without Vault parses the job, and reports that it has none.
        let is_well = well && said.contains("Job validation successful");
        assert!(is_well || what == "vault" && said.contains("Vault"), "{what}: {said}");
    }
}

#[test]
fn the_unit_is_hardened() {
    let version = Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status();
    if version.is_err() {
        println!("skipped: there is no systemd-analyze on PATH to look at the unit with");
        return;
    }
    let look = |unit: &Path| {
        let threshold = format!("--threshold={EXPOSURE}");
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager", &threshold])
            .arg(unit)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (well, said) = look(Path::new(UNIT));
    assert!(well, "{said}");
    // An unhardened unit is detected.
    let directory = tempfile::tempdir().unwrap();
    let open = directory.path().join("githubrunner.service");
    std::fs::write(
        &open,
        read(UNIT)
            .replace("ProtectSystem=strict", "")
            .replace("CapabilityBoundingSet=", "#")
            .replace("PrivateUsers=yes", "")
            .replace("SystemCallFilter", "#"),
    )
    .unwrap();
    assert!(!look(&open).0);
}

#[test]
fn the_package_has_what_the_unit_and_the_configuration_name() {
    let manifest = read("Cargo.toml");
    let (_, deb) = manifest.split_once("[package.metadata.deb]").unwrap();
    let unit = read(UNIT);
    assert!(unit.contains("ExecStart=/usr/bin/githubrunner -c /etc/githubrunner/config.yml run"), "{unit}");
    assert!(unit.contains("EnvironmentFile=-/etc/githubrunner/environment"), "{unit}");
    for asset in [
        "[\"target/release/githubrunner\", \"usr/bin/\", \"755\"]",
        "[\"packaging/config.yml\", \"etc/githubrunner/\", \"644\"]",
        "[\"packaging/environment\", \"etc/githubrunner/\", \"600\"]",
        "[\"target/package/deb/schema.json\", \"usr/share/githubrunner/\", \"644\"]",
    ] {
        assert!(deb.contains(asset), "{asset}");
    }
    let config = read("packaging/config.yml");
    assert!(config.starts_with("# yaml-language-server: $schema=/usr/share/githubrunner/schema.json\n"));
    let loaded = githubrunner::config::Config::load("packaging/config.yml", &|_| None).unwrap();
    assert_eq!(loaded.warnings(), Vec::<String>::new());
    let value: serde_json::Value = serde_yaml::from_str(&config).unwrap();
    assert!(jsonschema::is_valid(&githubrunner::config::schema(), &value));
    for file in deb.lines().filter_map(|line| line.trim().strip_prefix("[\"")) {
        let source = file.split('"').next().unwrap();
        if !source.starts_with("target/") && !source.contains('*') {
            assert!(Path::new(source).exists(), "{source}");
        }
    }
}

/// Whether a program is available; if not, prints what is skipped.
fn is_there(program: &str, arguments: &[&str]) -> bool {
    let ran = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = ran.is_ok_and(|status| status.success());
    if !is_there {
        println!("skipped: {program} {} does not run here", arguments.join(" "));
    }
    is_there
}

/// A command's output; it must succeed.
fn well(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// The package of the program as built for this test, installed by dpkg below a directory of its own, and removed
/// again.
#[test]
fn the_package_is_installed_and_removed_by_dpkg() {
    if !is_there("cargo", &["deb", "--version"]) || !is_there("dpkg", &["--version"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir_all(path("build/release")).unwrap();
    let (built, packed) = (env!("CARGO_BIN_EXE_githubrunner"), path("build/release/githubrunner"));
    // Smaller, and faster to pack.
    let stripped = Command::new("strip").arg("-o").arg(&packed).arg(built).status();
    if !stripped.is_ok_and(|status| status.success()) {
        std::fs::copy(built, &packed).unwrap();
    }
    let output = path("out");
    let mut deb = Command::new("scripts/deb");
    deb.args(["--profile", "release", "--output", output.to_str().unwrap()]);
    well(deb.env("CARGO_TARGET_DIR", path("build")).env("CARGO_NET_OFFLINE", "true"));
    let package = std::fs::read_dir(&output).unwrap().next().unwrap().unwrap().path();

    let root = path("root");
    std::fs::create_dir_all(root.join("var/lib/dpkg/updates")).unwrap();
    std::fs::create_dir_all(root.join("var/lib/dpkg/info")).unwrap();
    std::fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let dpkg = |arguments: &[&str]| {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", root.display()));
        // The directory has nothing that its scripts could run in, and no other package.
        dpkg.args(["--force-depends", "--force-script-chrootless", "--force-not-root", "--force-bad-path"]);
        well(dpkg.args(arguments).env("LC_ALL", "C"))
    };
    let said = dpkg(&["--install", package.to_str().unwrap()]);
    assert!(said.contains("Setting up githubrunner"), "{said}");
    assert!(dpkg(&["--status", "githubrunner"]).contains("Status: install ok installed"));
    let program = root.join("usr/bin/githubrunner");
    let version = well(Command::new(&program).arg("--version"));
    assert_eq!(version, format!("githubrunner {}\n", env!("CARGO_PKG_VERSION")));
    for file in [
        "usr/share/man/man1/githubrunner-explain.1.gz",
        "usr/share/bash-completion/completions/githubrunner",
        "usr/share/zsh/vendor-completions/_githubrunner",
        "usr/share/fish/vendor_completions.d/githubrunner.fish",
        "usr/share/githubrunner/schema.json",
        "usr/share/githubrunner/nomad/githubrunner.policy.hcl",
        "usr/share/doc/githubrunner/contracts/nomad.md",
        "usr/share/doc/githubrunner/copyright",
    ] {
        assert!(root.join(file).is_file(), "{file}");
    }
    let secret = std::fs::metadata(root.join("etc/githubrunner/environment")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&secret.permissions()) & 0o777, 0o600);
    // The package's program can read the package's configuration.
    let config = root.join("etc/githubrunner/config.yml");
    let shown = well(Command::new(&program).arg("-c").arg(&config).arg("dumpconfig").env_clear());
    assert!(shown.contains("listen: 127.0.0.1:9090"), "{shown}");

    let unit = std::fs::read_to_string(root.join("usr/lib/systemd/system/githubrunner.service")).unwrap();
    if is_there("systemd-analyze", &["--version"]) {
        // systemd looks for the program.
        let here = path("githubrunner.service");
        std::fs::write(&here, unit.replace("/usr/bin/githubrunner", program.to_str().unwrap())).unwrap();
        well(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&here));
    }

    // A changed configuration file stays when the package is removed, and is deleted when it is purged.
    std::fs::write(&config, "repos: [acme]\n").unwrap();
    dpkg(&["--remove", "githubrunner"]);
    assert!(config.is_file() && !program.exists());
    dpkg(&["--purge", "githubrunner"]);
    assert!(!config.exists());
}
