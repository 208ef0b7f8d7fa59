//! `pierhead token`: what other registries need to know of our tokens.

use std::time::SystemTime;

use clap::Subcommand;

use super::Failure;
use super::desk::{self, Missing};
use super::terminal::say;
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
            desk::find(settings, &settings.auth.key, Missing::Make)?;
            desk::become_keeper(settings)?;
            say(&auth::certificate(&settings.auth, SystemTime::now())?)
        }
    }
}
