//! What can be typed, and what happens then?
//!
//! One module per command, thin: parse, call, show. Nothing here decides; `main.rs` turns a [`Failure`] into an exit code.

mod check;
mod desk;
mod project;
mod serve;
mod terminal;
mod token;
mod user;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::config::{self, Machine, Settings};

/// A TLS front door for container registries, with the registry and the token service inside.
#[derive(Debug, Parser)]
#[command(
    name = "pierhead",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 77 not allowed, 78 bad configuration."
)]
pub struct Cli {
    /// The configuration file [default: /etc/pierhead/pierhead.yml if it exists, else built-in defaults]
    #[arg(short, long, global = true, env = "PIERHEAD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server; the first start makes what is missing and says so
    Serve,
    /// Show every problem of the configuration, or the configuration as it is understood
    Check,
    /// Accounts: who may log in
    #[command(subcommand)]
    User(user::User),
    /// Projects, their visibility and their members
    #[command(subcommand)]
    Project(project::Project),
    /// The tokens that this registry gives out
    #[command(subcommand)]
    Token(token::Token),
}

/// Does what was typed.
///
/// # Errors
/// Whatever the command could not do.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let file = cli.config.as_deref();
    match cli.command {
        Command::Serve => serve::run(settings(file)?),
        Command::Check => check::run(&settings(file)?),
        Command::User(command) => user::run(command, &settings(file)?),
        Command::Project(command) => project::run(command, &settings(file)?),
        Command::Token(command) => token::run(&command, &settings(file)?),
    }
}

/// The configuration, or every problem of it. All commands read it the same way.
fn settings(file: Option<&Path>) -> Result<Settings, Failure> {
    let machine = Machine::here().map_err(|error| Failure::failed(format_args!("no working directory: {error}")))?;
    config::load(file, config::environment(), &machine).map_err(Failure::configuration)
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
