//! Whether a look found something new.

/// Whether the result of a look needs a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It does not.
    No,
    /// It is to be reported, but needs no action. After a start there are as many of these as repositories.
    Later,
    /// It does.
    Now,
}

impl News {
    /// `Now` or `No`.
    pub fn now_if(is_now: bool) -> Self {
        if is_now { News::Now } else { News::No }
    }
}
