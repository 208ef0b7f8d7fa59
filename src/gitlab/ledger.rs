//! What became of every line?
//!
//! One [`Line`] for each setting that was read, in the order of the file, under the heading of its [`Fate`].
//! **Invariant:** values are never shown: some are secrets, and the file that is written says the others.

use std::fmt::Write as _;

/// What became of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is in the file now, under this key, or these.
    Translated(String),
    /// Pierhead has no use for it: why.
    NotNeeded(String),
    /// This version of Pierhead does not do it; a later one is meant to.
    NotServedYet(String),
    /// Pierhead does not do it on purpose, or cannot: why.
    NotSupported(String),
    /// It had no effect where it was.
    Ignored(String),
    /// The operator must look: why.
    Yours(String),
    /// It is about something else than the registry.
    Elsewhere,
}

/// The order of the report: what asks for something first.
const HEADINGS: [&str; 7] = [
    "Left to you",
    "Not served yet by this version, and not written",
    "Not supported",
    "Translated",
    "Not needed",
    "Had no effect where it was either",
    "Not about the registry",
];

impl Fate {
    fn heading(&self) -> usize {
        match self {
            Self::Yours(_) => 0,
            Self::NotServedYet(_) => 1,
            Self::NotSupported(_) => 2,
            Self::Translated(_) => 3,
            Self::NotNeeded(_) => 4,
            Self::Ignored(_) => 5,
            Self::Elsewhere => 6,
        }
    }

    fn words(&self) -> &str {
        match self {
            Self::Yours(text)
            | Self::NotServedYet(text)
            | Self::NotSupported(text)
            | Self::Translated(text)
            | Self::NotNeeded(text)
            | Self::Ignored(text) => text,
            Self::Elsewhere => "",
        }
    }
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// From 1; 0 for what stands nowhere and follows from the rest.
    pub line: usize,
    /// As the file calls it.
    pub key: String,
    /// What became of it.
    pub fate: Fate,
    /// Whether it kept somebody out, and nothing here does now.
    pub guarded: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Ledger {
    lines: Vec<Line>,
}

impl Ledger {
    /// Adds a line.
    pub(super) fn add(&mut self, line: usize, key: impl Into<String>, fate: Fate) {
        self.lines.push(Line { line, key: printable(&key.into()), fate, guarded: false });
    }

    /// Adds a line about something that kept somebody out.
    pub(super) fn add_guarded(&mut self, line: usize, key: impl Into<String>, fate: Fate) {
        self.lines.push(Line { line, key: printable(&key.into()), fate, guarded: true });
    }

    /// Adds a line that may be about something that kept somebody out.
    pub(super) fn put(&mut self, line: usize, key: impl Into<String>, fate: Fate, guarded: bool) {
        self.lines.push(Line { line, key: printable(&key.into()), fate, guarded });
    }

    /// The lines, in the order in which they were settled.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// What the operator must look at, for the top of the file.
    pub(super) fn open_ends(&self) -> impl Iterator<Item = String> {
        let open = self.lines.iter().filter(|line| matches!(line.fate, Fate::Yours(_)) || line.guarded);
        open.map(|line| format!("{}{}: {}", place(line.line), line.key, line.fate.words()))
    }

    /// The report, without what comes after.
    pub(super) fn print(&self, file: &str) -> String {
        let mut text = String::new();
        for (number, heading) in HEADINGS.iter().enumerate() {
            let mut lines: Vec<&Line> = self.lines.iter().filter(|line| line.fate.heading() == number).collect();
            if lines.is_empty() {
                continue;
            }
            lines.sort_by_key(|line| line.line);
            let _ = writeln!(text, "{heading}:"); // a String takes everything
            for line in lines {
                let alarm = if line.guarded { "PROTECTION LOST: " } else { "" };
                let words = line.fate.words();
                let arrow = match line.fate {
                    Fate::Translated(_) => " -> ",
                    _ if words.is_empty() => "",
                    _ => ": ",
                };
                let _ = writeln!(text, "  {file}{}{}{arrow}{alarm}{words}", colon(line.line), line.key); // likewise
            }
            text.push('\n');
        }
        let count = |heading| self.lines.iter().filter(|line| line.fate.heading() == heading).count();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} settings: {} translated, {} not needed, {} without effect before, {} not about the registry; \
             {} not served yet, {} not supported, {} left to you.",
            self.lines.len(),
            count(3),
            count(4),
            count(5),
            count(6),
            count(1),
            count(2),
            count(0)
        ); // likewise
        let lost = self.lines.iter().filter(|line| line.guarded).count();
        if lost > 0 {
            let _ = writeln!(text, "{lost} of them kept somebody out and do not any more: see PROTECTION LOST above."); // likewise
        }
        text
    }
}

/// A key as a terminal may show it.
fn printable(key: &str) -> String {
    key.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

fn colon(line: usize) -> String {
    if line == 0 { ": ".to_owned() } else { format!(":{line}: ") }
}

fn place(line: usize) -> String {
    if line == 0 { String::new() } else { format!("line {line}: ") }
}
