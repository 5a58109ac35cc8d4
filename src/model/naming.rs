//! Names of runners: valid at GitHub and in Nomad, unique, and deterministic.

use ring::digest::SHA256;

use super::{Namespace, Purpose};

/// GitHub's limit for a runner name, in characters (contract github.md §2).
pub const RUNNER_NAME_MAX: usize = 64;

/// Length of the last part of a name. It is fixed so that no job ID is a prefix of another: before Nomad
/// 1.11.3, a job's status also counts the evaluations of jobs whose ID starts with its own (contract nomad.md
/// §2).
pub const SUFFIX_LENGTH: usize = DEPLOYMENT_LENGTH + ATTEMPT_LENGTH;

/// 25 bits that distinguish deployments in a list of registrations.
const DEPLOYMENT_LENGTH: usize = 5;

/// 50 bits that distinguish the jobs and attempts of one deployment.
const ATTEMPT_LENGTH: usize = 10;

/// `PREFIX-owner-repo-SUFFIX` for a repository `owner/repo`, at most [`RUNNER_NAME_MAX`] of `[a-zA-Z0-9_-]`. The suffix
/// is a hash of the deployment ID followed by a hash of deployment ID, purpose (the GitHub job), attempt, and the
/// namespace if it is not the daemon's own. So a name is used in one namespace only, and a copy of a runner's job in another one has the wrong
/// name.
pub fn runner_name(
    prefix: &str,
    deployment: &str,
    namespace: Option<&Namespace>,
    full_name: &str,
    purpose: impl Into<Purpose>,
    attempt: u32,
) -> String {
    let mut start = format!("{deployment}\n{}\n{attempt}", purpose.into());
    if let Some(Namespace { name, region }) = namespace {
        start.push_str(&format!("\n{name}\n{}", region.as_deref().unwrap_or_default()));
    }
    let suffix = hash(deployment, DEPLOYMENT_LENGTH) + &hash(&start, ATTEMPT_LENGTH);
    let readable: String = full_name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' })
        .collect();
    let room = RUNNER_NAME_MAX.saturating_sub(prefix.len() + SUFFIX_LENGTH + 2);
    let readable = &readable[..readable.len().min(room)];
    format!("{prefix}-{readable}-{suffix}")
}

/// The last part of a runner's name, which is unique.
pub fn last_part(name: &str) -> &str {
    name.rsplit('-').next().unwrap_or(name)
}

/// Identifies a text.
pub fn digest(text: &str) -> String {
    hash(text, ATTEMPT_LENGTH)
}

/// Identifies a job within its run across attempts: its ID changes with each re-run, its name does not. A hash, because
/// names are external text.
pub fn job_key(name: &str) -> String {
    hash(name, ATTEMPT_LENGTH)
}

/// Whether this deployment gave a registration its name: it has the prefix and the deployment's hash.
pub fn is_ours_by_name(prefix: &str, deployment: &str, name: &str) -> bool {
    let Some(rest) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')) else { return false };
    let Some((_, suffix)) = rest.rsplit_once('-') else { return false };
    suffix.len() == SUFFIX_LENGTH && suffix.starts_with(&hash(deployment, DEPLOYMENT_LENGTH))
}

/// The first `length` characters of the text's SHA-256 in base 32.
fn hash(text: &str, length: usize) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    ring::digest::digest(&SHA256, text.as_bytes())
        .as_ref()
        .iter()
        .take(length)
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect()
}
