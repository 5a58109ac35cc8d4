//! Surplus, unregistered, lost and gone runners. The properties are in `specification/leaving.rs`.

use crate::cases::tested;

githubrunner_specification::properties!(leaving, tested);
