//! The command line: clap's types.

mod arguments;

use std::ffi::OsString;

pub use arguments::*;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// Runs self-hosted GitHub Actions runners on Nomad: one for each queued job.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "githubrunner",
    version,
    about,
    max_term_width = 100,
    propagate_version = false,
    infer_long_args = false,
    disable_help_subcommand = true,
    after_help = "\
Environment:
  GH_TOKEN, GITHUB_TOKEN    the token for github.com, if the configuration has none
  GH_ENTERPRISE_TOKEN, GITHUB_ENTERPRISE_TOKEN
                            the same for a GitHub Enterprise Server
  NOMAD_ADDR, NOMAD_TOKEN,  Nomad's address (default http://127.0.0.1:4646; unix:///path too),
  NOMAD_REGION, …           token and region, as for the nomad command
  NO_COLOR                  disables colors

Exit codes: 0 success, 1 failure, 2 invalid usage or configuration.

To see it work without any setup:  githubrunner demo"
)]
pub struct Cli {
    /// Options of all commands, before or after the command.
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of all commands.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The configuration: a file, - for standard input, or the YAML itself if it contains a newline
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE|YAML",
        env = "GITHUBRUNNER_CONFIG",
        hide_env_values = true
    )]
    pub config: Option<String>,
    /// Change nothing; show what would be done
    #[arg(short = 'n', long = "dry-run", visible_alias = "dryrun", global = true)]
    pub dry_run: bool,
    /// How many requests and actions run in parallel [default: the configuration's, else 8]
    #[arg(short = 'P', long, global = true, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub parallel: Option<u8>,
    /// Log more; -vv logs everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Log only errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Format of the log on standard error
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines of text
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Watch the repositories and start runners for their jobs until SIGTERM or SIGINT
    Run,
    /// Make one pass and wait until the runners it started have their credentials
    Once,
    /// Show what a pass would do now and why, without changing anything
    Plan(Plan),
    /// Explain why a job is waiting: which rules it passed, what holds it, and what to do
    Explain(Explain),
    /// Check the configuration, template, permissions and connections
    #[command(alias = "validate")]
    Check(Check),
    /// Show the daemon at work on built-in simulators
    #[cfg(feature = "demo")]
    Demo(Demo),
    /// Print the Nomad job that the template renders for these labels
    #[command(alias = "rendertemplate")]
    Render(Render),
    /// Show the running daemon's state: health, what is waiting and why, rate limits
    Status(Status),
    /// List the runners
    #[command(aliases = ["listrunners", "ls"])]
    List(List),
    /// Show a runner's standard output and standard error
    Logs(Logs),
    /// Stop runners with GitHub's consent
    Stop(Stop),
    /// Purge the Nomad jobs of dead runners
    Purge(Purge),
    /// Print the effective configuration with secrets hidden
    Dumpconfig(Dumpconfig),
    /// Install, show or remove the webhook of an organization or repository
    Webhook(Webhook),
    /// Write a first configuration from flags or your answers
    Init(Init),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print a shell completion script
    Completion(Completion),
    /// Show the cached GitHub responses
    #[command(alias = "showgithubcache")]
    Cache(Cache),
    /// Write man pages, for packages
    #[command(hide = true)]
    Man(Manual),
    /// nomadtools' name for `stop --all`
    #[command(hide = true)]
    Stopallrunners(Yes),
    /// nomadtools' name for `purge --all`
    #[command(hide = true)]
    Purgeallrunners(Yes),
    /// nomadtools' name for `purge --dead`
    #[command(hide = true)]
    Purgedeadrunners(Yes),
    /// Pretend to be a runner, for `demo --nomad`
    #[command(hide = true)]
    #[cfg(feature = "demo")]
    StandIn(StandIn),
    /// Serve a simulated GitHub and wait until its jobs are served, for `scripts/dev --acl`
    #[command(hide = true)]
    #[cfg(feature = "demo")]
    SimulatedGithub(SimulatedGithub),
}

impl Cli {
    /// The arguments in clap's form. Translates `-config FILE` and the like, as in Go programs, and `help`, `help
    /// COMMAND` and `version`.
    pub fn usual(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
        let mut all: Vec<OsString> = arguments.into_iter().collect();
        for argument in all.iter_mut().skip(1).take_while(|argument| *argument != "--") {
            let Some(text) = argument.to_str() else { continue };
            let name = text.split_once('=').map_or(text, |(name, _)| name);
            if ["-config", "-version", "-help", "-dryrun", "-verbose", "-quiet"].contains(&name) {
                *argument = format!("-{text}").into();
            }
        }
        match all.get(1).and_then(|first| first.to_str()) {
            Some("help") => {
                all.remove(1);
                all.push("--help".into());
            }
            Some("version") if all.len() == 2 => all[1] = "--version".into(),
            _ => {}
        }
        all
    }
}

/// A command, by what it needs.
#[derive(Clone, Debug)]
pub enum Need {
    /// No configuration.
    Nothing(Standalone),
    /// A running daemon, with its address or configuration.
    Daemon(Status),
    /// A configuration.
    Configuration(Configured),
    /// The simulators.
    #[cfg(feature = "demo")]
    Simulators(Simulated),
}

/// The commands without a configuration.
#[derive(Clone, Debug)]
pub enum Standalone {
    /// `completion`
    Completion(Completion),
    /// `man`
    Man(Manual),
    /// `schema`
    Schema,
    /// `init`
    Init(Init),
    /// `check --from-nomadtools` with this file.
    FromNomadtools(String),
}

/// The commands with a configuration.
#[derive(Clone, Debug)]
pub enum Configured {
    /// `run`
    Run,
    /// `once`
    Once,
    /// `plan`
    Plan(Plan),
    /// `explain`
    Explain(Explain),
    /// `check`; `--strict`
    Check {
        /// Treat warnings as failures.
        strict: bool,
    },
    /// `render`
    Render(Render),
    /// `list`
    List(List),
    /// `logs`
    Logs(Logs),
    /// `stop`
    Stop(Stop),
    /// `purge`
    Purge(Purge),
    /// `dumpconfig`
    Dumpconfig(Dumpconfig),
    /// `webhook`
    Webhook(Webhook),
    /// `cache`
    Cache(Cache),
}

/// The commands of the demo.
#[cfg(feature = "demo")]
#[derive(Clone, Debug)]
pub enum Simulated {
    /// `demo`
    Demo(Demo),
    /// `simulated-github`
    GitHub(SimulatedGithub),
    /// `stand-in`
    StandIn,
}

impl Command {
    /// What it needs. nomadtools' names become our own commands.
    pub fn by_need(self) -> Need {
        use Configured as With;
        use Standalone as Without;
        match self {
            Command::Completion(args) => Need::Nothing(Without::Completion(args)),
            Command::Man(args) => Need::Nothing(Without::Man(args)),
            Command::Schema => Need::Nothing(Without::Schema),
            Command::Init(args) => Need::Nothing(Without::Init(args)),
            Command::Check(Check { from_nomadtools: Some(file), .. }) => {
                Need::Nothing(Without::FromNomadtools(file))
            }
            Command::Status(args) => Need::Daemon(args),
            Command::Run => Need::Configuration(With::Run),
            Command::Once => Need::Configuration(With::Once),
            Command::Plan(args) => Need::Configuration(With::Plan(args)),
            Command::Explain(args) => Need::Configuration(With::Explain(args)),
            Command::Check(Check { strict, .. }) => Need::Configuration(With::Check { strict }),
            Command::Render(args) => Need::Configuration(With::Render(args)),
            Command::List(args) => Need::Configuration(With::List(args)),
            Command::Logs(args) => Need::Configuration(With::Logs(args)),
            Command::Stop(args) => Need::Configuration(With::Stop(args)),
            Command::Purge(args) => Need::Configuration(With::Purge(args)),
            Command::Dumpconfig(args) => Need::Configuration(With::Dumpconfig(args)),
            Command::Webhook(args) => Need::Configuration(With::Webhook(args)),
            Command::Cache(args) => Need::Configuration(With::Cache(args)),
            Command::Stopallrunners(Yes { yes }) => {
                Need::Configuration(With::Stop(Stop { ids: Vec::new(), all: true, yes }))
            }
            Command::Purgeallrunners(Yes { yes }) => {
                Need::Configuration(With::Purge(Purge { ids: Vec::new(), dead: false, all: true, yes }))
            }
            Command::Purgedeadrunners(Yes { yes }) => {
                Need::Configuration(With::Purge(Purge { ids: Vec::new(), dead: true, all: false, yes }))
            }
            #[cfg(feature = "demo")]
            Command::Demo(args) => Need::Simulators(Simulated::Demo(args)),
            #[cfg(feature = "demo")]
            Command::SimulatedGithub(args) => Need::Simulators(Simulated::GitHub(args)),
            #[cfg(feature = "demo")]
            Command::StandIn(_) => Need::Simulators(Simulated::StandIn),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("githubrunner").chain(line.split(' ')))
    }

    #[test]
    fn the_definitions_are_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_reads_well() {
        insta::assert_snapshot!(Cli::command().term_width(100).render_long_help());
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in ["-c file -n -P 4 -vv run", "run -c file -n -P 4 -vv", "-c file run -nvv --parallel 4"] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.global.config.as_deref(), Some("file"), "{line}");
            assert!(cli.global.dry_run, "{line}");
            assert_eq!((cli.global.parallel, cli.global.verbose), (Some(4), 2), "{line}");
            assert!(matches!(cli.command, Command::Run));
        }
    }

    #[test]
    fn forms_of_other_programs_are_understood() {
        let usual = |line: &str| {
            let words = Cli::usual(format!("githubrunner {line}").split(' ').map(OsString::from));
            Cli::try_parse_from(words)
        };
        for line in ["-config file run", "-config=file run", "run -config file", "--config=file run"] {
            assert_eq!(usual(line).unwrap().global.config.as_deref(), Some("file"), "{line}");
        }
        assert!(matches!(usual("validate").unwrap().command, Command::Check(_)));
        assert_eq!(usual("-c - run").unwrap().global.config.as_deref(), Some("-"));
        use clap::error::ErrorKind;
        for (line, kind) in [
            ("help", ErrorKind::DisplayHelp),
            ("help run", ErrorKind::DisplayHelp),
            ("-help", ErrorKind::DisplayHelp),
            ("version", ErrorKind::DisplayVersion),
            ("-version", ErrorKind::DisplayVersion),
        ] {
            assert_eq!(usual(line).unwrap_err().kind(), kind, "{line}");
        }
        let help = usual("help render").unwrap_err().to_string();
        assert!(help.contains("--parse"), "{help}");
        // Arguments after -- are not options.
        let labels = usual("render -- -config").unwrap();
        assert!(matches!(labels.command, Command::Render(Render { labels, .. }) if labels == ["-config"]));
    }

    #[test]
    fn nomadtools_command_names_work() {
        assert!(
            matches!(parse("rendertemplate a b").unwrap().command, Command::Render(Render { labels, .. }) if labels == ["a", "b"])
        );
        assert!(matches!(parse("listrunners").unwrap().command, Command::List(_)));
        assert!(matches!(
            parse("showgithubcache http://x").unwrap().command,
            Command::Cache(Cache { url: Some(_) })
        ));
        assert!(matches!(
            parse("dumpconfig -j").unwrap().command,
            Command::Dumpconfig(Dumpconfig { json: true })
        ));
        let need = |line| parse(line).unwrap().command.by_need();
        assert!(matches!(
            need("stopallrunners"),
            Need::Configuration(Configured::Stop(Stop { all: true, yes: false, .. }))
        ));
        assert!(matches!(
            need("purgeallrunners -y"),
            Need::Configuration(Configured::Purge(Purge { all: true, dead: false, yes: true, .. }))
        ));
        assert!(matches!(
            need("purgedeadrunners"),
            Need::Configuration(Configured::Purge(Purge { all: false, dead: true, .. }))
        ));
    }

    #[test]
    fn invalid_combinations_are_refused() {
        for line in [
            "stop",
            "purge",
            "stop --all x",
            "purge --dead --all",
            "purge --dead x",
            "render",
            "-P 0 run",
            "-q -v run",
            "nonsense",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
