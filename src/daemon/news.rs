//! What a look has brought.

/// Whether what a look has shown calls for a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It does not.
    No,
    /// It is to be told, and there is nothing to do about it: after a start there are as many of these as repositories.
    Later,
    /// It does.
    Now,
}

impl News {
    /// A pass now, or none for it.
    pub fn now_if(is_now: bool) -> Self {
        if is_now { News::Now } else { News::No }
    }
}
