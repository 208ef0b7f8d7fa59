//! Is the configuration good, and what does it come to?
//!
//! `pierhead check` reads what `serve` would read. A good configuration is printed in full on stdout, itself a valid
//! file, and what has no effect is on stderr; a bad one is every problem at once, and exit code 78.

use std::io::{self, ErrorKind, Write};

use std::time::SystemTime;

use super::terminal::remark;
use super::{Failure, cert};
use crate::config::{self, Settings};

/// Runs the command.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn run(settings: &Settings) -> Result<(), Failure> {
    for warning in &settings.warnings {
        // When nobody reads it the configuration is as good.
        let _ = writeln!(io::stderr(), "warning: {warning}"); // with stderr closed there is nobody to warn
    }
    if settings.certificate_was_found() {
        remark("note: tls.certificates is not written; the certificate was found in GitLab's place");
    }
    let now = SystemTime::now();
    for remark in cert::examine(settings).shown.iter().flat_map(|shown| shown.remarks(now)) {
        let _ = writeln!(io::stderr(), "warning: {remark}"); // as above
    }
    match io::stdout().write_all(config::show(settings).as_bytes()) {
        // Whoever reads has seen enough (`pierhead check | head`).
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Failure::failed(format_args!("cannot write to stdout: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn a_bad_configuration_ends_with_78_and_all_of_its_problems() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/bad-configs");
        let failure = crate::cli::settings(Some(&folder.join("many-at-once.yml")), true).unwrap_err();
        assert_eq!(failure.code, 78);
        assert!(failure.message.lines().count() >= 10, "{}", failure.message);
        assert!(failure.message.contains("many-at-once.yml:13: log.levle: unknown key; did you mean level?"));
    }
}
