//! The target of `explain`: the URL of a job or a run, a repository, or a runner.

use crate::model::{JobId, RunId, is_login, is_repository_name};

/// A target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A GitHub job.
    Job {
        owner: String,
        name: String,
        /// GitHub's ID.
        id: JobId,
    },
    /// All jobs of a workflow run.
    Run {
        owner: String,
        name: String,
        /// GitHub's ID.
        id: RunId,
    },
    /// A repository and its jobs.
    Repository { owner: String, name: String },
    /// A runner, by its ID in Nomad.
    Runner(String),
}

impl Target {
    /// Parses an argument: a URL of the web site or of the API, `owner/name`, or a runner's ID.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &str) -> Result<Target, String> {
        let text = text.trim();
        let parts: Vec<&str> = match text.split_once("://") {
            Some((_, rest)) => {
                let path = rest.split(['?', '#']).next().unwrap_or_default();
                path.split('/').skip(1).filter(|part| !part.is_empty()).collect()
            }
            None => text.split('/').collect(),
        };
        // A URL of the API: `/repos/…`, on an Enterprise Server `/api/v3/repos/…`.
        let after = parts.iter().position(|part| *part == "repos").map_or(0, |at| at + 1);
        let parts = if text.contains("://") { &parts[after..] } else { &parts[..] };
        let number = |text: &str| text.parse::<u64>().ok();
        let unknown = || {
            "pass the URL of a job, a run or a repository, OWNER/REPO, or a runner's ID as `list` shows it"
                .to_owned()
        };
        if let [name] = parts
            && !text.contains("://")
            && !name.is_empty()
        {
            return Ok(Target::Runner((*name).to_owned()));
        }
        let [owner, name, rest @ ..] = parts else { return Err(unknown()) };
        if !is_login(owner) || !is_repository_name(name) {
            return Err(unknown());
        }
        let (owner, name) = ((*owner).to_owned(), (*name).to_owned());
        match rest {
            [] | ["actions"] => Ok(Target::Repository { owner, name }),
            ["actions", "runs", _, "job" | "jobs", id]
            | ["actions", "jobs", id]
            | ["runs" | "checks", id] => {
                Ok(Target::Job { owner, name, id: JobId(number(id).ok_or_else(unknown)?) })
            }
            ["actions", "runs", id]
            | ["actions", "runs", id, "attempts", _]
            | ["actions", "runs", id, "jobs"] => {
                Ok(Target::Run { owner, name, id: RunId(number(id).ok_or_else(unknown)?) })
            }
            ["actions", "runs", _, "attempts", _, "jobs" | "job", id] => {
                Ok(Target::Job { owner, name, id: JobId(number(id).ok_or_else(unknown)?) })
            }
            _ => Err(unknown()),
        }
    }

    /// The repository, if the target names one.
    pub fn repository(&self) -> Option<(&str, &str)> {
        match self {
            Target::Job { owner, name, .. }
            | Target::Run { owner, name, .. }
            | Target::Repository { owner, name } => Some((owner, name)),
            Target::Runner(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_as_people_copy_them() {
        let (owner, name) = ("acme".to_owned(), "app".to_owned());
        let job = Target::Job { owner: owner.clone(), name: name.clone(), id: JobId(7) };
        for text in [
            "https://github.com/acme/app/actions/runs/5/job/7",
            "https://github.com/acme/app/actions/runs/5/job/7?pr=3#step:4:1",
            "https://github.com/acme/app/actions/runs/5/attempts/2/job/7",
            "https://github.com/acme/app/runs/7",
            "https://api.github.com/repos/acme/app/actions/jobs/7",
            "https://ghes.example.com/api/v3/repos/acme/app/actions/jobs/7",
        ] {
            assert_eq!(Target::parse(text).as_ref(), Ok(&job), "{text}");
        }
        let run = Target::Run { owner: owner.clone(), name: name.clone(), id: RunId(5) };
        for text in [
            "https://github.com/acme/app/actions/runs/5",
            "https://github.com/acme/app/actions/runs/5/attempts/2",
            "https://api.github.com/repos/acme/app/actions/runs/5",
        ] {
            assert_eq!(Target::parse(text).as_ref(), Ok(&run), "{text}");
        }
        let repository = Target::Repository { owner, name };
        for text in ["acme/app", "https://github.com/acme/app", "https://github.com/acme/app/", " acme/app "]
        {
            assert_eq!(Target::parse(text).as_ref(), Ok(&repository), "{text}");
        }
        assert_eq!(Target::parse("NT-acme-app-x"), Ok(Target::Runner("NT-acme-app-x".to_owned())));
        for text in [
            "",
            "https://github.com/acme",
            "https://github.com/acme/app/pulls",
            "a/b/c",
            "https://x/a/b/runs/y",
            "a b/c",
        ] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
