//! `pierhead maintenance`: nothing changes for a while, and everything can be pulled.

use std::path::Path;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use super::terminal::{Output, say};
use super::{Failure, control};
use crate::config;
use crate::registry::{Mode, Pause};
use crate::server::control::Command;
use crate::server::maintenance::Status;

/// Maintenance.
#[derive(Debug, Subcommand)]
pub enum Maintenance {
    /// Refuse pushes and deletes from now on, also after a restart; uploads that were begun may end
    On {
        /// How they are refused
        #[arg(long, value_enum, default_value_t = How::ReadOnly)]
        mode: How,
        /// How long what was begun may take [default: timeouts.drain]
        #[arg(long, value_name = "DURATION", value_parser = config::duration)]
        grace: Option<Duration>,
    },
    /// Take pushes and deletes again
    Off,
    /// Show whether maintenance is on, until when what was begun may end, and how many requests still write
    Status {
        /// How to show it
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

/// How writes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum How {
    /// With 405: clients give up
    ReadOnly,
    /// With 503 and Retry-After: clients that can try again do
    Unavailable,
}

/// Does what was typed.
pub(super) fn run(command: &Maintenance, state: &Path) -> Result<(), Failure> {
    match command {
        Maintenance::On { mode, grace } => {
            let mode = match mode {
                How::ReadOnly => Mode::ReadOnly,
                How::Unavailable => Mode::Unavailable,
            };
            control::run(state, &Command::MaintenanceOn { mode, grace: grace.map(milliseconds) })
        }
        Maintenance::Off => control::run(state, &Command::MaintenanceOff {}),
        Maintenance::Status { output } => {
            let said = control::ask(state, &Command::MaintenanceStatus {})?;
            match output {
                Output::Json => say(&(said + "\n")),
                Output::Table => say(&text(&serde_json::from_str(&said).map_err(Failure::failed)?)),
            }
        }
    }
}

fn milliseconds(grace: Duration) -> u64 {
    u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)
}

fn text(status: &Status) -> String {
    let pause = |who: &str, pause: &Pause| {
        let mode = match pause.mode {
            Mode::ReadOnly => "read-only",
            Mode::Unavailable => "unavailable",
        };
        let Pause { since, grace_until, .. } = pause;
        format!("{who}: {mode} since {since:.0}, what was begun may end until {grace_until:.0}\n")
    };
    let ordered = status.ordered.as_ref().map(|ordered| pause("maintenance is on", ordered));
    let configured = status.configured.as_ref().map(|configured| pause("the configuration says read-only", configured));
    let on = format!("{}{}", ordered.unwrap_or_default(), configured.unwrap_or_default());
    let on = if on.is_empty() { "maintenance is off\n".to_owned() } else { on };
    format!("{on}requests that write now: {}\n", status.writing)
}
