//! Surplus, unregistered, lost and gone runners; the properties are in `specification/leaving.rs`.

use crate::{cases::tested, specification::properties};

properties!(leaving, tested);
