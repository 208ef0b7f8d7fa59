//! Where does something end that is not understood?

use super::{ENDING, OPENING, Reader};

/// How many blanks a line may begin with before its dot.
const LOOK_AHEAD: usize = 64;

/// A pattern has no more bytes.
const LONGEST_PATTERN: usize = 1_024;

impl Reader<'_> {
    /// Past the rest of an expression: to the comma, the closing bracket, `do`, or the end of a line that does not go on.
    pub(super) fn skip(&mut self) {
        self.skip_from(0, false);
    }

    /// The same past commas and brackets that nobody opened: to the end of the statement.
    pub(super) fn skip_statement(&mut self) {
        self.skip_from(0, true);
    }

    pub(super) fn skip_from(&mut self, mut depth: usize, whole: bool) {
        let mut last = self.before();
        while let Some(byte) = self.peek() {
            match byte {
                b'\n' if depth == 0 && !self.goes_on(last) => return,
                b'\n' => {
                    self.newline();
                    last = b' ';
                }
                b'#' => self.skip_line(),
                b' ' | b'\t' | b'\r' => self.at += 1,
                b')' | b']' | b'}' | b',' if depth == 0 && !whole => return,
                b';' if depth == 0 => return,
                _ if self.skip_literal(byte, last) => last = b'"',
                _ if byte.is_ascii_alphabetic() || byte == b'_' => {
                    let keyword = depth == 0 && !matches!(last, b'.' | b':') && !self.is_key();
                    if keyword && self.looks_at(&ENDING) {
                        return;
                    }
                    if keyword && !is_value(last) && self.looks_at(&OPENING) {
                        let line = self.line(self.at);
                        let word = self.word().to_owned();
                        self.blocks.push((word, line));
                        last = b' ';
                        continue;
                    }
                    last = if matches!(self.word(), "and" | "or" | "not") { b' ' } else { b'a' };
                }
                _ => {
                    match byte {
                        b'(' | b'[' | b'{' => depth += 1,
                        b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    self.at += 1;
                    last = byte;
                }
            }
        }
    }

    /// Past a string, a pattern or a letter, in whose text nothing counts. What runs over the end of a line is named: what
    /// looks like a string that long may be Ruby that was misread.
    fn skip_literal(&mut self, byte: u8, last: u8) -> bool {
        let start = self.at;
        match byte {
            b'\'' | b'"' | b'`' => self.skip_string(byte),
            b'<' if self.announces_heredoc(last) => {
                self.heredoc();
                return true;
            }
            b'/' if self.may_begin(last) && self.pattern() => {}
            b'?' if self.may_begin(last) && self.letter() => {}
            b'%' if self.may_begin(last) && self.percent_opens() => {
                self.percent();
            }
            _ => return false,
        }
        let (first, after) = (self.line(start), self.line(self.at.saturating_sub(1)));
        if after > first && self.lost.is_none() {
            let key = format!("lines {first} to {after}");
            self.left(
                start,
                self.at,
                &key,
                &format!("not read from line {first} to line {after}: what looks like one string"),
            );
        }
        true
    }

    fn skip_string(&mut self, quote: u8) {
        self.at += 1;
        self.delimited(quote, quote, quote != b'\'');
    }

    /// Whether a literal may begin here: where a value is due, or as the argument of a call (`puts /x/`, not `a / b`).
    fn may_begin(&self, last: u8) -> bool {
        let apart = self.at > 0 && matches!(self.bytes[self.at - 1], b' ' | b'\t');
        let next = self.bytes.get(self.at + 1).copied().unwrap_or(b' ');
        !is_value(last) || (last == b'a' && apart && !matches!(next, b' ' | b'\t' | b'=' | b'\n'))
    }

    /// Past `/.../`, which ends on its line.
    fn pattern(&mut self) -> bool {
        let (mut length, mut set) = (1, false);
        while let Some(byte) = self.bytes.get(self.at + length).filter(|_| length < LONGEST_PATTERN) {
            match byte {
                b'\n' => return false,
                b'\\' => length += 1,
                b'[' => set = true,
                b']' => set = false,
                b'/' if !set => {
                    self.at += length + 1;
                    return true;
                }
                _ => {}
            }
            length += 1;
        }
        false
    }

    /// Past `?x`.
    fn letter(&mut self) -> bool {
        let letter = self.text.get(self.at + 1..).and_then(|rest| rest.chars().next());
        let Some(letter) = letter.filter(|letter| !letter.is_whitespace()) else { return false };
        let end = self.at + 1 + letter.len_utf8();
        if self.bytes.get(end).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            return false;
        }
        self.at = end;
        true
    }

    /// Whether `%` begins a literal: `%q(`, `%r{`, `%(`.
    fn percent_opens(&self) -> bool {
        let open = |byte: &u8| byte.is_ascii_punctuation();
        match self.rest() {
            [_, kind, byte, ..] if kind.is_ascii_alphabetic() => open(byte),
            [_, b'(' | b'[' | b'{' | b'<' | b'|' | b'!' | b'/', ..] => true,
            _ => false,
        }
    }

    /// Whether the word that is next is a key: `end: 5`.
    fn is_key(&self) -> bool {
        let length = self.rest().iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let behind = self.rest().get(length..).unwrap_or_default();
        behind.starts_with(b":") && !behind.starts_with(b"::")
    }

    /// The last byte before this place, but for blanks; a blank where a statement begins.
    fn before(&self) -> u8 {
        let blanks = self.bytes[..self.at].iter().rev().take(LOOK_AHEAD);
        match blanks.copied().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r')) {
            None | Some(b'\n' | b';') => b' ',
            Some(byte) if byte.is_ascii_alphanumeric() || byte == b'_' => b'a',
            Some(byte) => byte,
        }
    }

    /// `<<~EOS`, and `<<EOS` where a value is due: not `list << 'item'`.
    fn announces_heredoc(&self, last: u8) -> bool {
        match self.rest() {
            [b'<', b'<', b'~' | b'-', next, ..] => next.is_ascii_alphabetic() || matches!(next, b'\'' | b'"'),
            [b'<', b'<', next, ..] => matches!(last, b'=' | b'(' | b',') && next.is_ascii_uppercase(),
            _ => false,
        }
    }

    /// Whether the statement goes on behind this end of a line: after an operator, or before a dot.
    fn goes_on(&self, last: u8) -> bool {
        let next = self.resume.unwrap_or(self.at + 1);
        let rest = self.bytes.get(next..).unwrap_or_default();
        let begins = rest.iter().take(LOOK_AHEAD).find(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
        matches!(last, b'+' | b'-' | b'*' | b'/' | b'&' | b'|' | b'?' | b':' | b'.' | b'=' | b'\\')
            || begins == Some(&b'.')
    }
}

/// Whether what ends with this byte is a value, so that an operator is due and not another value.
fn is_value(last: u8) -> bool {
    last.is_ascii_alphanumeric() || last >= 0x80 || matches!(last, b'_' | b'"' | b'\'' | b'`' | b')' | b']' | b'}')
}
