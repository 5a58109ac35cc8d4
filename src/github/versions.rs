//! When GitHub stops giving jobs to a runner version (contract github.md §8).

use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::{
    api::{GitHub, Repeat},
    auth::Principal,
    error::Error,
    runners::Scope,
};
use crate::http::date_of;

/// How long before its end a version causes a warning.
const WARNED_BEFORE: SignedDuration = SignedDuration::from_hours(14 * 24);

/// When a runner version ends. The newest one has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionEnds {
    /// It gets no jobs from then on.
    pub jobs: Option<Timestamp>,
    /// It cannot be registered from then on.
    pub registration: Option<Timestamp>,
    /// The response's `Date`.
    pub now: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    runtime_deprecates_at: Option<String>,
    #[serde(default)]
    registration_deprecates_at: Option<String>,
}

impl VersionEnds {
    /// A warning, from two weeks before its end.
    pub fn warning(&self, version: &str) -> Option<String> {
        let now = self.now?;
        let is_near = |at: &Timestamp| at.duration_since(now) <= WARNED_BEFORE;
        let told = |what: &str, at: Timestamp| {
            let day = at.strftime("%Y-%m-%d");
            let verb = if at <= now { format!("{what} since") } else { format!("{what} from") };
            format!(
                "runner {version} {verb} {day} on: update the runner in the image or directory of the template"
            )
        };
        let jobs = self.jobs.filter(is_near).map(|at| told("gets no jobs", at));
        jobs.or_else(|| self.registration.filter(is_near).map(|at| told("is not registered", at)))
    }
}

impl GitHub {
    /// When this runner version ends; `None` if GitHub does not know it, as on an Enterprise Server.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn version_ends(&self, scope: &Scope, version: &str) -> Result<Option<VersionEnds>, Error> {
        let path =
            self.runners_path(scope, &format!("/deprecations/{}", crate::http::escape_segment(version)));
        let principal = Principal::Owner(scope.owner().to_owned());
        let build = |_: &_| self.request(Method::GET, path.clone());
        let (response, _) = self.authorized(&principal, "read", Repeat::AfterFailures, build).await?;
        match response.status.as_u16() {
            404 => Ok(None),
            200 => {
                let answer: Answer = response.json()?;
                let at = |text: Option<String>| text.and_then(|text| text.parse().ok());
                Ok(Some(VersionEnds {
                    jobs: at(answer.runtime_deprecates_at),
                    registration: at(answer.registration_deprecates_at),
                    now: date_of(&response.headers),
                }))
            }
            _ => Err(Error::from_answer(&response)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_warned_about_from_two_weeks_before_its_end() {
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let ends = |now: &str| VersionEnds {
            jobs: at("2026-08-10T00:00:00Z"),
            registration: at("2027-01-01T00:00:00Z"),
            now: at(now),
        };
        assert_eq!(ends("2026-07-26T00:00:00Z").warning("2.334.0"), None);
        let warning = ends("2026-07-27T00:00:00Z").warning("2.334.0").unwrap();
        assert!(warning.starts_with("runner 2.334.0 gets no jobs from 2026-08-10 on: update"), "{warning}");
        let warning = ends("2026-08-11T00:00:00Z").warning("2.334.0").unwrap();
        assert!(warning.contains("gets no jobs since 2026-08-10"), "{warning}");
        let newest = VersionEnds { jobs: None, registration: None, now: at("2026-08-11T00:00:00Z") };
        assert_eq!(newest.warning("2.340.0"), None);
    }
}
