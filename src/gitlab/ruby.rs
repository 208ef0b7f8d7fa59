//! What does a `gitlab.rb` assign?
//!
//! A reader of the small part of Ruby that such files are written in: `name['key'] = value`, `name 'value'`, strings,
//! arrays, hashes, heredocs, comments. **Ruby is read, never run.** What only running could tell (`ENV`, conditions,
//! interpolation, variables, calls) comes out as [`Value::Running`] with its reason, and so does every assignment within
//! an `if` or another block: nothing of it counts silently.
//!
//! **Invariants:** no text makes it panic; it looks at every byte a bounded number of times; it nests [`DEEPEST`] deep.
//!
//! Absent on purpose: the rest of Ruby. What is not understood is skipped to the end of its statement, and named.

use super::value::{Entry, Value};

mod naming;
mod skipping;
mod strings;

/// Arrays and hashes within each other; what is deeper is for whoever can run it.
const DEEPEST: usize = 24;

/// One statement that sets something, or that might.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    /// `registry['nginx']['https']` is `registry`, `nginx`, `https`; of what is no assignment the beginning of its text.
    pub(super) path: Vec<String>,
    /// From 1.
    pub(super) line: usize,
    pub(super) value: Value,
    /// Whether it is `||=`, which changes nothing that says something already.
    pub(super) weak: bool,
    /// Whether its text speaks of the registry, or reads other text that might.
    pub(super) suspect: bool,
    /// Whether its text speaks of something that keeps somebody out.
    pub(super) guards: bool,
}

/// Words that begin what ends with `end`.
const OPENING: [&str; 10] = ["if", "unless", "case", "while", "until", "for", "begin", "def", "class", "module"];
/// Words that end the statement before them.
const ENDING: [&str; 7] = ["do", "then", "else", "elsif", "when", "ensure", "end"];
/// Words behind a statement that make it depend on something.
const MODIFIERS: [&str; 5] = ["if", "unless", "while", "until", "rescue"];

/// Reads all statements, in their order.
pub(super) fn read(text: &str) -> Vec<Statement> {
    let mut reader = Reader::new(text);
    while reader.statement() {}
    if let Some(start) = reader.lost {
        reader.left(start, text.len(), "the rest of the file", "a string without an end: nothing behind it was read");
    }
    reader.found
}

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    /// Where each line begins.
    lines: Vec<usize>,
    /// Where reading goes on after the line that a heredoc was announced on.
    resume: Option<usize>,
    /// The blocks that are open: their first line.
    blocks: Vec<(String, usize)>,
    /// Where a string begins that has no end.
    lost: Option<usize>,
    found: Vec<Statement>,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
            lines,
            resume: None,
            blocks: Vec::new(),
            lost: None,
            found: Vec::new(),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &'t [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    /// Past the end of a line, and past the heredocs that were announced on it.
    fn newline(&mut self) {
        self.at = self.resume.take().unwrap_or(self.at + 1);
    }

    /// Past blanks, continued lines and the comment that may end this line.
    fn blanks(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\\' if self.rest().starts_with(b"\\\n") => {
                    self.at += 1;
                    self.newline();
                }
                b'\\' if self.rest().starts_with(b"\\\r\n") => {
                    self.at += 2;
                    self.newline();
                }
                b'#' => self.skip_line(),
                _ => return,
            }
        }
    }

    fn skip_line(&mut self) {
        self.at += self.rest().iter().position(|byte| *byte == b'\n').unwrap_or(self.rest().len());
    }

    /// Past blanks, comments and ends of lines.
    fn space(&mut self) {
        loop {
            self.blanks();
            match self.peek() {
                Some(b'\n') => {
                    self.newline();
                    self.block_comment();
                }
                _ => return,
            }
        }
    }

    /// Past `=begin` to `=end`.
    fn block_comment(&mut self) {
        if !self.rest().starts_with(b"=begin") {
            return;
        }
        while self.at < self.bytes.len() {
            let last = self.rest().starts_with(b"=end");
            self.skip_line();
            if last {
                return;
            }
            self.at = (self.at + 1).min(self.bytes.len());
        }
    }

    /// A word of letters, digits and `_`, which may end in `?` or `!`.
    fn word(&mut self) -> &'t str {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80) {
            self.at += 1;
        }
        if self.at > start && matches!(self.peek(), Some(b'?' | b'!')) && self.bytes.get(self.at + 1) != Some(&b'=') {
            self.at += 1;
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn looks_at(&self, words: &[&str]) -> bool {
        let length = self.rest().iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        words.iter().any(|word| word.as_bytes() == &self.rest()[..length])
    }

    /// One statement; whether there may be another.
    fn statement(&mut self) -> bool {
        if self.at == 0 {
            self.block_comment();
        }
        self.space();
        let start = self.at;
        match self.peek() {
            None => return false,
            Some(b';') => {
                self.at += 1;
                return true;
            }
            Some(_) => {}
        }
        if self.rest().starts_with(b"__END__") && (start == 0 || self.bytes[start - 1] == b'\n') {
            return false;
        }
        if self.looks_at(&OPENING) {
            self.open(start);
        } else if self.looks_at(&["do"]) {
            self.block(start);
        } else if self.looks_at(&["else", "ensure", "then"]) {
            self.word();
        } else if self.looks_at(&["elsif", "when", "in", "rescue"]) {
            self.word();
            self.skip_statement();
            self.left_if_suspect(start, "a condition");
        } else if self.looks_at(&["end"]) {
            self.word();
            self.blocks.pop();
            self.skip_statement();
            self.left_if_suspect(start, "Ruby that is more than an assignment");
        } else {
            self.assignment(start);
        }
        // Whatever it was, reading goes on.
        self.at = self.at.max(start + 1);
        true
    }

    /// A block begins: its condition is skipped, what it holds is marked.
    fn open(&mut self, start: usize) {
        let keyword = self.word().to_owned();
        self.skip_statement();
        self.left_if_suspect(start, "a condition");
        // `while x do` is one block, not two; behind `if list.any? do` there are two.
        if self.looks_at(&["do"]) && ["while", "until", "for"].contains(&keyword.as_str()) {
            self.word();
        }
        self.blocks.push((keyword, self.line(start)));
    }

    /// `do |x|` of a call.
    fn block(&mut self, start: usize) {
        self.word();
        self.blocks.push(("do".to_owned(), self.line(start)));
        self.block_parameters();
    }

    fn assignment(&mut self, start: usize) {
        let within = self.blocks.last().cloned();
        let path = self.path();
        self.blanks();
        let weak = self.rest().starts_with(b"||=");
        let value = if path.is_empty() {
            None
        } else if self.rest().starts_with(b"=") && !matches!(self.bytes.get(self.at + 1), Some(b'=' | b'~' | b'>')) {
            self.at += 1;
            Some(self.whole_value())
        } else if weak {
            self.at += 3;
            Some(self.whole_value())
        } else if path.len() == 1 && self.begins_argument() {
            let value = self.argument();
            Some(value)
        } else {
            None
        };
        let path = if path.is_empty() { vec![self.excerpt(start)] } else { path };
        let value = value.unwrap_or_else(|| {
            self.skip_statement();
            Value::Running("Ruby that is more than an assignment".to_owned())
        });
        let value = match within {
            Some((keyword, line)) => Value::Running(format!("inside `{keyword}` of line {line}")),
            None => value,
        };
        let (suspect, guards) = (self.is_suspect(start, self.at), self.guards(start, self.at));
        self.found.push(Statement { path, line: self.line(start), value, weak, suspect, guards });
        if self.looks_at(&["do"]) {
            self.block(start);
        }
    }

    /// `|x, y|` behind `do`.
    fn block_parameters(&mut self) {
        self.blanks();
        if self.peek() == Some(b'|') {
            let rest = &self.rest()[1..];
            let length = rest.iter().position(|byte| matches!(byte, b'|' | b'\n')).unwrap_or(rest.len());
            self.at += 1 + length + usize::from(rest.get(length) == Some(&b'|'));
        }
    }

    /// `name['key'][:key].key`.
    fn path(&mut self) -> Vec<String> {
        let first = self.word();
        if first.is_empty() {
            return Vec::new();
        }
        let mut path = vec![first.to_owned()];
        loop {
            let before = self.at;
            let part = match self.peek() {
                Some(b'[') => self.subscript(),
                Some(b'.') if self.bytes.get(self.at + 1).is_some_and(u8::is_ascii_lowercase) => {
                    self.at += 1;
                    Some(self.word().to_owned())
                }
                _ => None,
            };
            match part {
                Some(part) => path.push(part),
                None => {
                    self.at = before;
                    return path;
                }
            }
        }
    }

    /// `['key']`, where the key is plain.
    fn subscript(&mut self) -> Option<String> {
        self.at += 1;
        self.blanks();
        let key = match self.peek()? {
            b'\'' | b'"' => self.quoted(),
            b':' => self.symbol(),
            _ => return None,
        };
        self.blanks();
        if self.peek() != Some(b']') {
            return None;
        }
        self.at += 1;
        key.text().map(str::to_owned)
    }

    /// Whether `name` is followed by a value, as in `external_url 'https://...'`.
    fn begins_argument(&self) -> bool {
        match self.peek() {
            Some(b'\'' | b'"' | b'(' | b'[' | b'%' | b':') => true,
            Some(byte) if byte.is_ascii_uppercase() || byte.is_ascii_digit() => true,
            Some(byte) if byte.is_ascii_lowercase() => {
                !self.looks_at(&MODIFIERS) && !self.looks_at(&ENDING) && !self.looks_at(&["and", "or"])
            }
            _ => false,
        }
    }

    fn argument(&mut self) -> Value {
        if self.peek() != Some(b'(') {
            return self.whole_value();
        }
        self.at += 1;
        self.space();
        let value = self.value(0);
        self.space();
        if self.peek() == Some(b')') {
            self.at += 1;
            return self.ended(value);
        }
        self.skip_from(1, true);
        Value::Running("a call with several arguments".to_owned())
    }

    /// A value that is all of the rest of the statement.
    fn whole_value(&mut self) -> Value {
        self.space();
        if self.looks_at(&OPENING) {
            let start = self.at;
            self.open(start);
            return Value::Running("a condition".to_owned());
        }
        let value = self.value(0);
        self.ended(value)
    }

    /// Looks that nothing follows the value that would change it.
    fn ended(&mut self, value: Value) -> Value {
        self.blanks();
        match self.peek() {
            None | Some(b'\n' | b';') => value,
            Some(_) if self.looks_at(&ENDING) => value,
            Some(_) if self.looks_at(&MODIFIERS) => {
                let word = self.word();
                let why = format!("it depends on `{word}`");
                self.skip_statement();
                Value::Running(why)
            }
            Some(_) => {
                self.skip_statement();
                computed(value)
            }
        }
    }

    /// One value; `depth` is how many arrays and hashes it is in.
    fn value(&mut self, depth: usize) -> Value {
        if depth > DEEPEST {
            self.skip();
            return Value::Running(format!("nested more than {DEEPEST} deep"));
        }
        let value = match self.peek() {
            Some(b'\'' | b'"') => self.strings(),
            Some(b':') if self.bytes.get(self.at + 1) != Some(&b':') => self.symbol(),
            Some(b'[') => self.array(depth),
            Some(b'{') => self.hash(depth),
            Some(b'%') => self.percent(),
            Some(b'<') if self.rest().starts_with(b"<<") => self.heredoc(),
            Some(byte) if byte.is_ascii_digit() || byte == b'-' => self.number(),
            Some(byte) if byte.is_ascii_alphabetic() || byte == b'_' => self.constant(),
            _ => Value::Running("an expression".to_owned()),
        };
        self.trailing(value, depth)
    }

    /// What may follow a value before the comma, the bracket or the end of the line: nothing but `.freeze`.
    fn trailing(&mut self, value: Value, depth: usize) -> Value {
        if self.rest().starts_with(b".freeze") {
            self.at += ".freeze".len();
        }
        self.blanks();
        match self.peek() {
            None | Some(b'\n' | b';' | b',' | b']' | b'}' | b')') => value,
            Some(b'=') if self.rest().starts_with(b"=>") => value,
            Some(_) if depth == 0 && (self.looks_at(&MODIFIERS) || self.looks_at(&ENDING)) => value,
            Some(_) => {
                self.skip();
                computed(value)
            }
        }
    }

    /// `true`, `false`, `nil`, or something that only running could tell.
    fn constant(&mut self) -> Value {
        let start = self.at;
        match self.word() {
            "true" => Value::Flag(true),
            "false" => Value::Flag(false),
            "nil" => Value::Nothing,
            "ENV" => {
                self.skip();
                Value::Running(format!("the environment ({})", self.environment_excerpt(start)))
            }
            word if self.peek() == Some(b'.') || self.peek() == Some(b'(') => {
                let why = format!("a call of {word}");
                self.skip();
                Value::Running(why)
            }
            word => {
                let why = format!("the value of {word}");
                self.skip();
                Value::Running(why)
            }
        }
    }

    /// `ENV['NAME']`, whatever else stands there: a default that stands behind the name may be a secret.
    fn environment_excerpt(&self, start: usize) -> String {
        let text = self.text.get(start..self.at).unwrap_or_default();
        let name = ["ENV[", "ENV.fetch(", "ENV.fetch "].iter().find_map(|call| {
            let rest = text.strip_prefix(call)?.trim_start();
            let quote = rest.chars().next().filter(|letter| matches!(letter, '\'' | '"'))?;
            rest[1..].split_once(quote).map(|(name, _)| name)
        });
        let plain =
            |name: &&str| name.len() < 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        name.filter(plain).map_or_else(|| "ENV".to_owned(), |name| format!("ENV['{name}']"))
    }

    fn number(&mut self) -> Value {
        let start = self.at;
        self.at += 1;
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            || (self.peek() == Some(b'.') && self.bytes.get(self.at + 1).is_some_and(u8::is_ascii_digit))
        {
            self.at += 1;
        }
        let text = self.text.get(start..self.at).unwrap_or_default().replace('_', "");
        match text.parse::<f64>() {
            Ok(_) => Value::Text(text),
            Err(_) => Value::Running("an expression".to_owned()),
        }
    }

    fn symbol(&mut self) -> Value {
        self.at += 1;
        match self.peek() {
            Some(b'\'' | b'"') => self.quoted(),
            _ => match self.word() {
                "" => Value::Running("an expression".to_owned()),
                word => Value::Text(word.to_owned()),
            },
        }
    }

    fn array(&mut self, depth: usize) -> Value {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.space();
            match self.peek() {
                None => return Value::Running("an array without an end: nothing behind it was read".to_owned()),
                Some(b']') => {
                    self.at += 1;
                    return Value::List(items);
                }
                Some(b',') => self.at += 1,
                Some(_) => {
                    let before = self.at;
                    items.push(self.value(depth + 1));
                    self.unstick(before);
                }
            }
        }
    }

    fn hash(&mut self, depth: usize) -> Value {
        self.at += 1;
        let mut entries = Vec::new();
        loop {
            self.space();
            match self.peek() {
                None => return Value::Running("a hash without an end: nothing behind it was read".to_owned()),
                Some(b'}') => {
                    self.at += 1;
                    return Value::Map(entries);
                }
                Some(b',') => self.at += 1,
                Some(_) => {
                    let before = self.at;
                    entries.push(self.entry(depth));
                    self.unstick(before);
                }
            }
        }
    }

    /// `'key' => value`, `:key => value`, `key: value`, `'key': value`.
    fn entry(&mut self, depth: usize) -> Entry {
        let line = self.line(self.at);
        let start = self.at;
        let key = match self.peek() {
            Some(b'\'' | b'"') => self.quoted(),
            Some(b':') => self.symbol(),
            Some(byte) if byte.is_ascii_digit() => self.number(),
            _ => Value::Text(self.word().to_owned()),
        };
        let colon = self.peek() == Some(b':') && self.bytes.get(self.at + 1) != Some(&b':');
        self.blanks();
        if colon {
            self.at += 1;
        } else if self.rest().starts_with(b"=>") {
            self.at += 2;
        } else {
            self.skip();
            return Entry {
                key: self.excerpt(start),
                line,
                value: Value::Running("an expression in a hash".to_owned()),
            };
        }
        self.space();
        let value = self.value(depth + 1);
        match key {
            Value::Text(key) => Entry { key, line, value },
            _ => Entry { key: "?".to_owned(), line, value: Value::Running("a key that is computed".to_owned()) },
        }
    }

    /// A byte that nothing here understands must not stop us.
    fn unstick(&mut self, before: usize) {
        if self.at == before {
            self.at += 1;
        }
    }
}

/// A value that something was done with.
fn computed(value: Value) -> Value {
    match value {
        Value::Running(why) => Value::Running(why),
        _ => Value::Running("an expression".to_owned()),
    }
}

#[cfg(test)]
mod tests;
