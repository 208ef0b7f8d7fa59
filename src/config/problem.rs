//! What is wrong, and where was it written?

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// How many problems are shown; a file with more is not a configuration file.
const SHOWN: usize = 100;

/// Who said it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A file, under the name that the operator gave it.
    File(Arc<Path>),
    /// An environment variable.
    Variable(Arc<str>),
}

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file or the variable.
    pub source: Source,
    /// The line, from 1; 0 for the whole.
    pub line: usize,
}

impl Place {
    /// A variable, whose value is one line as a rule.
    pub(super) fn variable(name: &str) -> Self {
        Self { source: Source::Variable(name.into()), line: 1 }
    }
}

/// One thing that is wrong: `FILE:LINE: KEY: message` or `environment: VARIABLE: message`.
///
/// The message says what is wrong, what is accepted and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where to look.
    pub place: Place,
    /// The path of the key, such as `tls.certificates[0].key`; empty when the whole file is meant.
    pub key: String,
    /// The sentence.
    pub message: String,
}

impl Problem {
    pub(super) fn new(place: &Place, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.clone(), key: key.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place.source, self.place.line) {
            (Source::File(file), 0) => write!(f, "{}: ", file.display())?,
            (Source::File(file), line) => write!(f, "{}:{line}: ", file.display())?,
            // A variable's name is the key, spelled otherwise; inside a list the key says more.
            (Source::Variable(name), _) if *self.key == **name || super::environment::variable(&self.key) == **name => {
                return write!(f, "environment: {name}: {}", self.message);
            }
            (Source::Variable(name), _) => write!(f, "environment: {name}: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong, the file from top to bottom, then the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Sorts what was found into the order in which a person mends it.
    pub(super) fn new(mut found: Vec<Problem>) -> Self {
        found.sort();
        found.dedup();
        Self(found)
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().take(SHOWN).enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n... and {more} more"),
        }
    }
}

impl std::error::Error for Problems {}

/// A value as a message shows it: quoted, on one line, and not longer than a person wants to read.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() <= LONGEST {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(LONGEST).collect();
    format!("{start:?}...")
}

/// `a, b and c`.
pub(super) fn listed<T: AsRef<str>>(words: &[T], last: &str) -> String {
    match words {
        [] => String::new(),
        [only] => only.as_ref().to_owned(),
        [start @ .., end] => {
            let start: Vec<&str> = start.iter().map(AsRef::as_ref).collect();
            format!("{} {last} {}", start.join(", "), end.as_ref())
        }
    }
}

/// The word of `known` that `written` most likely was meant to be: a few letters away, or the start of it.
pub(super) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_ascii_lowercase();
    let allowed = (written.chars().count() / 3).clamp(1, 3);
    let far = |word: &str| {
        let word = word.to_ascii_lowercase();
        let starts = |long: &str, short: &str| short.len() > 2 && long.starts_with(short);
        if starts(&written, &word) || starts(&word, &written) { 1 } else { distance(&written, &word, allowed) }
    };
    known
        .into_iter()
        .map(|word| (far(word), word))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// How many letters must be changed, added, removed or swapped with a neighbour to make `b` of `a`; anything above
/// `enough` when it is more than that for sure.
fn distance(a: &str, b: &str, enough: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(200).collect(), b.chars().take(200).collect());
    if a.len().abs_diff(b.len()) > enough {
        return enough + 1;
    }
    // rows[i][j]: the distance of the first i letters of a from the first j letters of b
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, letter) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, other) in b.iter().enumerate() {
            let mut least = (rows[i][j] + usize::from(letter != other)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *letter == b[j - 1] && a[i - 1] == *other {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["external_url", "listeners", "timeouts", "tls", "token"];
        assert_eq!(nearest("listners", known), Some("listeners"));
        assert_eq!(nearest("extrenal_url", known), Some("external_url"));
        assert_eq!(nearest("TSL", known), Some("tls"));
        assert_eq!(nearest("tokens", known), Some("token"));
        assert_eq!(nearest("external", known), Some("external_url"));
        assert_eq!(nearest("storage", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"x".repeat(10_000), known), None);
    }

    #[test]
    fn a_file_of_rubbish_does_not_flood_the_terminal() {
        let place = Place { source: Source::File(Path::new("a.yml").into()), line: 1 };
        let many = (0..500).map(|n| Problem::new(&place, format!("k{n:03}"), "unknown key")).collect();
        let text = Problems::new(many).to_string();
        assert_eq!(text.lines().count(), SHOWN + 1);
        assert!(text.ends_with("... and 400 more"), "{text}");
    }

    #[test]
    fn long_values_are_cut_and_control_characters_escaped() {
        assert_eq!(quoted("a\nb\u{1b}"), r#""a\nb\u{1b}""#);
        assert_eq!(quoted(&"a".repeat(1000)).len(), 60 + 2 + 3);
    }
}
