//! Colours on terminals that support them.

/// What the colour of a text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It starts, or is healthy.
    Well,
    /// It stops, or has failed.
    Bad,
    /// It is waiting.
    Waits,
    /// It is working.
    Works,
    /// It is over.
    Past,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    pub colours: bool,
}

impl Style {
    /// The text in the colour of this meaning.
    pub fn paint(self, mood: Mood, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match mood {
            Mood::Well => 32,
            Mood::Bad => 31,
            Mood::Waits => 33,
            Mood::Works => 36,
            Mood::Past => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}
