//! The `githubrunner` program: logging, the runtime, dispatch and exit codes.

use std::{
    io::{self, BufRead, IsTerminal, Read, Write},
    process::ExitCode,
    sync::OnceLock,
};

use clap::Parser;
use githubrunner::{
    apply::ApplyMode,
    cli::{Cli, Configured, Global, LogFormat, Logs, Need, Render, Standalone, Status},
    commands::{
        self, Exit, Setup, Style,
        check::Verdict,
        logs::{Output, Wanted},
        status::Daemon,
        stop::Selection,
    },
    config::{Config, StatusConfig},
    nomad::{Nomad, job_from_json},
    secret::without_tokens,
    text::{Form, LINE, LogWriter, TextFields, shown},
};
use rustix::process::{Resource, Rlimit, setrlimit};
use tracing_subscriber::{EnvFilter, fmt};

const FAILED: u8 = 1;

/// The maximum size of a configuration on standard input, which is more than the parser accepts.
const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// Usage or configuration error, as in clap.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    keep_memory_private();
    let cli = Cli::parse_from(Cli::usual(std::env::args_os()));
    #[cfg(feature = "demo")]
    let screen = demo::screen(&cli);
    #[cfg(feature = "demo")]
    let logs_itself = demo::start_log(&cli, &screen);
    #[cfg(not(feature = "demo"))]
    let logs_itself = false;
    if !logs_itself {
        start_log(&cli.global, "githubrunner=info,warn");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start the runtime: {error}"), FAILED),
    };
    let Cli { global, command } = cli;
    let code = runtime.block_on(async {
        match command.by_need() {
            Need::Nothing(command) => without_configuration(command),
            Need::Daemon(args) => exit_code(status(&global, &args).await),
            Need::Configuration(command) => with_configuration(&global, command).await,
            #[cfg(feature = "demo")]
            Need::Simulators(command) => demo::dispatch(command, screen).await,
        }
    });
    // Whatever is in progress is dropped. A restart repairs it as it would after a crash.
    runtime.shutdown_background();
    code
}

/// The memory contains tokens, so core dumps are disabled and other processes of this user cannot read it. If the
/// system does not support this, nothing changes.
fn keep_memory_private() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, none);
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

fn without_configuration(command: Standalone) -> ExitCode {
    let out = &mut io::stdout();
    match command {
        Standalone::Completion(args) => exit_code(commands::completion::completion(args.shell, out)),
        Standalone::Man(args) => exit_code(commands::completion::man(args.directory.as_deref(), out)),
        Standalone::Schema => exit_code(commands::completion::schema(out)),
        Standalone::Init(args) => {
            let (mut input, terminal) = (io::stdin().lock(), io::stdin().is_terminal());
            let answers = terminal.then_some(&mut input as &mut dyn BufRead);
            let person = commands::init::Person { answers, questions: &mut io::stderr() };
            exit_code(commands::init::run(&args, person, out))
        }
        Standalone::FromNomadtools(file) => match commands::nomadtools::run(&file, &environment, out) {
            Ok(false) => ExitCode::from(USAGE),
            other => exit_code(other),
        },
    }
}

async fn with_configuration(global: &Global, command: Configured) -> ExitCode {
    let config = match load(global) {
        Ok(config) => config,
        Err(text) => return complain(&text, USAGE),
    };
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    exit_code(perform(global, config, command).await)
}

/// Asks the running daemon. If its address is given, that needs no configuration.
async fn status(global: &Global, args: &Status) -> anyhow::Result<Exit> {
    let config = match &global.config {
        None if args.address.is_some() => StatusConfig::from_env(&environment),
        None => {
            let help = "no address: pass the daemon's configuration with -c FILE, or its address with --address HOST:PORT";
            return Err(Unusable(anyhow::Error::msg(help)).into());
        }
        _ => load(global).map_err(|text| Unusable(anyhow::Error::msg(text)))?.status,
    };
    let daemon = Daemon::new(args.address.as_deref(), &config).map_err(Unusable)?;
    daemon.show(args.json, style(), &mut io::stdout()).await
}

fn style() -> Style {
    Style { colours: io::stdout().is_terminal() && colours_wanted() }
}

fn exit_code(ended: anyhow::Result<impl Into<Exit>>) -> ExitCode {
    match ended {
        Ok(ended) => ExitCode::from(ended.into().0),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let code = if error.is::<Unusable>() { USAGE } else { FAILED };
            complain(&format!("{error:#}"), code)
        }
    }
}

/// A configuration or environment that cannot be used: a template that does not compile, an invalid address.
#[derive(Debug)]
struct Unusable(anyhow::Error);

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for Unusable {}

/// Prepares the clients, and logs their warnings.
fn prepared(config: Config, mode: ApplyMode) -> Result<Setup, Unusable> {
    let setup = Setup::new(config, &environment, mode).map_err(Unusable)?;
    for warning in &setup.warnings {
        tracing::warn!("{warning}");
    }
    Ok(setup)
}

/// Prints the job for some labels; as `nomad` parses it, if there is one.
async fn render(config: &Config, nomad: Option<&Nomad>, args: &Render) -> anyhow::Result<()> {
    let (repo, class, labels) = (args.repo.as_deref(), args.class.as_deref(), &args.labels);
    let (out, notes) = (&mut io::stdout(), &mut io::stderr());
    let Some(nomad) = nomad else {
        return commands::render::run(config, labels, repo, class, out, notes);
    };
    let parse = |hcl: String, registration| async move {
        match job_from_json(&hcl)? {
            Some(job) => Ok(job),
            None => nomad.parse(&hcl, registration).await,
        }
    };
    commands::render::run_parsed(config, labels, repo, class, parse, out, notes).await
}

async fn logs(nomad: &Nomad, args: &Logs) -> anyhow::Result<bool> {
    let (task, runner) = (args.task.as_deref(), args.runner.as_str());
    let wanted = Wanted { runner, task, bytes: args.bytes, follow: args.follow };
    let out = Output { to: &mut io::stdout(), terminal: io::stdout().is_terminal() };
    let err = Output { to: &mut io::stderr(), terminal: io::stderr().is_terminal() };
    commands::logs::run(nomad, wanted, out, err).await
}

/// Runs a command with a configuration, and returns its exit code.
async fn perform(global: &Global, config: Config, command: Configured) -> anyhow::Result<Exit> {
    let out = &mut io::stdout();
    let style = style();
    let setup = |config| prepared(config, ApplyMode::of_option(global.dry_run));
    let look = |config| prepared(config, ApplyMode::DryRun);
    let well = match command {
        Configured::Run => {
            let reload = || Ok(setup(load(global).map_err(anyhow::Error::msg)?)?);
            commands::run::run(setup(config)?, reload).await.map(|()| true)
        }
        Configured::Once => commands::run::once(setup(config)?).await,
        Configured::Check { strict } => {
            let worst = commands::check::run(&setup(config)?, out).await?;
            Ok(worst == Verdict::Ok || worst == Verdict::Warning && !strict)
        }
        Configured::Plan(args) => {
            return commands::plan::run(look(config)?, args.detailed_exitcode, style, out).await;
        }
        Configured::Explain(args) => {
            return commands::explain::run(look(config)?, &args.target, args.json, style, out).await;
        }
        Configured::Render(args) => {
            let nomad = if args.parse { Some(setup(config.clone())?.nomad) } else { None };
            render(&config, nomad.as_ref(), &args).await.map(|()| true)
        }
        Configured::List(args) => {
            let daemon = match &args.address {
                Some(address) => Some(Daemon::new(Some(address), &config.status).map_err(Unusable)?),
                None => Daemon::beside(&config.status),
            };
            let (nomad, names) = (look(config)?.nomad, global.quiet);
            commands::list::run(&nomad, daemon.as_ref(), &args, names, style, out).await.map(|()| true)
        }
        Configured::Logs(args) => logs(&look(config)?.nomad, &args).await,
        Configured::Stop(args) => {
            let selection = if args.all { Selection::All } else { Selection::Ids(args.ids) };
            commands::stop::stop(&setup(config)?, selection, args.yes, out).await
        }
        Configured::Purge(args) => {
            let selection = match (args.all, args.dead) {
                (true, _) => Selection::All,
                (_, true) => Selection::Dead,
                _ => Selection::Ids(args.ids),
            };
            commands::stop::purge(&setup(config)?, selection, args.yes, out).await
        }
        Configured::Webhook(args) => {
            let Setup { config, github, mode, .. } = setup(config)?;
            commands::webhook::run(&config, &github, args.action, &args.places, mode, out).await
        }
        Configured::Dumpconfig(args) => commands::dumpconfig::run(&config, args.json, out).map(|()| true),
        Configured::Cache(args) => {
            commands::cache::run(&config.github.cachefile, args.url.as_deref(), out).map(|()| true)
        }
    };
    well.map(Exit::from)
}

/// The configuration that `-c` names, with overrides from the command line.
fn load(global: &Global) -> Result<Config, String> {
    let source = global.config.as_deref().ok_or(
        "no configuration: pass a file with -c FILE or the YAML itself after -c; `githubrunner demo` needs none",
    )?;
    let input;
    let source = match source {
        "-" => {
            input = standard_input()?;
            input.as_str()
        }
        _ => source,
    };
    let mut config = Config::load(source, &environment).map_err(|errors| errors.to_string())?;
    if let Some(parallel) = global.parallel {
        config.parallel = parallel.into();
    }
    Ok(config)
}

/// The YAML from standard input. It is read once, and kept for reloads.
fn standard_input() -> Result<String, String> {
    static TEXT: OnceLock<String> = OnceLock::new();
    if let Some(text) = TEXT.get() {
        return Ok(text.clone());
    }
    let mut text = String::new();
    let read = io::stdin().lock().take(CONFIG_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| format!("cannot read the configuration from standard input: {error}"))?;
    // A text with a newline is taken as the YAML itself.
    text.push('\n');
    Ok(TEXT.get_or_init(|| text).clone())
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Starts the log on standard error, at the level that `-v` and `-q` request. RUST_LOG overrides it.
fn start_log(global: &Global, usual: &'static str) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => usual,
        (false, 1) => "githubrunner=debug,info",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colours = io::stderr().is_terminal() && colours_wanted();
    let form = match global.log_format {
        LogFormat::Text => Form::Text { colours },
        LogFormat::Json => Form::Json,
    };
    let writer = move || LogWriter::new(commands::progress::Stderr, form);
    let log = fmt().with_env_filter(filter).with_writer(writer).with_target(false).with_ansi(colours);
    // Otherwise it would report on standard error, and panic if that cannot be written either, for example on
    // a full disk.
    let log = log.log_internal_errors(false);
    match global.log_format {
        LogFormat::Text => log.fmt_fields(TextFields).init(),
        LogFormat::Json => log.json().init(),
    }
}

fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|text| text.is_empty())
}

/// Reports the error that ended the program. The text may have several lines, each of which may quote
/// external text.
fn complain(text: &str, code: u8) -> ExitCode {
    let text = without_tokens(text.trim_end());
    let lines: Vec<String> = text.lines().map(|line| shown(line, LINE).to_string()).collect();
    // If standard error is closed, there is nowhere left to report to.
    let _ = writeln!(io::stderr(), "githubrunner: {}", lines.join("\n"));
    ExitCode::from(code)
}

/// The reader of our output has closed it, as in `githubrunner list | head`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// The commands that need the simulators: the demo and its helpers.
#[cfg(feature = "demo")]
mod demo {
    use std::{
        ffi::OsString,
        io::{self, IsTerminal},
        process::ExitCode,
    };

    use githubrunner::{
        cli::{Cli, Command, Simulated},
        commands::demo::{self, LogPane, Screen},
        text::TextFields,
    };
    use tracing_subscriber::{EnvFilter, fmt};

    use super::{FAILED, colours_wanted, complain, environment, exit_code};

    /// The display of `demo`: a table on a terminal, unless the full log is requested.
    pub fn screen(cli: &Cli) -> Screen {
        let wants_table =
            matches!(cli.command, Command::Demo(_)) && cli.global.verbose == 0 && !cli.global.quiet;
        if wants_table && io::stdout().is_terminal() {
            Screen::Table { log: LogPane::default(), colours: colours_wanted() }
        } else {
            Screen::Lines
        }
    }

    /// The demo's table shows the log itself, and without the table the demo's own lines are enough. Returns false
    /// if the log is still to be started.
    pub fn start_log(cli: &Cli, screen: &Screen) -> bool {
        match screen {
            Screen::Table { log, .. } => fmt()
                .without_time()
                .with_level(false)
                .with_target(false)
                .with_ansi(false)
                .fmt_fields(TextFields)
                .with_env_filter(EnvFilter::new("githubrunner=info,warn"))
                .with_writer(log.clone())
                .init(),
            Screen::Lines if matches!(cli.command, Command::Demo(_)) => super::start_log(&cli.global, "warn"),
            Screen::Lines => return false,
        }
        true
    }

    pub async fn dispatch(command: Simulated, screen: Screen) -> ExitCode {
        let out = &mut io::stdout();
        match command {
            Simulated::Demo(args) => exit_code(demo::run(args.nomad, &environment, screen, out).await),
            Simulated::GitHub(args) => exit_code(demo::github_only(&args, out).await),
            Simulated::StandIn => {
                // The runner does not read variables that are not valid text.
                let text = |(name, value): (OsString, OsString)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                };
                match demo::stand_in(std::env::vars_os().filter_map(text)).await {
                    Ok(code) => ExitCode::from(code),
                    Err(error) => complain(&format!("{error:#}"), FAILED),
                }
            }
        }
    }
}
