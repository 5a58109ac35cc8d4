//! The `githubrunner` program.
fn main() {}
