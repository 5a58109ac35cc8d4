//! Whose turn it is; the property is in `specification/turns.rs`, and `fairness.rs` has what comes of it in time.

use crate::cases::tested;

githubrunner_specification::properties!(turns, tested);
