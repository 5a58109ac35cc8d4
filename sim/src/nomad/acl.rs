//! Access control (contract, section 7). Without ACLs, everything is allowed, except over the task API, which
//! always needs an existing token.

use super::{
    Nomad, TaskPhase,
    options::{Policy, Token, TokenKind},
    placement::glob,
};

/// The permissions of a request.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Everything: ACLs are off, or the token is a management token.
    pub all: bool,
    policies: Vec<Policy>,
    workload: Option<Workload>,
    /// The token itself, unless it is a workload identity.
    pub token: Option<Token>,
}

#[derive(Debug, Clone)]
struct Workload {
    namespace: String,
    job_id: String,
}

/// The token of a task's default workload identity.
pub fn workload_token(allocation: &str, task: &str) -> String {
    format!("wi.{allocation}.{task}")
}

impl Access {
    /// Whether it has one of these capabilities in a namespace.
    pub fn namespace(&self, namespace: &str, capabilities: &[&str]) -> bool {
        self.all
            || self
                .rules(namespace)
                .any(|rules| capabilities.iter().any(|capability| rules.capabilities.contains(*capability)))
    }

    /// Whether it has any capability in a namespace.
    pub fn sees(&self, namespace: &str) -> bool {
        self.all || self.rules(namespace).any(|rules| !rules.capabilities.is_empty())
    }

    fn rules<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a super::NamespaceRules> {
        let policies = self.policies.iter().flat_map(|policy| &policy.namespaces);
        policies.filter(move |(pattern, _)| glob(pattern, namespace)).map(|(_, rules)| rules)
    }

    /// Whether it has this capability for a variable. A workload may always read its own.
    pub fn variable(&self, namespace: &str, path: &str, capability: &str) -> bool {
        if self.all {
            return true;
        }
        let own = self.workload.as_ref().is_some_and(|workload| {
            let base = format!("nomad/jobs/{}", workload.job_id);
            let below = path.strip_prefix(&base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            workload.namespace == namespace
                && (path == "nomad/jobs" || below)
                && matches!(capability, "read" | "list")
        });
        own || self.rules(namespace).any(|rules| {
            let fitting = rules.variables.iter().filter(|rule| glob(&rule.path, path));
            let nearest = fitting.max_by_key(|rule| rule.path.len());
            // `read` includes `list`.
            nearest.is_some_and(|rule| {
                let has = |capability: &str| rule.capabilities.contains(capability);
                has(capability) || capability == "list" && has("read")
            })
        })
    }
}

impl Nomad {
    /// The permissions of a token; `None` if it does not exist.
    pub(super) fn access(&self, token: &str) -> Option<Access> {
        if let Some(found) = self.options.tokens.iter().find(|known| known.secret == token) {
            return Some(match &found.kind {
                TokenKind::Management => {
                    Access { all: true, token: Some(found.clone()), ..Access::default() }
                }
                TokenKind::Client(policies) => {
                    Access { policies: policies.clone(), token: Some(found.clone()), ..Access::default() }
                }
                TokenKind::Workload { namespace, job_id } => self.workload(namespace, job_id),
            });
        }
        let (allocation, task) = token.strip_prefix("wi.")?.split_once('.')?;
        let allocation = self.allocations.get(allocation)?;
        let alive = |t: &super::Task| t.name == task && t.phase != TaskPhase::Dead;
        let known = allocation.client.tasks.iter().any(alive);
        known.then(|| self.workload(&allocation.namespace, &allocation.job_id))
    }

    fn workload(&self, namespace: &str, job_id: &str) -> Access {
        let attached = |policy: &&super::JobPolicy| policy.namespace == namespace && policy.job_id == job_id;
        Access {
            policies: self.options.job_policies.iter().filter(attached).map(|p| p.policy.clone()).collect(),
            workload: Some(Workload { namespace: namespace.to_owned(), job_id: job_id.to_owned() }),
            ..Access::default()
        }
    }

    /// Whether the policies attached to a job give its tasks this capability for a variable.
    pub(super) fn job_may(&self, namespace: &str, job_id: &str, path: &str, capability: &str) -> bool {
        !self.options.job_policies.is_empty()
            && self.workload(namespace, job_id).variable(namespace, path, capability)
    }
}
