//! What a runner is started for.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::JobId;

/// What a runner is started for. A start for one purpose has a number, and a name that nothing else has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// A job of GitHub. Its attempts are counted from 1.
    Job(JobId),
    /// To be ready before there is a job for it.
    Warm(Warm),
}

/// What a warm runner was started as.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Warm {
    /// The entry of the configuration: [`crate::config::WarmEntry::id`].
    pub entry: String,
    /// Identifies the settings that it was started with.
    #[serde(default)]
    pub settings: String,
    /// How many runners of the entry before it failed in a row.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Purpose {
    /// The job, unless it is a warm runner.
    pub fn job_id(&self) -> Option<JobId> {
        match self {
            Purpose::Job(job_id) => Some(*job_id),
            Purpose::Warm(_) => None,
        }
    }

    /// The warm runner, unless it was started for a job.
    pub fn warm(&self) -> Option<&Warm> {
        match self {
            Purpose::Job(_) => None,
            Purpose::Warm(warm) => Some(warm),
        }
    }
}

impl From<JobId> for Purpose {
    fn from(job_id: JobId) -> Self {
        Purpose::Job(job_id)
    }
}

/// What tells purposes apart in a runner's name.
impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Purpose::Job(job_id) => write!(f, "{job_id}"),
            Purpose::Warm(warm) => write!(f, "warm {}", warm.entry),
        }
    }
}

/// The fields of a Meta that hold it.
#[derive(Serialize, Deserialize)]
struct Fields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job_id: Option<JobId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warm: Option<Warm>,
}

pub(super) fn serialize<S: Serializer>(purpose: &Option<Purpose>, serializer: S) -> Result<S::Ok, S::Error> {
    let job_id = purpose.as_ref().and_then(Purpose::job_id);
    let warm = purpose.as_ref().and_then(Purpose::warm).cloned();
    Fields { job_id, warm }.serialize(serializer)
}

pub(super) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Option<Purpose>, D::Error> {
    let Fields { job_id, warm } = Fields::deserialize(deserializer)?;
    match (job_id, warm) {
        (Some(_), Some(_)) => Err(D::Error::custom("a runner is either for a job or warm")),
        (Some(job_id), None) => Ok(Some(Purpose::Job(job_id))),
        (None, Some(warm)) => Ok(Some(Purpose::Warm(warm))),
        (None, None) => Ok(None),
    }
}
