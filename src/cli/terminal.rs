//! What commands share in talking to a person: listings, questions, passwords.

use std::io::{self, BufRead, ErrorKind, IsTerminal, Read, Write};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use serde_json::Value;

use super::Failure;
use crate::auth::Password;
use crate::metadata::{AccountName, Run};

/// What a terminal sends for Ctrl-C when that is no signal.
const INTERRUPT: u8 = 0x03;

/// How often a log is told how far something is.
const IN_A_LOG: Duration = Duration::from_secs(60);

/// The most bytes that we read in search of a password.
const PASSWORD_INPUT: u64 = 4096;

/// How a listing is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns, for people.
    Table,
    /// One JSON array, for programs.
    Json,
}

/// Shows a listing: `rows` under `titles`, or an array of objects with these titles in lower case as keys.
pub(super) fn list(output: Output, titles: &[&str], rows: &[Vec<Value>]) -> Result<(), Failure> {
    match output {
        Output::Table => say(&table(titles, rows)),
        Output::Json => {
            let object = |row: &Vec<Value>| {
                let keys = titles.iter().map(|title| title.to_ascii_lowercase().replace(' ', "_"));
                Value::Object(keys.zip(row.iter().cloned()).collect())
            };
            let text = serde_json::to_string_pretty(&rows.iter().map(object).collect::<Vec<_>>());
            say(&(text.map_err(Failure::failed)? + "\n"))
        }
    }
}

fn table(titles: &[&str], rows: &[Vec<Value>]) -> String {
    let cell = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        other => other.to_string(),
    };
    let lines: Vec<Vec<String>> = std::iter::once(titles.iter().map(|title| title.to_uppercase()).collect())
        .chain(rows.iter().map(|row| row.iter().map(cell).collect()))
        .collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Writes to stdout. A reader that has seen enough (`| head`) is no failure.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::failed(format!("stdout: {error}"))),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a remark to stderr, where it is in nobody's way; if that fails there is nobody to tell.
pub(super) fn remark(text: &str) {
    let _ = writeln!(io::stderr(), "{text}"); // nobody to tell
}

/// How far something is, on stderr: one line on a terminal, else one from time to time.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    said: Instant,
}

impl Progress {
    /// Something begins.
    pub(super) fn begin() -> Self {
        Self { terminal: io::stderr().is_terminal(), said: Instant::now() }
    }

    /// Shows how far it is by now. May be called as often as a person could want to see.
    pub(super) fn show(&mut self, text: &str) {
        if self.terminal {
            over(text);
        } else if self.said.elapsed() >= IN_A_LOG {
            self.said = Instant::now();
            remark(text);
        }
    }

    /// It came to its end.
    pub(super) fn end(self) {
        if self.terminal {
            over("");
        }
    }
}

/// Over what the terminal's line had before.
fn over(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush()); // nobody to tell
}

/// What every command that destroys something takes.
#[derive(Debug, Clone, Copy, Args)]
pub struct Care {
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

impl Care {
    /// What to do: ask, unless it is to be done anyway or not at all. Without a terminal nobody can answer.
    pub(super) fn run(self, what: &str) -> Result<Run, Failure> {
        if self.dry_run {
            return Ok(Run::Dry);
        }
        if self.yes {
            return Ok(Run::Real);
        }
        if !io::stdin().is_terminal() {
            return Err(usage(format!("this would {what}; add --yes to do it, or --dry-run to see")));
        }
        let mut stderr = io::stderr();
        let asked = write!(stderr, "This will {what}. Go on? [y/N] ").and_then(|()| stderr.flush());
        asked.map_err(Failure::failed)?;
        let mut answer = String::new();
        io::stdin().lock().take(PASSWORD_INPUT).read_line(&mut answer).map_err(Failure::failed)?;
        if matches!(answer.trim(), "y" | "Y" | "yes") {
            Ok(Run::Real)
        } else {
            Err(Failure::failed("nothing was done"))
        }
    }
}

/// Where a new password comes from. On a terminal it is asked for when neither is given.
#[derive(Debug, Clone, Copy, Args)]
#[group(multiple = false)]
pub struct NewPassword {
    /// Read the password from the first line of stdin
    #[arg(long)]
    password_stdin: bool,
    /// Make a password by chance and print it once
    #[arg(long)]
    generate: bool,
}

impl NewPassword {
    /// The password, and whether it has to be shown.
    pub(super) fn read(self) -> Result<(Password, bool), Failure> {
        if self.generate {
            return Ok((Password::generate()?, true));
        }
        let stdin = io::stdin();
        let text = if self.password_stdin {
            line(&mut stdin.lock())?
        } else if stdin.is_terminal() {
            let first = ask_unseen("Password: ")?;
            if first != ask_unseen("The same again: ")? {
                return Err(Failure::failed("the two passwords differ; nothing was done"));
            }
            first
        } else {
            return Err(usage(
                "there is no terminal to ask for a password: add --password-stdin or --generate".to_owned(),
            ));
        };
        text.parse().map(|password| (password, false)).map_err(Failure::failed)
    }
}

/// Shows a generated password: alone on stdout, so that a script can take it. What was `done` is done even if nobody
/// takes it, so then we say how to go on.
pub(super) fn show_once(password: &Password, name: &AccountName, done: &str) -> Result<(), Failure> {
    remark("Its password, which is not shown again:");
    write_once(&mut io::stdout().lock(), password).map_err(|error| {
        Failure::failed(format!(
            "stdout: {error}; {done}, but nobody has seen the password: `pierhead user password {name}` sets another"
        ))
    })
}

fn write_once(stdout: &mut impl Write, password: &Password) -> io::Result<()> {
    writeln!(stdout, "{}", password.reveal())?;
    stdout.flush()
}

fn ask_unseen(prompt: &str) -> Result<String, Failure> {
    let stdin = io::stdin();
    let mut stderr = io::stderr();
    write!(stderr, "{prompt}").and_then(|()| stderr.flush()).map_err(Failure::failed)?;
    let silence = Silence::begin().map_err(Failure::failed)?;
    let typed = typed_line(&mut stdin.lock());
    drop(silence);
    remark(""); // the end of the line that the terminal did not show
    typed?.ok_or_else(|| Failure::failed("cancelled; nothing was done"))
}

/// What was typed in a [`Silence`]; `None` for Ctrl-C anywhere, or Ctrl-D at the beginning.
fn typed_line(input: &mut impl BufRead) -> Result<Option<String>, Failure> {
    let mut typed = Vec::new();
    for byte in input.take(PASSWORD_INPUT).bytes() {
        match byte.map_err(no_input)? {
            INTERRUPT => return Ok(None),
            b'\n' => return text_of(typed).map(Some),
            byte => typed.push(byte),
        }
    }
    if typed.is_empty() { Ok(None) } else { text_of(typed).map(Some) }
}

fn text_of(typed: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(typed).map_err(|_| Failure::failed("a password is text in UTF-8"))
}

fn no_input(error: io::Error) -> Failure {
    Failure::failed(format!("stdin: {error}"))
}

fn line(input: &mut impl BufRead) -> Result<String, Failure> {
    let mut text = String::new();
    input.take(PASSWORD_INPUT).read_line(&mut text).map_err(no_input)?;
    Ok(text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line)).to_owned())
}

/// The terminal shows nothing of what is typed while this lives, and no key ends or stops us: that would leave it so.
/// Ctrl-C ends a line instead, and is its last byte.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0); // the terminal is gone, then
    }
}

/// The command line asks for something that cannot be done this way.
pub(super) fn usage(message: String) -> Failure {
    Failure { code: 2, message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec![json!("alice"), json!(true)], vec![json!("bo"), json!(false)]];
        assert_eq!(table(&["Name", "admin"], &rows), "NAME   ADMIN\nalice  yes\nbo     no\n");
        assert_eq!(table(&["Name"], &[]), "NAME\n");
    }

    #[test]
    fn a_line_is_read_without_its_end_and_never_more_than_the_limit() {
        let read = |text: &str| line(&mut text.as_bytes()).unwrap();
        assert_eq!(read("secret words\r\nmore\n"), "secret words");
        assert_eq!(read("no end"), "no end");
        assert_eq!(read(&"x".repeat(10_000)).len(), 4096);
    }

    #[test]
    fn a_line_typed_unseen_can_be_cancelled() {
        let read = |text: &str| typed_line(&mut text.as_bytes()).unwrap();
        assert_eq!(read("secret words\nmore\n").as_deref(), Some("secret words"));
        assert_eq!(read("\n").as_deref(), Some(""));
        for cancelled in ["", "\x03", "half a pass\x03", "half\x03and more\n"] {
            assert_eq!(read(cancelled), None, "{cancelled:?}");
        }
        assert!(typed_line(&mut &b"\xff\n"[..]).is_err());
    }

    #[test]
    fn a_password_that_nobody_reads_is_a_failure() {
        let password = Password::generate().unwrap();
        let mut shown = Vec::new();
        write_once(&mut shown, &password).unwrap();
        assert_eq!(shown, format!("{}\n", password.reveal()).into_bytes());
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        assert_eq!(write_once(&mut writer, &password).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn without_a_terminal_nothing_is_destroyed_unasked() {
        let care = |yes, dry_run| Care { yes, dry_run };
        assert_eq!(care(true, false).run("x").unwrap(), Run::Real);
        assert_eq!(care(true, true).run("x").unwrap(), Run::Dry);
        assert_eq!(care(false, true).run("x").unwrap(), Run::Dry);
    }
}
