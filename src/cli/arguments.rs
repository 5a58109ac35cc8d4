//! The arguments of each command.

use clap::{Args, ValueEnum};

/// `plan`
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Plan {
    /// Exit with 0 if there is nothing to do, 2 if there is, 1 on an error
    #[arg(long)]
    pub detailed_exitcode: bool,
}

/// `explain`
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Exit codes: 0 served or on its way, 1 held, 2 no such job, run, repository or runner.")]
pub struct Explain {
    /// The URL of a job, a run or a repository, OWNER/REPO, or a runner's ID
    #[arg(value_name = "JOB-URL|RUN-URL|OWNER/REPO|RUNNER-ID")]
    pub target: String,
    /// Print JSON
    #[arg(short, long)]
    pub json: bool,
}

/// `check`
#[derive(Args, Clone, Debug, Default)]
pub struct Check {
    /// Treat warnings as failures
    #[arg(long)]
    pub strict: bool,
    /// List what differs for this nomadtools configuration; contacts no server and checks nothing else
    #[arg(long, value_name = "FILE|YAML", conflicts_with = "strict")]
    pub from_nomadtools: Option<String>,
}

/// `init`
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
On a terminal, init asks for what the flags do not set. It never writes a token itself: name a file, or set GH_TOKEN.")]
pub struct Init {
    /// The file to write
    #[arg(short, long, value_name = "FILE", default_value = "config.yml")]
    pub output: std::path::PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    pub force: bool,
    /// A repository, an owner, or *; may be given several times
    #[arg(short, long = "repo", value_name = "OWNER[/NAME]")]
    pub repos: Vec<String>,
    /// A file with the GitHub token
    #[arg(long, value_name = "FILE", conflicts_with = "app")]
    pub token_file: Option<String>,
    /// Use a GitHub App: explain how to create it, and write its manifest
    #[arg(long)]
    pub app: bool,
    /// The App's client ID
    #[arg(long, value_name = "ID", requires = "app")]
    pub client_id: Option<String>,
    /// The file with the App's private key
    #[arg(long, value_name = "FILE", requires = "app")]
    pub private_key_file: Option<String>,
    /// Register runners at the organization
    #[arg(long)]
    pub organization: bool,
    /// The API of a GitHub Enterprise Server
    #[arg(long, value_name = "URL")]
    pub github_url: Option<String>,
    /// builtin:docker, builtin:podman, builtin:myoung34, builtin:raw_exec, or a file
    #[arg(long, value_name = "TEMPLATE")]
    pub template: Option<String>,
}

/// `completion`
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
For example:
  githubrunner completion bash > /etc/bash_completion.d/githubrunner
  githubrunner completion zsh > \"${fpath[1]}/_githubrunner\"
  githubrunner completion fish > ~/.config/fish/completions/githubrunner.fish")]
pub struct Completion {
    /// The shell
    #[arg(value_enum)]
    pub shell: CompletionShell,
}

/// A shell with a completion script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// `man`
#[derive(Args, Clone, Debug, Default)]
pub struct Manual {
    /// Where to write a page for each command; without it, print the program's own page
    #[arg(value_name = "DIRECTORY")]
    pub directory: Option<std::path::PathBuf>,
}

/// `demo`
#[cfg(feature = "demo")]
#[derive(Args, Clone, Debug, Default)]
pub struct Demo {
    /// Use the real Nomad agent at NOMAD_ADDR and simulate only GitHub
    #[arg(long)]
    pub nomad: bool,
}

/// `render`
#[derive(Args, Clone, Debug)]
pub struct Render {
    /// The labels, as in runs-on; quote a label that contains spaces
    #[arg(required = true, value_name = "LABEL")]
    pub labels: Vec<String>,
    /// The repository of the job
    #[arg(long, value_name = "OWNER/NAME")]
    pub repo: Option<String>,
    /// Render as this class [default: the first class that matches]
    #[arg(long, value_name = "NAME")]
    pub class: Option<String>,
    /// Let Nomad parse the job, and print it as JSON
    #[arg(long)]
    pub parse: bool,
}

/// `status`
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
The daemon answers at status.listen. With --address, no configuration is needed. status.token comes from the configuration or from
GITHUBRUNNER_STATUS_TOKEN.

Exit codes: 0 the daemon reaches Nomad and GitHub, 1 it does not, or it does not answer.")]
pub struct Status {
    /// The daemon's status port, or a URL of it [default: status.listen, on this machine]
    #[arg(long, value_name = "HOST:PORT|URL")]
    pub address: Option<String>,
    /// Print the daemon's state as JSON, like /api/v1/state
    #[arg(short, long)]
    pub json: bool,
}

/// `list`
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Nomad provides the state of the runners. Only the running daemon knows why GitHub gives a runner no job: the notes include that if it answers at
status.listen or --address.

With -q, --quiet: only the IDs, one per line.")]
pub struct List {
    /// Print JSON
    #[arg(short, long)]
    pub json: bool,
    /// Include dead runners and why they died; the JSON always includes them
    #[arg(short, long)]
    pub all: bool,
    /// Only runners of this repository or owner; may be given several times
    #[arg(short, long, value_name = "OWNER[/NAME]")]
    pub repo: Vec<String>,
    /// Only runners in this state; may be given several times
    #[arg(
        long,
        value_name = "STATE",
        value_parser = ["pending", "waiting", "starting", "running", "stopping", "disconnected", "dead", "foreign"]
    )]
    pub state: Vec<String>,
    /// Redraw the table every 2 s; q quits
    #[arg(short, long, conflicts_with_all = ["json", "quiet"])]
    pub watch: bool,
    /// The daemon's status port, or a URL of it [default: status.listen, on this machine]
    #[arg(long, value_name = "HOST:PORT|URL")]
    pub address: Option<String>,
}

/// `logs`
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "The Nomad token needs the capability read-logs in the runners' namespace.")]
pub struct Logs {
    /// The runner's ID, as `list` shows it
    #[arg(value_name = "RUNNER")]
    pub runner: String,
    /// Follow the output until the runner has ended
    #[arg(short, long)]
    pub follow: bool,
    /// A task other than the runner's own
    #[arg(long, value_name = "NAME")]
    pub task: Option<String>,
    /// How many bytes to show from the end of each stream
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub bytes: u64,
}

/// `stop`
#[derive(Args, Clone, Debug)]
pub struct Stop {
    /// The runners' IDs, as `list` shows them
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub ids: Vec<String>,
    /// All runners
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,
}

/// `purge`
#[derive(Args, Clone, Debug)]
pub struct Purge {
    /// The runners' IDs, as `list` shows them
    #[arg(value_name = "ID", required_unless_present_any = ["dead", "all"], conflicts_with_all = ["dead", "all"])]
    pub ids: Vec<String>,
    /// All dead runners
    #[arg(long, conflicts_with = "all")]
    pub dead: bool,
    /// All runners; live ones are stopped first
    #[arg(short, long)]
    pub all: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,
}

/// `dumpconfig`
#[derive(Args, Clone, Debug, Default)]
pub struct Dumpconfig {
    /// Print JSON instead of YAML
    #[arg(short, long)]
    pub json: bool,
}

/// `webhook`
#[derive(Args, Clone, Debug)]
pub struct Webhook {
    /// What to do with the webhook that delivers to webhook.url
    #[arg(value_enum)]
    pub action: WebhookAction,
    /// An organization, or owner/name [default: each entry of repos]
    #[arg(value_name = "OWNER[/NAME]")]
    pub places: Vec<String>,
}

/// What to do with a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WebhookAction {
    /// Create it, or update its settings and secret
    Install,
    /// Show its settings and latest deliveries
    Status,
    /// Remove it
    Remove,
}

/// `cache`
#[derive(Args, Clone, Debug, Default)]
pub struct Cache {
    /// Only responses for this URL
    #[arg(value_name = "URL")]
    pub url: Option<String>,
}

/// nomadtools' names for commands on all runners.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Yes {
    /// Do not ask for confirmation
    #[arg(short, long)]
    pub yes: bool,
}

/// `stand-in`: configured only by its environment, like the real runner.
#[cfg(feature = "demo")]
#[derive(Args, Clone, Debug, Default)]
pub struct StandIn {
    /// Directory for its files
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: Option<std::path::PathBuf>,
}

/// `simulated-github`
#[cfg(feature = "demo")]
#[derive(Args, Clone, Debug)]
pub struct SimulatedGithub {
    /// Where to write `config.yml`, `token` and a runner
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: std::path::PathBuf,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    pub within: u64,
    /// Write the file `served` once all jobs are served, and continue until a signal arrives
    #[arg(long)]
    pub stay: bool,
}
