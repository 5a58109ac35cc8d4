//! Property tests.

mod pagination;
