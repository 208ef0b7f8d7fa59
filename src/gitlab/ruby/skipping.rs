//! Where does something end that is not understood?

use super::Reader;

/// How many blanks a line may begin with before its dot.
const LOOK_AHEAD: usize = 64;

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
        let mut last = b' ';
        while let Some(byte) = self.peek() {
            match byte {
                b'\n' if depth == 0 && !self.goes_on(last) => return,
                b'\n' => self.newline(),
                b'#' => self.skip_line(),
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\'' | b'"' | b'`' => {
                    let start = self.at;
                    self.at += 1;
                    if !self.past_quote(byte) {
                        self.lost = Some(start);
                    }
                    last = b'"';
                }
                b')' | b']' | b'}' | b',' if depth == 0 && !whole => return,
                b';' if depth == 0 => return,
                b'<' if self.announces_heredoc(last) => {
                    self.heredoc();
                    last = b'"';
                }
                _ if byte.is_ascii_alphabetic() || byte == b'_' => {
                    if depth == 0 && self.looks_at(&["do", "then"]) {
                        return;
                    }
                    self.word();
                    last = b'a';
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
