//! `pierhead token`: what other registries need to know of our tokens.

use std::time::SystemTime;

use clap::Subcommand;

use super::terminal::say;
use super::{Failure, desk};
use crate::auth;
use crate::config::Settings;

/// Tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Print the certificate that other registries need as `rootcertbundle` to accept our tokens
    Certificate,
}

/// Does what was typed.
pub(super) fn run(command: &Token, settings: &Settings) -> Result<(), Failure> {
    match command {
        Token::Certificate => {
            desk::become_keeper(settings)?;
            say(&auth::certificate(&settings.auth, SystemTime::now())?)
        }
    }
}
