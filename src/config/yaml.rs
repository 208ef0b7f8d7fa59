//! What does the text say, line by line?
//!
//! A parser of events gives every value its line, which a deserializer cannot: it stops at the first problem and
//! forgets lines once the tree is built. What comes out is as small as configuration needs: mappings, lists, and
//! scalars as text. What a scalar means is decided by the key that it belongs to, so `off`, `yes` and `5000` mean the
//! same with and without quotes.
//!
//! **Invariant:** depth, size and number of values are bounded, whatever the text.
//!
//! Absent on purpose: aliases (`*name`), merge keys and tags. A configuration of a page does not need them, and they are
//! how a small file becomes a huge tree.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use super::problem::{Place, Problem, Source};

/// The largest text, in bytes.
pub(super) const LARGEST: usize = 1 << 20;
/// Mappings and lists within each other.
const DEEPEST: usize = 16;
/// Scalars, mappings and lists together.
const MOST: usize = 10_000;

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The line of its key, or its own in a list.
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// `null`, `~` or nothing at all: as if the key were not there.
    Nothing,
    /// A scalar, quoted or not.
    Text(String),
    List(Vec<Node>),
    /// Keys in the order of the file, each once.
    Mapping(Vec<(String, Node)>),
    /// Already reported; nothing more can be said about it.
    Refused,
}

/// Reads the one document of `text`, which stands at the path `base` of the configuration. `None` when it is not YAML;
/// whatever is wrong is added to `problems`.
pub(super) fn read(text: &str, source: &Source, base: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    read_document(text, source, base, problems, None)
}

/// The same where the last of a key that is written twice counts, with a warning.
pub(super) fn read_last_wins(
    text: &str,
    source: &Source,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Option<Node> {
    read_document(text, source, "", problems, Some(warnings))
}

fn read_document(
    text: &str,
    source: &Source,
    base: &str,
    problems: &mut Vec<Problem>,
    warnings: Option<&mut Vec<Problem>>,
) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let whole = Place { source: source.clone(), line: 0 };
    if text.len() > LARGEST {
        problems.push(Problem::new(&whole, "", format!("larger than {LARGEST} bytes: not a configuration file")));
        return None;
    }
    let mut tree = Tree { source: source.clone(), base, open: Vec::new(), root: None, nodes: 0, problems, warnings };
    for event in Parser::new_from_str(text) {
        let taken = match event {
            Ok((event, span)) => tree.take(event, span.start.line()),
            Err(error) => Err(tree.syntax(&error)),
        };
        if let Err(problem) = taken {
            tree.problems.push(problem);
            return None;
        }
    }
    Some(tree.root.unwrap_or(Node { place: whole, value: Value::Nothing }))
}

/// The tree as far as it is known, with the collections that are still open.
struct Tree<'p> {
    source: Source,
    base: &'p str,
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    problems: &'p mut Vec<Problem>,
    /// Where the last of a key that is written twice counts.
    warnings: Option<&'p mut Vec<Problem>>,
}

/// A collection whose end has not come.
enum Open {
    List(usize, Vec<Node>),
    /// With the key whose value has not come; a key that is refused has no name, and its value is left out.
    Mapping(usize, Vec<(String, Node)>, Option<(Option<String>, usize)>),
}

impl Tree<'_> {
    /// Adds an event. An error ends the reading.
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                return Err(self.problem(line, "a second document starts here; one file is one document"));
            }
            Event::Scalar(text, style, _, tag) => {
                if tag.is_some() {
                    self.refuse(line, "tags (!...) are not understood; remove it");
                    self.add(Value::Refused, line);
                } else if let Some(Open::Mapping(_, _, key @ None)) = self.open.last_mut() {
                    *key = Some((Some(text.into_owned()), line));
                } else {
                    self.add(scalar(&text, style), line);
                }
            }
            Event::Alias(_) => {
                self.refuse(line, "aliases (*...) are not understood; write the value out");
                self.add(Value::Refused, line);
            }
            Event::SequenceStart(_, tag) => self.start(Open::List(line, Vec::new()), tag.is_some(), line)?,
            Event::MappingStart(_, tag) => self.start(Open::Mapping(line, Vec::new(), None), tag.is_some(), line)?,
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(line, items)) => self.add(Value::List(items), line),
                Some(Open::Mapping(line, entries, _)) => self.add(Value::Mapping(entries), line),
                None => {}
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {}
        }
        if self.nodes > MOST {
            return Err(self.problem(line, format!("more than {MOST} values: not a configuration file")));
        }
        Ok(())
    }

    fn start(&mut self, collection: Open, tagged: bool, line: usize) -> Result<(), Problem> {
        if tagged {
            self.refuse(line, "tags (!...) are not understood; remove it");
        }
        if self.open.len() == DEEPEST {
            return Err(self.problem(line, format!("nested more than {DEEPEST} levels deep")));
        }
        self.open.push(collection);
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, value: Value, line: usize) {
        self.nodes += 1;
        let place = |line| Place { source: self.source.clone(), line };
        match self.open.last_mut() {
            None => self.root = Some(Node { place: place(line), value }),
            Some(Open::List(_, items)) => items.push(Node { place: place(line), value }),
            Some(Open::Mapping(_, entries, key)) => match key.take() {
                Some((Some(key), line)) => match entries.iter().position(|(other, _)| *other == key) {
                    None => entries.push((key, Node { place: place(line), value })),
                    Some(at) => {
                        let node = Node { place: place(line), value };
                        let (_, first) = &mut entries[at];
                        let before = first.place.line;
                        if self.warnings.is_some() {
                            *first = node;
                        }
                        self.repeated(&key, line, before);
                    }
                },
                Some((None, _)) => {}
                // Something else than a scalar where a key was due.
                None => {
                    *key = Some((None, line));
                    if !matches!(value, Value::Refused) {
                        self.refuse(line, "a key must be a plain word");
                    }
                }
            },
        }
    }

    fn repeated(&mut self, key: &str, line: usize, first: usize) {
        let place = Place { source: self.source.clone(), line };
        let path = join(&self.path(), key);
        match &mut self.warnings {
            Some(warnings) => {
                let message = format!("written twice, first on line {first}; this one counts");
                warnings.push(Problem::new(&place, path, message));
            }
            None => {
                let message = format!("written twice, first on line {first}; keep one");
                self.problems.push(Problem::new(&place, path, message));
            }
        }
    }

    fn refuse(&mut self, line: usize, message: &str) {
        let problem = self.problem(line, message);
        self.problems.push(problem);
    }

    fn problem(&self, line: usize, message: impl Into<String>) -> Problem {
        Problem::new(&Place { source: self.source.clone(), line }, self.path(), message)
    }

    fn syntax(&self, error: &ScanError) -> Problem {
        let (line, column) = (error.marker().line(), error.marker().col() + 1);
        let place = Place { source: self.source.clone(), line };
        Problem::new(&place, "", format!("not YAML: column {column}: {}", error.info()))
    }

    /// The path of the value that comes next.
    fn path(&self) -> String {
        self.open.iter().fold(self.base.to_owned(), |path, open| match open {
            Open::List(_, items) => format!("{path}[{}]", items.len()),
            Open::Mapping(_, _, Some((Some(key), _))) => join(&path, key),
            Open::Mapping(..) => path,
        })
    }
}

/// `path.key`, or the key alone at the top.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    match (style, text) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Nothing,
        _ => Value::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn problems_of(text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        read(text, &Source::File(Path::new("a.yml").into()), "", &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    fn tree_of(text: &str) -> Node {
        let mut problems = Vec::new();
        let node = read(text, &Source::File(Path::new("a.yml").into()), "", &mut problems).unwrap();
        assert_eq!(problems, []);
        node
    }

    #[test]
    fn values_carry_the_line_of_their_key() {
        let root = tree_of("# a comment\na:\n  b: 1\n  c:\n    - x\n    - {d: 'off'}\n");
        let Value::Mapping(entries) = root.value else { panic!("{root:?}") };
        assert_eq!((entries[0].0.as_str(), entries[0].1.place.line), ("a", 2));
        let Value::Mapping(entries) = &entries[0].1.value else { panic!("{entries:?}") };
        assert_eq!(entries[0].1.place.line, 3);
        let Value::List(items) = &entries[1].1.value else { panic!("{entries:?}") };
        assert_eq!((items[0].place.line, items[1].place.line), (5, 6));
    }

    #[test]
    fn empty_texts_and_null_are_nothing() {
        for text in ["", "\n\n", "# only a comment\n", "---\n", "~", "null", "\u{feff}"] {
            assert!(matches!(tree_of(text).value, Value::Nothing), "{text:?}");
        }
        assert!(matches!(tree_of("'null'").value, Value::Text(_)));
    }

    #[test]
    fn syntax_errors_say_line_and_column() {
        let problems = problems_of("a: 1\nb: [1, 2\nc: 3\n");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("a.yml:3: not YAML: column "), "{problems:?}");
    }

    #[test]
    fn what_makes_small_files_huge_is_refused() {
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
        assert_eq!(problems_of(bomb)[0], "a.yml:2: b[0]: aliases (*...) are not understood; write the value out");
        let deep = "[".repeat(17) + &"]".repeat(17);
        assert!(problems_of(&deep)[0].contains("nested more than 16 levels deep"), "{:?}", problems_of(&deep));
        let deep = (0..500).map(|n| format!("{}k:\n", " ".repeat(n))).collect::<String>();
        assert!(problems_of(&deep)[0].contains("nested more than 16 levels deep"), "{:?}", problems_of(&deep));
        let many = "- x\n".repeat(MOST + 1);
        assert!(problems_of(&many)[0].contains("more than 10000 values"));
        let large = "#".repeat(LARGEST + 1);
        assert_eq!(problems_of(&large), ["a.yml: larger than 1048576 bytes: not a configuration file"]);
    }

    #[test]
    fn duplicate_keys_tags_and_second_documents_are_refused() {
        assert_eq!(
            problems_of("tls:\n  local: a\n  local: b\n"),
            ["a.yml:3: tls.local: written twice, first on line 2; keep one"]
        );
        assert_eq!(problems_of("a: !!str 5\n"), ["a.yml:1: a: tags (!...) are not understood; remove it"]);
        assert_eq!(problems_of("a: !x {b: 5}\n"), ["a.yml:1: a: tags (!...) are not understood; remove it"]);
        assert_eq!(problems_of("? [a]\n: b\n"), ["a.yml:1: a key must be a plain word"]);
        assert_eq!(
            problems_of("a: 1\n---\nb: 2\n"),
            ["a.yml:2: a second document starts here; one file is one document"]
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[ \\-:,\\[\\]{}#&*!|>'\"%@`?~a-c0-9\\n\\t.\\\\\u{e9}]{0,200}") {
            let _ = problems_of(&text);
        }

        #[test]
        fn no_unicode_makes_the_reader_panic(text in any::<String>()) {
            let _ = problems_of(&text);
        }
    }
}
