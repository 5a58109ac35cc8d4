//! The properties of new runners, for each class.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    config::{Class, ClassNomad, Config},
    labels::LabelRules,
    model::{Registration, RunnerLevel},
    nomad::Placement,
};

/// Properties of a class's new runners.
pub(super) struct Kind {
    /// The label rules, including how labels are split.
    pub labels: LabelRules,
    /// The kind of credentials.
    pub registration: Registration,
    /// Where they register.
    pub level: RunnerLevel,
    /// The runner group's name at an organization; the default group if `None`.
    pub runner_group: Option<String>,
    /// Overrides the template's placement.
    pub placement: Placement,
    /// Jobs that can reach their host serve no public repository.
    pub guards_public: bool,
    /// A runner that has run for longer is stopped with its job.
    pub max_run_duration: Option<Duration>,
}

/// The placement of a class's runners.
pub fn placement(class: &Class) -> Placement {
    let ClassNomad { namespace: _, datacenters, node_pool, priority } = class.nomad.clone();
    Placement { datacenters, node_pool, priority }
}

/// The properties of the top level, and those of the classes by name.
pub(super) struct Kinds {
    top: Kind,
    classes: BTreeMap<String, Kind>,
}

impl Kind {
    fn new(config: &Config, placement: Placement, guards_public: bool) -> Self {
        Kind {
            guards_public,
            max_run_duration: config.scheduler.max_run_duration,
            labels: config.labels.clone(),
            registration: config.registration(),
            level: config.github.scope,
            runner_group: config.github.runner_group.clone(),
            placement,
        }
    }
}

impl Kinds {
    pub fn new(config: &Config) -> Self {
        let classes = config.classes.iter().map(|class| {
            (class.name.clone(), {
                let config = config.of_class(class);
                Kind::new(&config, placement(class), !config.public)
            })
        });
        // Without classes, everything works as it did before classes existed.
        let guards_public = !config.classes.is_empty() && !config.public;
        Kinds { top: Kind::new(config, Placement::default(), guards_public), classes: classes.collect() }
    }

    /// The properties of this class, or of the top level if no class has that name any more.
    pub fn of(&self, class: Option<&str>) -> &Kind {
        class.and_then(|class| self.classes.get(class)).unwrap_or(&self.top)
    }

    /// Where runners register.
    pub fn levels(&self) -> BTreeSet<RunnerLevel> {
        self.classes.values().chain([&self.top]).map(|kind| kind.level).collect()
    }
}
