//! Colours, where a terminal shows them.

/// What a text's colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It comes, or is well.
    Well,
    /// It goes, or is bad.
    Bad,
    /// It waits.
    Waits,
    /// It works.
    Works,
    /// It is over.
    Past,
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// There are.
    pub colours: bool,
}

impl Style {
    /// The text in the colour of a mood.
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
