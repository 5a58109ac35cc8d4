//! Jobs that were lost with their runners; the properties are in `specification/rerun.rs`.

use crate::cases::tested;

githubrunner_specification::properties!(rerun, tested);
