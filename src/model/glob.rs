//! Patterns with `*` and `?`.

/// Whether a pattern matches a whole text: `*` is any text, `?` is one character. Case does not matter. The number of
/// steps is at most the product of both lengths.
pub fn glob_covers(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let (mut at, mut seen) = (0, 0);
    // The position of the last star, and the end of the text that it covers.
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(c) if *c == '?' || text.get(seen) == Some(c) => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((place, reach)) = star else { return false };
                star = Some((place, reach + 1));
                (at, seen) = (place + 1, reach + 1);
            }
        }
    }
    pattern.iter().skip(at).all(|c| *c == '*')
}
