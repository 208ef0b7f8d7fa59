//! What can be typed, and what happens then?
//!
//! One module per command, thin: parse, call, show. Nothing here decides; `main.rs` turns a [`Failure`] into an exit code.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub mod check;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "pierhead", version, about, propagate_version = true)]
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
    /// Show every problem of the configuration, or the configuration as it is understood
    Check,
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
