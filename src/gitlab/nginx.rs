//! What directives does an NGINX configuration hold?
//!
//! A reader of NGINX's syntax: words up to `;`, or up to a block in braces. It knows no directive; what they mean is for
//! [`block`](super::block).
//!
//! **Invariants:** no text makes it panic; it looks at every byte a bounded number of times; blocks nest [`DEEPEST`] deep.
//!
//! Absent on purpose: `include` is not followed, variables are not filled in.

/// Blocks within each other.
const DEEPEST: usize = 16;

/// `name args;` or `name args { ... }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    /// From 1.
    pub(super) line: usize,
    pub(super) block: Option<Vec<Directive>>,
    /// What was wrong with it that did not keep us from reading on.
    pub(super) flaw: Option<&'static str>,
}

impl Directive {
    /// All arguments, as they were written but for quotes.
    pub(super) fn text(&self) -> String {
        self.arguments.join(" ")
    }

    /// The first argument, or nothing.
    pub(super) fn first(&self) -> &str {
        self.arguments.first().map_or("", String::as_str)
    }
}

struct Word {
    text: String,
    line: usize,
    /// Whether it is the first of its line.
    first: bool,
}

/// Reads all directives; `line` is the number of the first line.
pub(super) fn read(text: &str, line: usize) -> Vec<Directive> {
    let mut open: Vec<Vec<Directive>> = vec![Vec::new()];
    let mut words: Vec<Word> = Vec::new();
    let mut lexer = Lexer { rest: text, line, fresh: true };
    while let Some(token) = lexer.next() {
        match token {
            Token::Word(word) => words.push(word),
            Token::End => finish(&mut open, &mut words, None),
            Token::Open if open.len() <= DEEPEST => {
                finish(&mut open, &mut words, None);
                open.push(Vec::new());
            }
            // Deeper than anybody writes: what is inside is read as if it stood here, and named.
            Token::Open => finish(&mut open, &mut words, Some("nested too deep")),
            Token::Close => {
                finish(&mut open, &mut words, Some("no ; behind it"));
                close(&mut open);
            }
        }
    }
    finish(&mut open, &mut words, Some("no ; behind it"));
    while open.len() > 1 {
        close(&mut open);
    }
    open.pop().unwrap_or_default()
}

/// Makes a directive of the words so far. GitLab's sample lacks two semicolons: a line that begins with `ssl_` begins a
/// directive.
fn finish(open: &mut [Vec<Directive>], words: &mut Vec<Word>, flaw: Option<&'static str>) {
    let Some(level) = open.last_mut() else { return };
    let mut last: Option<Directive> = None;
    for word in words.drain(..) {
        match &mut last {
            Some(directive) if !(word.first && word.text.starts_with("ssl_")) => directive.arguments.push(word.text),
            _ => {
                let begun = Directive { name: word.text, arguments: Vec::new(), line: word.line, block: None, flaw };
                if let Some(directive) = last.replace(begun) {
                    level.push(Directive { flaw: Some("no ; behind it"), ..directive });
                }
            }
        }
    }
    level.extend(last);
}

fn close(open: &mut Vec<Vec<Directive>>) {
    if open.len() < 2 {
        return;
    }
    let inside = open.pop().unwrap_or_default();
    let Some(level) = open.last_mut() else { return };
    match level.last_mut() {
        Some(directive) if directive.block.is_none() => directive.block = Some(inside),
        // A block without a name.
        _ => level.extend(inside),
    }
}

enum Token {
    Word(Word),
    End,
    Open,
    Close,
}

struct Lexer<'t> {
    rest: &'t str,
    line: usize,
    fresh: bool,
}

impl Lexer<'_> {
    fn take(&mut self) -> Option<char> {
        let mut letters = self.rest.chars();
        let letter = letters.next()?;
        self.rest = letters.as_str();
        if letter == '\n' {
            self.line += 1;
            self.fresh = true;
        }
        Some(letter)
    }

    fn next(&mut self) -> Option<Token> {
        loop {
            let letter = self.rest.chars().next()?;
            match letter {
                '#' => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.rest = &self.rest[end..];
                }
                ';' | '{' | '}' => {
                    self.take();
                    return Some(match letter {
                        ';' => Token::End,
                        '{' => Token::Open,
                        _ => Token::Close,
                    });
                }
                letter if letter.is_whitespace() => {
                    self.take();
                }
                _ => return Some(self.word()),
            }
        }
    }

    fn word(&mut self) -> Token {
        let (line, first) = (self.line, std::mem::replace(&mut self.fresh, false));
        let quote = self.rest.chars().next().filter(|letter| matches!(letter, '\'' | '"'));
        let mut text = String::new();
        if let Some(quote) = quote {
            self.take();
            while let Some(letter) = self.take() {
                match letter {
                    '\\' if self.rest.starts_with([quote, '\\']) => text.extend(self.take()),
                    _ if letter == quote => break,
                    _ => text.push(letter),
                }
            }
            return Token::Word(Word { text, line, first });
        }
        while let Some(letter) = self.rest.chars().next() {
            let variable = letter == '{' && text.ends_with('$');
            if (letter.is_whitespace() || matches!(letter, ';' | '{')) && !variable {
                break;
            }
            if letter == '}' && !text.contains("${") {
                break;
            }
            self.take();
            text.push(letter);
            if letter == '\\' {
                text.extend(self.take());
            }
        }
        Token::Word(Word { text, line, first })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    fn show(directives: &[Directive]) -> String {
        let one = |directive: &Directive| {
            let block = directive.block.as_deref().map(|block| format!("{{{}}}", show(block)));
            let flaw = directive.flaw.map(|flaw| format!("!{flaw}"));
            let parts = [
                Some(format!("{}:{}", directive.line, directive.name)),
                Some(directive.arguments.join(",")),
                block,
                flaw,
            ];
            parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
        };
        directives.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn directives_and_blocks_are_read() {
        let cases = [
            ("a b c;", "1:a b,c"),
            ("a 'b c' \"d\\\"e\"; # f\ng;", "1:a b c,d\"e; 2:g"),
            ("server {\n listen 1;\n location / { a; }\n}", "1:server {2:listen 1; 3:location / {3:a}}"),
            ("return 301 https://a:${port}$request_uri;", "1:return 301,https://a:${port}$request_uri"),
            (
                "ssl_certificate a\n ssl_certificate_key b\nssl_ciphers c;",
                "1:ssl_certificate a !no ; behind it; 2:ssl_certificate_key b !no ; behind it; 3:ssl_ciphers c",
            ),
            ("if ($a ~ b) { return 1; }", "1:if ($a,~,b) {1:return 1}"),
            ("a {\n b 'c", "1:a {2:b c !no ; behind it}"),
            ("}} a;", "1:a"),
        ];
        for (text, expected) in cases {
            assert_eq!(show(&read(text, 1)), expected, "{text}");
        }
    }

    #[test]
    fn nothing_takes_longer_than_its_length() {
        for unit in ["a{", "{", "'", "a ", "a;", "}", "\\", "${", "#\n", "ssl_a\n"] {
            let begun = Instant::now();
            read(&unit.repeat(200_000 / unit.len()), 1);
            assert!(begun.elapsed().as_secs() < 5, "{unit:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            read(&text, 1);
        }

        #[test]
        fn no_block_makes_it_panic(text in "([a-z_]{1,3}|[{};'\"\\\\#$ \\n]|ssl_x|\u{e9}){0,80}") {
            read(&text, 1);
        }
    }
}
