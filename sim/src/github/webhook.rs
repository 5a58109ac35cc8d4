//! The payload of `workflow_job` webhooks (contract §5).

use serde_json::{Value, json};

use super::{GitHub, data::*, reply::time, shapes::extend};
use crate::github::data::Detail;

impl GitHub {
    /// The body of the webhook for a job: `action` is queued, in_progress, completed or waiting. A held job's `queued`
    /// can contain `status: waiting`, like GitHub's. `base` is the API's base URL. `None` for an unknown job.
    pub fn workflow_job_event(&self, job: u64, action: &str, base: &str) -> Option<Value> {
        let job = self.jobs.get(&job)?;
        let repository = self.repositories.get(&job.repository)?;
        let owner = self.owners.get(&repository.owner)?;
        let mut workflow_job = self.job_json(job, base);
        if matches!(job.status, Status::Pending | Status::Requested) {
            workflow_job["status"] = json!("waiting");
        }
        if job.status == Status::InProgress {
            // The webhook for a job in progress has at least one step.
            workflow_job["steps"] = json!([{
                "name": "Set up job", "status": "in_progress", "conclusion": null, "number": 1,
                "started_at": time(job.started_at), "completed_at": null,
            }]);
        }
        let mut shown = self.repository_json(repository.id, base, Detail::Short)?;
        extend(&mut shown, json!({"custom_properties": {}}));
        if let Some(object) = shown.as_object_mut() {
            object.shift_remove("permissions");
            object.shift_remove("has_discussions");
        }
        let sender = self.user_json(repository.owner, base, Detail::Short);
        let mut event =
            json!({"action": action, "workflow_job": workflow_job, "repository": shown, "sender": sender});
        if owner.organization {
            event["organization"] = self.short_organization_json(owner.id, base);
        }
        Some(event)
    }

    /// An organization in the format of webhooks.
    pub(super) fn short_organization_json(&self, id: u64, base: &str) -> Value {
        let Some(owner) = self.owners.get(&id) else { return Value::Null };
        let sender = self.user_json(id, base, Detail::Short);
        let url = format!("{base}/orgs/{}", owner.login);
        json!({
                "login": owner.login, "id": owner.id, "node_id": sender["node_id"], "url": url,
                "repos_url": format!("{url}/repos"), "events_url": format!("{url}/events"),
                "hooks_url": format!("{url}/hooks"), "issues_url": format!("{url}/issues"),
                "members_url": format!("{url}/members{{/member}}"),
                "public_members_url": format!("{url}/public_members{{/member}}"),
                "avatar_url": sender["avatar_url"], "description": "",
        })
    }
}
