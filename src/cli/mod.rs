//! What can be typed, and what happens then?
//!
//! One module per command, thin: parse, call, show. Nothing here decides; `main.rs` turns a [`Failure`] into an exit code.

mod cert;
mod check;
mod control;
mod desk;
mod import;
mod maintenance;
mod project;
mod registry;
mod reindex;
mod renew;
mod serve;
mod terminal;
mod token;
mod user;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::config::{self, Machine, Settings};
use crate::server;
use crate::tls::Certificates;

/// A TLS front door for container registries, with the registry and the token service inside.
#[derive(Debug, Parser)]
#[command(
    name = "pierhead",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 69 no server to ask, 75 try again, 77 not allowed, 78 bad \
        configuration."
)]
pub struct Cli {
    /// The configuration file [default: $PIERHEAD_CONFIG, else /etc/pierhead/pierhead.yml if it exists, else built-in
    /// defaults]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server; the first start makes what is missing and says so
    #[command(after_help = "The first start makes the account `admin` and shows its password once; \
        PIERHEAD_ADMIN_PASSWORD, or PIERHEAD_ADMIN_PASSWORD_FILE, sets it instead.\n\
        Where `external_url` is https with a public name and no certificate is given, one is ordered from Let's Encrypt \
        (tls.acme), and until it is there one of a local authority is shown.\n\
        SIGTERM and SIGINT let running requests end (timeouts.drain); a second one does not wait.")]
    Serve,
    /// Make the running server go by the configuration as it is now; a bad one changes nothing
    #[command(
        after_help = "SIGHUP does the same, and then what went wrong is in the log. Some keys take a restart: where one \
        of these is another now, nothing changes, and it is named."
    )]
    Reload,
    /// Let somebody try again who failed to log in, or asked, too often
    Unban {
        /// An address (of IPv6, its /64), or the name of an account
        #[arg(value_name = "ADDRESS|NAME")]
        whom: String,
    },
    /// Hand over to a new binary without losing a request
    #[command(
        after_help = "The running server starts the program at the path that it was started from, hands over its \
        listening sockets and ends when its requests have. If the new one cannot serve, the old one goes on."
    )]
    Upgrade,
    /// Let nothing change for a while: images can be pulled, nothing can be pushed or deleted
    #[command(subcommand)]
    Maintenance(maintenance::Maintenance),
    /// Show every problem of the configuration, or the configuration as it is understood
    Check,
    /// Certificates: what is shown, what is wrong with it, and an authority of one's own
    #[command(subcommand)]
    Cert(cert::Cert),
    /// Read how a registry is served now, and write the configuration that serves it from here
    #[command(after_help = import::HELP)]
    Import(import::Import),
    /// Accounts: who may log in
    #[command(subcommand)]
    User(user::User),
    /// Projects, their visibility and their members
    #[command(subcommand)]
    Project(project::Project),
    /// Read every manifest anew into the index that referrers are found by; the server may run meanwhile
    Reindex,
    /// The tokens that this registry gives out
    #[command(subcommand)]
    Token(token::Token),
    /// The command line of Distribution's registry, also when this program is called `registry`
    Registry(registry::Command),
}

/// The command line, with the word `registry` in front when that is what this program is called.
pub fn arguments(typed: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = typed.into_iter().collect();
    let called = arguments.first().and_then(|program| Path::new(program).file_name());
    if called.is_some_and(|name| name == "registry") {
        arguments.insert(1, "registry".into());
    }
    arguments
}

/// Does what was typed.
///
/// # Errors
/// Whatever the command could not do.
pub fn run(cli: Cli) -> Result<(), Failure> {
    obey(cli).inspect_err(|failure| server::handover::report_failure(&failure.message))
}

fn obey(cli: Cli) -> Result<(), Failure> {
    takes_its_file(&cli)?;
    let named = std::env::var_os("PIERHEAD_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from);
    let file = cli.config.or(named);
    let file = file.as_deref();
    let serves = matches!(cli.command, Command::Serve | Command::Check);
    let settings = || settings(file, serves);
    match cli.command {
        Command::Serve => {
            let file = file.map(Path::to_owned);
            let again = move || crate::cli::settings(file.as_deref(), true).map_err(|failure| failure.message);
            serve::run(settings()?, Arc::new(again))
        }
        Command::Reload => control::run(&state(file)?, &server::control::Command::Reload {}),
        Command::Unban { whom } => control::run(&state(file)?, &server::control::Command::Unban { whom }),
        Command::Upgrade => control::run(&state(file)?, &server::control::Command::Upgrade {}),
        Command::Maintenance(command) => maintenance::run(&command, &state(file)?),
        Command::Check => check::run(&settings()?),
        Command::Cert(command) => cert::run(&command, &state(file)?, settings),
        Command::Import(command) => import::run(&command),
        Command::User(command) => user::run(command, &desk::with_accounts(settings()?)?),
        Command::Project(command) => project::run(command, &desk::with_accounts(settings()?)?),
        Command::Reindex => reindex::run(&desk::with_registry(settings()?)?),
        Command::Token(command) => token::run(&command, &desk::with_accounts(settings()?)?),
        Command::Registry(command) => registry::run(command),
    }
}

/// `-c` is for commands that read a configuration of ours; nobody is to believe that another one read it.
fn takes_its_file(cli: &Cli) -> Result<(), Failure> {
    let message = match cli.command {
        _ if cli.config.is_none() => return Ok(()),
        Command::Registry(_) => "-c is not for Distribution's command line: pierhead registry serve FILE",
        Command::Import(_) => "import reads SOURCE and no configuration: leave -c out",
        _ => return Ok(()),
    };
    Err(Failure { code: 2, message: message.to_owned() })
}

/// The configuration, or every problem of it. All commands that look at it read it the same way; only those that serve, or check for
/// those that do, need to read keys.
fn settings(file: Option<&Path>, serves: bool) -> Result<Settings, Failure> {
    let settings = config::load(file, config::environment(), &machine(serves)?).map_err(Failure::configuration)?;
    if serves { check_certificates(&settings).map(|()| settings) } else { Ok(settings) }
}

/// Where the server of the configuration is to be asked, also when the configuration is broken by now.
fn state(file: Option<&Path>) -> Result<PathBuf, Failure> {
    Ok(config::state(file, config::environment(), &machine(false)?))
}

fn machine(serves: bool) -> Result<Machine, Failure> {
    Machine::here(serves).map_err(|error| Failure::failed(format_args!("no working directory: {error}")))
}

/// Every pair that cannot be served, with the place where it was written.
fn check_certificates(settings: &Settings) -> Result<(), Failure> {
    let wrong = settings.tls.certificates.iter().enumerate().filter_map(|(number, pair)| {
        let error = Certificates::load(std::slice::from_ref(pair)).err()?;
        Some(settings.problem(&format!("tls.certificates[{number}].certificate"), error).to_string())
    });
    let others = settings.unusable_upstreams().into_iter().chain(settings.unusable_authorities());
    let wrong: Vec<String> = wrong.chain(others.map(|problem| problem.to_string())).collect();
    if wrong.is_empty() { Ok(()) } else { Err(Failure::configuration(wrong.join("\n"))) }
}

/// Why a command failed: one of the documented exit codes and a message for a person.
#[derive(Debug)]
pub struct Failure {
    /// 1 failed, 2 wrong usage, 69 server not reachable, 75 try again, 77 not allowed, 78 bad configuration.
    pub code: u8,
    /// What happened, where, and what to do next; may have several lines.
    pub message: String,
}

impl Failure {
    /// The work could not be done.
    pub fn failed(message: impl std::fmt::Display) -> Self {
        Self { code: 1, message: message.to_string() }
    }

    /// The configuration cannot be used.
    pub fn configuration(message: impl std::fmt::Display) -> Self {
        Self { code: 78, message: message.to_string() }
    }
}
