//! What does a string say, in any of Ruby's ways to write one?
//!
//! What is interpolated (`#{...}`) only running could tell: the whole string is left then.

use super::super::value::Value;
use super::Reader;

impl Reader<'_> {
    /// One string, and those right behind it, which Ruby joins.
    pub(super) fn strings(&mut self) -> Value {
        let mut whole = self.quoted();
        loop {
            self.blanks();
            if !matches!(self.peek(), Some(b'\'' | b'"')) {
                return whole;
            }
            whole = match (whole, self.quoted()) {
                (Value::Text(first), Value::Text(second)) => Value::Text(first + &second),
                (Value::Running(why), _) | (_, Value::Running(why)) => Value::Running(why),
                (first, _) => first,
            };
        }
    }

    pub(super) fn quoted(&mut self) -> Value {
        let quote = self.peek().unwrap_or(b'"');
        self.at += 1;
        self.delimited(quote, quote, quote == b'"')
    }

    /// The inside of a string up to `close`. With `double` it has escapes and interpolation.
    pub(super) fn delimited(&mut self, open: u8, close: u8, double: bool) -> Value {
        let start = self.at.saturating_sub(1);
        let (mut text, mut depth, mut running) = (Vec::new(), 0_usize, false);
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'\\' => self.escape(&mut text, open, close, double),
                b'#' if double && self.peek() == Some(b'{') => {
                    running = true;
                    self.interpolation();
                }
                _ if byte == close && depth == 0 => {
                    return match String::from_utf8(text) {
                        Ok(text) if !running => Value::Text(text),
                        _ => Value::Running("an interpolated string".to_owned()),
                    };
                }
                _ => {
                    if open != close {
                        depth = if byte == open { depth + 1 } else { depth - usize::from(byte == close) };
                    }
                    text.push(byte);
                }
            }
        }
        self.lost.get_or_insert(start);
        Value::Running("a string without an end: nothing behind it was read".to_owned())
    }

    fn escape(&mut self, text: &mut Vec<u8>, open: u8, close: u8, double: bool) {
        let Some(byte) = self.peek() else { return };
        self.at += 1;
        let meant = match byte {
            _ if byte == open || byte == close || byte == b'\\' => byte,
            _ if !double => {
                text.push(b'\\');
                byte
            }
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b's' => b' ',
            b'e' => 0x1b,
            b'0' => 0,
            b'\n' => return,
            other => other,
        };
        text.push(meant);
    }

    /// Past `#{...}`, with the strings in it.
    fn interpolation(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                b'\'' | b'"' => {
                    self.past_quote(byte);
                }
                b'\\' => self.at += 1,
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Past the end of a string within an interpolation; whether it has one.
    fn past_quote(&mut self, quote: u8) -> bool {
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                _ if byte == quote => return true,
                _ => {}
            }
        }
        false
    }

    /// `%w(a b)`, `%i[a b]`, `%q{...}`, `%Q(...)`, `%(...)`.
    pub(super) fn percent(&mut self) -> Value {
        self.at += 1;
        let kind = match self.peek() {
            Some(byte) if byte.is_ascii_alphabetic() => {
                self.at += 1;
                byte
            }
            _ => b'Q',
        };
        let Some(open) = self.peek().filter(u8::is_ascii_punctuation) else {
            return Value::Running("an expression".to_owned());
        };
        self.at += 1;
        let close = match open {
            b'(' => b')',
            b'[' => b']',
            b'{' => b'}',
            b'<' => b'>',
            other => other,
        };
        let text = self.delimited(open, close, matches!(kind, b'Q' | b'W' | b'I' | b'r' | b'x'));
        match (kind, text) {
            (_, Value::Running(why)) => Value::Running(why),
            (b'w' | b'W' | b'i' | b'I', Value::Text(text)) => {
                Value::List(text.split_whitespace().map(|word| Value::Text(word.to_owned())).collect())
            }
            (b'q' | b'Q', text) => text,
            _ => Value::Running("an expression".to_owned()),
        }
    }

    /// `<<~EOS`, `<<-EOS`, `<<EOS`, with or without quotes around the word; its lines follow the line that it is on.
    pub(super) fn heredoc(&mut self) -> Value {
        self.at += 2;
        let (squiggly, dash) = (self.peek() == Some(b'~'), self.peek() == Some(b'-'));
        self.at += usize::from(squiggly || dash);
        let quote = self.peek().filter(|byte| matches!(byte, b'\'' | b'"'));
        self.at += usize::from(quote.is_some());
        let mark = self.word().to_owned();
        if mark.is_empty() {
            return Value::Running("an expression".to_owned());
        }
        self.at += usize::from(quote.is_some() && self.peek() == quote);
        let here = self.at;
        let mut next = self.resume.unwrap_or_else(|| self.end_of_line(here) + 1).min(self.bytes.len());
        let mut lines = Vec::new();
        loop {
            if next >= self.bytes.len() {
                self.resume = Some(self.bytes.len());
                self.lost.get_or_insert(here);
                return Value::Running("a heredoc without an end: nothing behind it was read".to_owned());
            }
            let end = self.end_of_line(next);
            let line = self.text.get(next..end).unwrap_or_default().trim_end_matches('\r');
            next = (end + 1).min(self.bytes.len());
            let bare = if squiggly || dash { line.trim_start() } else { line };
            if bare == mark {
                break;
            }
            lines.push(line);
        }
        self.resume = Some(next);
        if quote != Some(b'\'') && lines.iter().any(|line| line.contains("#{")) {
            return Value::Running("an interpolated heredoc".to_owned());
        }
        let indent = |line: &&str| line.len() - line.trim_start_matches([' ', '\t']).len();
        let filled = lines.iter().filter(|line| !line.trim().is_empty());
        let margin = if squiggly { filled.map(indent).min().unwrap_or(0) } else { 0 };
        let cut = |line: &&str| line.get(margin.min(indent(line))..).unwrap_or_default().to_owned() + "\n";
        Value::Text(lines.iter().map(cut).collect())
    }

    fn end_of_line(&self, from: usize) -> usize {
        let rest = self.bytes.get(from..).unwrap_or_default();
        from + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
    }
}
