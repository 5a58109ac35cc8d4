//! The names and descriptions of the metrics.

use prometheus_client::{
    metrics::info::Info,
    registry::{Registry, Unit},
};

use super::{Metrics, labels};

impl Metrics {
    pub(super) fn register_passes(&self, own: &mut Registry) {
        own.register(
            "build",
            "The running version",
            Info::new(labels([("version", env!("CARGO_PKG_VERSION"))])),
        );
        own.register("passes", "Passes since the start", self.passes.clone());
        own.register_with_unit(
            "pass_duration",
            "How long passes took",
            Unit::Seconds,
            self.pass_duration.clone(),
        );
        own.register_with_unit(
            "look_duration",
            "How long polling a repository took, by what was requested",
            Unit::Seconds,
            self.look_duration.clone(),
        );
        own.register_with_unit(
            "last_pass_timestamp",
            "When the last pass ended",
            Unit::Seconds,
            self.last_pass.clone(),
        );
        own.register("nomad_up", "Whether the last pass reached Nomad", self.nomad_up.clone());
        own.register(
            "github_up",
            "Whether the most recent poll of at least one repository succeeded",
            self.github_up.clone(),
        );
        own.register("leader", "Whether this replica is the leader", self.leader.clone());
        own.register(
            "repositories",
            "Repositories, by whether the last pass had a listing of them",
            self.repositories.clone(),
        );
    }

    pub(super) fn register_jobs(&self, own: &mut Registry) {
        own.register(
            "jobs_queued",
            "Queued GitHub jobs that request one of our runners",
            self.jobs_queued.clone(),
        );
        own.register(
            "jobs_held",
            "GitHub jobs that deliberately get no runner now, by reason",
            self.jobs_held.clone(),
        );
        own.register("jobs_running", "GitHub jobs running on our runners", self.jobs_running.clone());
        own.register(
            "holds",
            "Everything that is deliberately not done, by kind of subject and by reason",
            self.holds.clone(),
        );
    }

    pub(super) fn register_waiting(&self, own: &mut Registry) {
        for (name, help, family) in [
            ("waiting_runners", "Runners that Nomad has not placed yet, by node pool", &self.waiting_runners),
            (
                "waiting_cpu_megahertz",
                "CPU requested by runners that Nomad has not placed yet, by node pool",
                &self.waiting_cpu,
            ),
            (
                "waiting_cores",
                "Cores requested by runners that Nomad has not placed yet, by node pool",
                &self.waiting_cores,
            ),
            (
                "waiting_memory_bytes",
                "Memory requested by runners that Nomad has not placed yet, by node pool",
                &self.waiting_memory,
            ),
        ] {
            own.register(name, help, family.clone());
        }
    }

    pub(super) fn register_runners(&self, own: &mut Registry) {
        own.register("runners", "Runners, by state and class", self.runners.clone());
        own.register(
            "runners_finished",
            "Runners that have ended since the start, by result",
            self.finishes.clone(),
        );
        own.register(
            "actions",
            "Actions since the start, by action, reason and outcome",
            self.actions.clone(),
        );
        own.register(
            "runner_version_end_timestamp_seconds",
            "When a runner version stops getting jobs",
            self.version_ends.clone(),
        );
        own.register(
            "webhook_requests",
            "Requests to the webhook port, by outcome",
            self.webhook_requests.clone(),
        );
        own.register("hints", "Reasons to poll a repository soon, by source", self.hints.clone());
    }

    pub(super) fn register_times(&self, own: &mut Registry) {
        for (name, help, histogram) in [
            (
                "job_queued_to_started",
                "From the time a job is queued to the registration of its first runner at Nomad",
                &self.queued_to_started,
            ),
            (
                "job_queued_to_taken",
                "From the time a job is queued to its start on one of our runners, by GitHub's clock",
                &self.queued_to_taken,
            ),
            (
                "runner_started_to_connected",
                "From a runner's registration at Nomad to the first time it is seen connected to GitHub",
                &self.started_to_connected,
            ),
            ("job_duration", "How long jobs ran on our runners", &self.job_duration),
        ] {
            own.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
    }

    pub(super) fn register_requests(&self, own: &mut Registry) {
        own.register(
            "requests",
            "Requests by host, route and class of the response's status",
            self.requests.clone(),
        );
        own.register_with_unit(
            "request_duration",
            "How long requests took, by host and route",
            Unit::Seconds,
            self.request_duration.clone(),
        );
        own.register(
            "github_rate_limit",
            "Requests that GitHub allows in a bucket's period",
            self.rate_limit.clone(),
        );
        own.register("github_rate_limit_remaining", "Requests left in a bucket", self.rate_remaining.clone());
        own.register(
            "github_rate_limit_reset_timestamp_seconds",
            "When a bucket resets, by GitHub's clock",
            self.rate_reset.clone(),
        );
        own.register(
            "github_points_per_minute",
            "Points of GitHub's secondary limit used in the last minute",
            self.points.clone(),
        );
    }
}
