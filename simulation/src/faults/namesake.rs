//! A repository is renamed, and another one takes its name; later the first one has it back.

use githubrunner_sim::{github::JobSpec, world::World};
use jiff::Timestamp;

/// The suffix of a repository's name while another one has its name.
const OLD: &str = "-old";

/// Repositories that take each other's names.
pub trait Rename {
    /// From now on another repository has this one's name, and a run is queued there.
    fn take_name(&mut self, id: u64, jobs: &[JobSpec], at_github: Timestamp) -> Option<String>;

    /// The other one is deleted, and the first one has its name again.
    fn give_name_back(&mut self, id: u64, at_github: Timestamp) -> Option<String>;
}

impl Rename for World {
    fn take_name(&mut self, id: u64, jobs: &[JobSpec], at_github: Timestamp) -> Option<String> {
        let name = self.github.full_name(id)?;
        if name.contains(OLD) || self.github.repository(id)?.deleted {
            return None;
        }
        self.github.rename_repository(id, &format!("{name}{OLD}"));
        let other = self.github.add_repository(&name);
        self.github.queue_run(other, jobs.to_vec(), at_github);
        Some(format!("{id} is now {name}{OLD}, and {other} is {name}"))
    }

    fn give_name_back(&mut self, id: u64, at_github: Timestamp) -> Option<String> {
        let full_name = self.github.full_name(id)?;
        let (name, _) = full_name.split_once(OLD)?;
        let other = self.github.repository_id(name)?;
        self.github.delete_repository(other, at_github);
        if self.github.repository(id)?.deleted {
            return Some(format!("{other} is deleted, which was {name}"));
        }
        self.github.rename_repository(id, name);
        Some(format!("{other} is deleted, and {id} is {name} again"))
    }
}
