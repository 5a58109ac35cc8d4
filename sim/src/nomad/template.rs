//! `template` blocks: the part of consul-template that puts a variable's items into a task's environment
//! (contract, section 8).

use std::collections::BTreeMap;

use super::{Key, Nomad, gotemplate::Engine, state::Allocation};

/// The result of rendering a task's templates.
pub enum Rendered {
    /// The task's whole environment.
    Ready(BTreeMap<String, String>),
    /// The paths of variables that do not exist, or not for this task.
    Missing(Vec<String>),
    /// A template is invalid.
    Broken(String),
}

/// Whether a change of this variable could affect an allocation's templates.
pub fn reads(allocation: &Allocation, path: &str) -> bool {
    let templates = || allocation.spec.tasks.iter().flat_map(|task| &task.templates);
    templates().any(|t| t.data.contains(path) || t.data.contains("printf") || t.data.contains("nomadVar ("))
}

impl Nomad {
    /// The environment of a task, including the output of its templates.
    pub(super) fn render(&self, allocation: &Allocation, at: usize) -> Rendered {
        let Some(spec) = allocation.spec.tasks.get(at) else { return Rendered::Ready(BTreeMap::new()) };
        let own = self.nomad_environment(allocation, at);
        let mut env: BTreeMap<String, String> = own.clone();
        env.extend(spec.env.iter().map(|(key, value)| (key.clone(), interpolate(value, &own))));
        let base = format!("nomad/jobs/{}", allocation.job_id);
        let readable = [
            "nomad/jobs".to_owned(),
            base.clone(),
            format!("{base}/{}", allocation.group),
            format!("{base}/{}/{}", allocation.group, spec.name),
        ];
        let mut missing = Vec::new();
        for template in spec.templates.iter() {
            let lookup = |path: &str| {
                let allowed = readable.iter().any(|own| own == path)
                    || self.job_may(&allocation.namespace, &allocation.job_id, path, "read");
                let key: Key = (allocation.namespace.clone(), path.to_owned());
                self.variables.get(&key).filter(|_| allowed)
            };
            let mut engine = Engine::new(lookup, &env);
            let text = match engine.template(&template.data) {
                Ok(text) => text,
                Err(error) => return Rendered::Broken(error),
            };
            missing.append(&mut engine.missing);
            if template.env {
                env.extend(env_file(&text));
            }
        }
        if missing.is_empty() { Rendered::Ready(env) } else { Rendered::Missing(missing) }
    }

    /// The `NOMAD_` variables of a task.
    fn nomad_environment(&self, allocation: &Allocation, at: usize) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        let Some(spec) = allocation.spec.tasks.get(at) else { return env };
        let datacenter =
            self.nodes.get(&allocation.node).map(|n| n.node.datacenter.clone()).unwrap_or_default();
        let short = allocation.id.get(..8).unwrap_or_default();
        for (name, value) in [
            ("ALLOC_DIR", "/alloc".to_owned()),
            ("ALLOC_ID", allocation.id.clone()),
            ("ALLOC_INDEX", allocation.index.to_string()),
            ("ALLOC_NAME", allocation.name.clone()),
            ("CPU_LIMIT", spec.cpu.to_string()),
            ("DC", datacenter),
            ("GROUP_NAME", allocation.group.clone()),
            ("JOB_ID", allocation.job_id.clone()),
            ("JOB_NAME", allocation.job.name.clone()),
            ("MEMORY_LIMIT", spec.memory_mb.to_string()),
            ("NAMESPACE", allocation.namespace.clone()),
            ("REGION", self.options.region.clone()),
            ("SECRETS_DIR", "/secrets".to_owned()),
            ("SHORT_ALLOC_ID", short.to_owned()),
            ("TASK_DIR", "/local".to_owned()),
            ("TASK_NAME", spec.name.clone()),
        ] {
            env.insert(format!("NOMAD_{name}"), value);
        }
        for (key, value) in allocation.job.meta.iter().chain(&spec.meta) {
            env.insert(format!("NOMAD_META_{key}"), value.clone());
        }
        if spec.token_in_env {
            env.insert("NOMAD_TOKEN".into(), super::acl::workload_token(&allocation.id, &spec.name));
        }
        env
    }
}

/// Replaces `${NOMAD_…}` and `${env["NOMAD_…"]}`. Everything else is kept.
fn interpolate(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(end) = rest.get(start..).and_then(|tail| tail.find('}')).map(|end| start + end) else {
            break;
        };
        let name = rest[start + 2..end].trim();
        let name = name.strip_prefix("env[\"").and_then(|n| n.strip_suffix("\"]")).unwrap_or(name);
        out.push_str(&rest[..start]);
        match env.get(name) {
            Some(value) => out.push_str(value),
            None => out.push_str(&rest[start..=end]),
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    out
}

/// `KEY=VALUE` lines.
fn env_file(text: &str) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((key, value)) = line.trim_start_matches("export ").split_once('=') else { continue };
        let value = value.trim();
        let quoted = |quote: char| value.strip_prefix(quote).and_then(|v| v.strip_suffix(quote));
        let value = match (quoted('"'), quoted('\'')) {
            (Some(_), _) => {
                serde_json::from_str(value).unwrap_or_else(|_| value.trim_matches('"').to_owned())
            }
            (_, Some(inner)) => inner.to_owned(),
            _ => value.to_owned(),
        };
        env.insert(key.trim().to_owned(), value);
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_an_environment() {
        let env = env_file("A=1\n# no\nB=\"x y\"\nexport C='z'\n\n");
        let wanted = [("A", "1"), ("B", "x y"), ("C", "z")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(env, BTreeMap::from(wanted));
        let known = BTreeMap::from([("NOMAD_JOB_ID".to_owned(), "p".to_owned())]);
        assert_eq!(
            interpolate("${NOMAD_JOB_ID}/${env[\"NOMAD_JOB_ID\"]}/${meta.x}", &known),
            "p/p/${meta.x}"
        );
    }
}
