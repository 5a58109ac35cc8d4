//! Displays a failing case.

use std::fmt;

use githubrunner::{model::*, plan::Policy};

use crate::cases::{Case, server_now};

/// The whole of a case, for people.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Policy { max_runners, max_runners_per_repository, max_runners_per_group, strict, .. } =
            &self.policy;
        writeln!(
            f,
            "\ncaps: all {max_runners:?}, repository {max_runners_per_repository:?}, group \
             {max_runners_per_group:?}; strict {strict}, inactivity {:?}, purge {:?} / {:?}, patience {:?}",
            self.policy.runner_inactivity_timeout,
            self.policy.purge_successfull_timeout,
            self.policy.purge_failure_timeout,
            self.policy.pending_to_kill_listening
        )?;
        self.repositories(f)?;
        self.runners_for_people(f)?;
        let memory = &self.observation.memory;
        writeln!(f, "surplus before {:?}", memory.surplus)?;
        writeln!(f, "presence {:?}\nlast busy {:?}", memory.presence, memory.last_busy)?;
        writeln!(f, "runner backoff {:?}\nstart backoff {:?}", memory.runner_backoff, memory.start_backoff)?;
        writeln!(f, "registrations {:?}", self.observation.registrations)?;
        writeln!(f, "variables {:?}", self.observation.nomad.as_ref().map(|nomad| &nomad.variables))?;
        writeln!(f, "alone since {:?}", memory.orphans)?;
        writeln!(f, "last starts {:?}\nPLAN\n{}", memory.last_start, self.plan())
    }
}

fn since(at: Timestamp) -> String {
    format!("{}s ago", server_now().duration_since(at).as_secs())
}

impl Case {
    fn repositories(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for view in self.observation.repositories.values() {
            let kind = match &view.listing {
                Listing::Fresh { complete, .. } => format!("fresh, complete {complete}"),
                Listing::Earlier { complete, .. } => format!("earlier, complete {complete}"),
                Listing::Stale { complete, .. } => format!("stale, complete {complete}"),
                Listing::Unseen { .. } => "unseen".to_owned(),
                Listing::Gone { since } => format!("gone since {since:?}"),
            };
            let Repository { archived, disabled, .. } = view.repository;
            writeln!(
                f,
                "{} ({}): {kind}, configured {}, archived {archived}, disabled {disabled}",
                view.repository.full_name(),
                view.repository.id,
                view.configured
            )?;
            for job in view.listing.jobs() {
                writeln!(
                    f,
                    "  job {} {} {:?} on {:?}, made {:?}",
                    job.id,
                    job.status.as_str(),
                    job.labels,
                    job.runner_name,
                    job.created_at.map(since)
                )?;
            }
        }
        Ok(())
    }

    fn runners_for_people(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for r in self.runners() {
            writeln!(
                f,
                "runner {} {} {:?} repo {:?} [{}] job_id {:?}.{:?} {:?}: started {} lost {} variable {}, submitted \
                 {}, placed {:?}, started {:?}, ended {:?} {:?} {:?}",
                r.name,
                r.state,
                r.ownership,
                r.meta.repo_id.map(|id| id.0),
                r.meta.labelsstr,
                r.meta.job_id(),
                r.meta.attempt,
                r.registration(),
                r.started,
                r.spent,
                r.variable.is_some(),
                since(r.submitted_at),
                r.allocation.as_ref().map(|a| since(a.created_at)),
                r.started_at.map(since),
                r.ended_at.map(since),
                r.finish,
                r.blocked
            )?;
        }
        Ok(())
    }
}
