//! Who knows Distribution's registry knows this: `registry serve CONFIG`.
//!
//! The registry alone, guarded as its file says: no token endpoint, no accounts, nothing kept but the tree. The file is
//! the original's, so is what holds where it is silent.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::{Failure, serve};
use crate::config::{self, Machine};

/// What Distribution's command takes.
#[derive(Debug, Args)]
#[command(disable_version_flag = true, arg_required_else_help = true)]
pub struct Command {
    /// Show the version
    #[arg(short = 'v', long)]
    version: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the registry alone, as its config.yml says
    #[command(
        after_help = "Variables override keys as in the original: REGISTRY_HTTP_ADDR=:5000, REGISTRY_AUTH=htpasswd. \
        What each key does: conf/distribution-keys.md."
    )]
    Serve {
        /// The file [default: $REGISTRY_CONFIGURATION_PATH, else /etc/docker/registry/config.yml, else
        /// /etc/distribution/config.yml]
        #[arg(value_name = "CONFIG")]
        file: Option<PathBuf>,
    },
}

/// Runs the command.
///
/// # Errors
/// A file that cannot be honoured, or whatever keeps the registry from starting.
pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command.verb {
        Some(Verb::Serve { file }) if !command.version => {
            let machine =
                Machine::here(true).map_err(|error| Failure::failed(format_args!("no working directory: {error}")))?;
            let file = file.unwrap_or_else(config::registry_file);
            let read = move || config::load_registry(&file, config::environment(), &machine);
            serve::run(
                read().map_err(Failure::configuration)?,
                Arc::new(move || read().map_err(|problems| problems.to_string())),
            )
        }
        _ => writeln!(io::stdout(), "registry pierhead {}", env!("CARGO_PKG_VERSION"))
            .map_err(|error| Failure::failed(format_args!("cannot write to stdout: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, arguments};

    fn parsed(line: &str) -> Option<Command> {
        let typed = line.split(' ').map(Into::into);
        match Cli::try_parse_from(arguments(typed)).ok()?.command {
            crate::cli::Command::Registry(command) => Some(command),
            _ => None,
        }
    }

    #[test]
    fn the_originals_command_line_is_understood() {
        for line in ["pierhead registry serve", "registry serve", "/usr/bin/registry serve"] {
            let command = parsed(line).unwrap();
            assert!(matches!(command.verb, Some(Verb::Serve { file: None })), "{line}");
            let command = parsed(&format!("{line} /etc/registry.yml")).unwrap();
            assert!(matches!(command.verb, Some(Verb::Serve { file: Some(_) })), "{line}");
        }
        for line in ["registry --version", "registry -v", "pierhead registry --version", "pierhead registry -v"] {
            assert!(parsed(line).unwrap().version, "{line}");
        }
        assert!(parsed("/opt/registry/pierhead serve").is_none());
    }

    #[test]
    fn a_configuration_that_would_not_be_read_is_refused() {
        for line in ["registry serve", "import gitlab.rb"] {
            let cli = Cli::parse_from(format!("pierhead {line} -c mine.yml").split(' '));
            let failure = crate::cli::run(cli).unwrap_err();
            assert!(failure.code == 2 && failure.message.contains("-c"), "{line}: {}", failure.message);
        }
    }
}
