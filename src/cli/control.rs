//! Commands to the running server: asked through its control socket, answered on the terminal.

use std::path::Path;

use super::Failure;
use super::terminal::say;
use crate::server::control::{self, Command, Outcome, Unanswered};

/// Tells the server that keeps this state directory to do something, and says what it said.
///
/// # Errors
/// It was not done.
pub(super) fn run(state: &Path, command: &Command) -> Result<(), Failure> {
    say(&(ask(state, command)? + "\n"))
}

/// The same for who makes something of what it said.
pub(super) fn ask(state: &Path, command: &Command) -> Result<String, Failure> {
    let answer = control::ask(state, command)?;
    let code = match answer.outcome {
        Outcome::Done => return Ok(answer.message),
        Outcome::Failed => 1,
        Outcome::Later => 75,
        Outcome::Denied => 77,
        Outcome::Configuration => 78,
    };
    Err(Failure { code, message: answer.message })
}

impl From<Unanswered> for Failure {
    fn from(error: Unanswered) -> Self {
        let code = match error {
            Unanswered::NotRunning(_) => 69,
            Unanswered::Denied(_) => 77,
            Unanswered::Broken { .. } => 1,
        };
        Self { code, message: error.to_string() }
    }
}
