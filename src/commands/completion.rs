//! `completion`, `man` and `schema`: files that a package installs besides the program.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use crate::{
    cli::{Cli, CompletionShell},
    config,
};

/// The program's name on the command line.
const NAME: &str = "githubrunner";

/// Prints a shell's completion script.
///
/// # Errors
/// `out` cannot be written.
pub fn completion(shell: CompletionShell, out: &mut dyn Write) -> anyhow::Result<()> {
    let shell = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    // clap panics if it cannot write, so the script goes into memory first.
    let mut text = Vec::new();
    generate(shell, &mut visible(), NAME, &mut text);
    out.write_all(&text)?;
    Ok(())
}

/// Writes a man page for the program and for each command into a directory, or the program's own page to `out`.
///
/// # Errors
/// A page cannot be written.
pub fn man(directory: Option<&Path>, out: &mut dyn Write) -> anyhow::Result<()> {
    let Some(directory) = directory else {
        Man::new(visible()).render(out)?;
        return Ok(());
    };
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let mut root = visible();
    root.build();
    let page = |command: clap::Command| -> io::Result<()> {
        let man = Man::new(command);
        let mut text = Vec::new();
        man.render(&mut text)?;
        fs::write(directory.join(man.get_filename()), text)
    };
    for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
        page(command.clone()).with_context(|| format!("writing a page into {}", directory.display()))?;
    }
    page(root).with_context(|| format!("writing a page into {}", directory.display()))?;
    writeln!(out, "Wrote the pages to {}", directory.display())?;
    Ok(())
}

/// Prints the JSON Schema of the configuration.
///
/// # Errors
/// `out` cannot be written.
pub fn schema(out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "{}", serde_json::to_string_pretty(&config::schema())?)?;
    Ok(())
}

/// The command line without hidden commands: nomadtools' names, and helpers of the demo.
fn visible() -> clap::Command {
    let all = Cli::command();
    let names: Vec<String> = all
        .get_subcommands()
        .filter(|command| command.is_hide_set())
        .map(|command| command.get_name().to_owned())
        .collect();
    names.iter().fold(all, |all, name| all.mut_subcommand(name, |command| command.hide(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_gets_the_commands_and_their_options() {
        for shell in [CompletionShell::Bash, CompletionShell::Zsh, CompletionShell::Fish] {
            let mut text = Vec::new();
            completion(shell, &mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            for word in ["explain", "detailed-exitcode", "log-format"] {
                assert!(text.contains(word), "{shell:?}: {word}");
            }
        }
    }

    #[test]
    fn each_visible_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        man(Some(directory.path()), &mut Vec::new()).unwrap();
        let mut pages: Vec<String> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        let told = Cli::command().get_subcommands().filter(|command| !command.is_hide_set()).count();
        assert_eq!(pages.len(), told + 1, "{pages:?}");
        assert!(
            pages.contains(&"githubrunner.1".to_owned())
                && pages.contains(&"githubrunner-explain.1".to_owned())
        );
        assert!(!pages.iter().any(|page| page.contains("stand-in")), "{pages:?}");
        let page = fs::read_to_string(directory.path().join("githubrunner-explain.1")).unwrap();
        assert!(page.contains(".TH githubrunner-explain 1") && page.contains("Exit codes"), "{page}");
    }
}
