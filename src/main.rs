//! The `githubrunner` program: logging, the runtime, dispatch and exit codes.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::Parser;
use githubrunner::{
    cli::{Cli, Command, Global, LogFormat},
    commands::{self, Setup, stop::Selection},
    config::Config,
    nomad::job_from_json,
};
use tracing_subscriber::{EnvFilter, fmt};

/// Something failed.
const FAILED: u8 = 1;

/// Usage or configuration, as clap has it too.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(&cli.global);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("the runtime cannot start: {error}"), FAILED),
    };
    let code = runtime.block_on(dispatch(cli));
    // What is still under way is dropped: a restart repairs it as it would a crash.
    runtime.shutdown_background();
    code
}

async fn dispatch(cli: Cli) -> ExitCode {
    let Cli { global, command } = cli;
    let config = match load(&global) {
        Ok(config) => config,
        Err(text) => return complain(&text, USAGE),
    };
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    match perform(&global, config, command.canonical()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("{error:#}"), FAILED),
    }
}

/// Whether all went well.
async fn perform(global: &Global, config: Config, command: Command) -> anyhow::Result<bool> {
    let out = &mut io::stdout();
    let setup = |config| Setup::new(config, &environment, global.dry_run);
    match command {
        Command::Run => {
            let reload = || setup(load(global).map_err(anyhow::Error::msg)?);
            commands::run::run(setup(config)?, reload).await.map(|()| true)
        }
        Command::Once => commands::run::once(setup(config)?).await,
        Command::Plan => commands::plan::run(setup(config)?, out).await,
        Command::Render(args) if args.parse => {
            let nomad = setup(config.clone())?.nomad;
            let registration = config.registration();
            let parse = |hcl: String| async move {
                match job_from_json(&hcl)? {
                    Some(job) => Ok(job),
                    None => nomad.parse(&hcl, registration).await,
                }
            };
            let (repo, notes) = (args.repo.as_deref(), &mut io::stderr());
            commands::render::run_parsed(&config, &args.labels, repo, parse, out, notes).await.map(|()| true)
        }
        Command::Render(args) => {
            let repo = args.repo.as_deref();
            commands::render::run(&config, &args.labels, repo, out, &mut io::stderr()).map(|()| true)
        }
        Command::List(args) => {
            commands::list::run(&setup(config)?.nomad, args.json, out).await.map(|()| true)
        }
        Command::Stop(args) => {
            let selection = if args.all { Selection::All } else { Selection::Ids(args.ids) };
            commands::stop::stop(&setup(config)?, selection, args.yes, out).await
        }
        Command::Purge(args) => {
            let selection = match (args.all, args.dead) {
                (true, _) => Selection::All,
                (_, true) => Selection::Dead,
                _ => Selection::Ids(args.ids),
            };
            commands::stop::purge(&setup(config)?, selection, args.yes, out).await
        }
        Command::Dumpconfig(args) => commands::dumpconfig::run(&config, args.json, out).map(|()| true),
        Command::Cache(args) => {
            commands::cache::run(&config.github.cachefile, args.url.as_deref(), out).map(|()| true)
        }
        other => anyhow::bail!("{other:?} is to come"),
    }
}

/// The configuration that `-c` names, with what the command line overrides.
fn load(global: &Global) -> Result<Config, String> {
    let source = global.config.as_deref().ok_or(
        "no configuration: name a file with -c FILE, or write the YAML itself after -c; \
         `githubrunner demo` needs none",
    )?;
    let mut config = Config::load(source, &environment).map_err(|errors| errors.to_string())?;
    if let Some(parallel) = global.parallel {
        config.parallel = parallel.into();
    }
    Ok(config)
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Logs to standard error, as much as `-v` and `-q` ask for. RUST_LOG, where set, has the last word.
fn start_log(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "githubrunner=info,warn",
        (false, 1) => "githubrunner=debug,info",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colours =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|text| text.is_empty());
    let log = fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false).with_ansi(colours);
    match global.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Tells what ended the program.
fn complain(text: &str, code: u8) -> ExitCode {
    // Nobody is left to be told when standard error is closed.
    let _ = writeln!(io::stderr(), "githubrunner: {}", text.trim_end());
    ExitCode::from(code)
}

/// Whoever read our output has read enough: `githubrunner list | head`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
