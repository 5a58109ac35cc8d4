//! The exit codes of commands.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    /// Success.
    pub const WELL: Exit = Exit(0);
    /// Something failed.
    pub const FAILED: Exit = Exit(1);
}

impl From<bool> for Exit {
    fn from(well: bool) -> Exit {
        if well { Exit::WELL } else { Exit::FAILED }
    }
}

impl From<()> for Exit {
    fn from((): ()) -> Exit {
        Exit::WELL
    }
}
