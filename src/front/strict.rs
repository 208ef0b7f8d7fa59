//! Is this HTTP/1.1 by the letter?
//!
//! Where two programs in a row read the same bytes differently, one of them takes for a request what the other took for
//! a body (request smuggling). We cannot know who is in front of us, so everything that some program is known to read in
//! its own way is refused here, before Pingora parses it: lines that end without CR, folded lines, blanks around names,
//! more than one length, or two ways of saying where a body ends.
//!
//! **Invariants**
//! - What [`Head`] lets pass has one meaning in every program that follows RFC 9112.
//! - Both readers are fed bytes as they come, look at each once and hold none.
//!
//! Absent on purpose: what the fields mean, how many bytes a header may have ([`io`](super::io)).

use super::refusal::Refusal;

/// How many bytes of chunk extensions and trailers one body may have. Nothing here reads them.
const EXTRAS: usize = 8 << 10;
/// Digits of a chunk's size, so that it cannot overflow.
const SIZE_DIGITS: u8 = 15;

/// Reads the header of one request.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// The most fields.
    limit: usize,
    /// Where the line begins that is not complete yet.
    line: usize,
    /// How far that line has been searched for its end.
    searched: usize,
    begun: bool,
    old: bool,
    fields: usize,
    hosts: usize,
    lengths: usize,
    codings: usize,
}

/// A header that is complete.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complete {
    /// Its bytes, with the empty line.
    pub(super) length: usize,
    /// Whether the body comes in chunks.
    pub(super) chunked: bool,
}

impl Head {
    /// Of a request that may have so many fields.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Looks at what is new in `bytes`, which begins with the request. `None`: there must be more.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Option<Complete>, Refusal> {
        // One pass finds the end of a line and whatever may not be in one.
        while let Some(found) = first_control(&bytes[self.searched..]) {
            let end = self.searched + found;
            let line = match bytes[end..] {
                [b'\r', b'\n', ..] => &bytes[self.line..end],
                [b'\r'] => {
                    self.searched = end;
                    return self.incomplete(&bytes[self.line..end]);
                }
                _ => return Err(Refusal::Malformed),
            };
            (self.line, self.searched) = (end + 2, end + 2);
            match (self.begun, line) {
                (false, b"") => {} // RFC 9112 2.2: some clients end a body with one line too many
                (false, line) => self.request_line(line)?,
                (true, b"") => return self.complete().map(Some),
                (true, line) => self.field(line)?,
            }
        }
        self.searched = bytes.len();
        self.incomplete(&bytes[self.line..])
    }

    fn incomplete(&self, line: &[u8]) -> Result<Option<Complete>, Refusal> {
        if !self.begun {
            plausible(line)?;
        }
        Ok(None)
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::Malformed);
        };
        self.begun = true;
        self.old = version == b"HTTP/1.0";
        if !is_token(method) || !(self.old || version == b"HTTP/1.1") {
            return Err(Refusal::Malformed);
        }
        is_target(method, target)
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > self.limit {
            return Err(Refusal::TooManyFields { limit: self.limit });
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Refusal::Malformed)?;
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        if !is_token(name) {
            return Err(Refusal::Malformed);
        }
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths += 1;
            number(value)?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.codings += 1;
            // No other coding has ever been sent by a client of registries, and RFC 9112 6.1 lets us refuse.
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::Malformed);
            }
        }
        Ok(())
    }

    fn complete(&self) -> Result<Complete, Refusal> {
        if self.hosts > 1 {
            return Err(Refusal::HostMissing);
        }
        // RFC 9112 6.1 and 6.3, in the strictest of the readings that they allow.
        if self.lengths + self.codings > 1 || (self.old && self.codings > 0) {
            return Err(Refusal::Malformed);
        }
        Ok(Complete { length: self.line, chunked: self.codings > 0 })
    }
}

/// Whether what has come of a first line can become one, so that whoever speaks something else is told at once.
fn plausible(line: &[u8]) -> Result<(), Refusal> {
    let method = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    if method.iter().all(|byte| is_token_byte(*byte)) { Ok(()) } else { Err(Refusal::Malformed) }
}

/// RFC 9112 3.2: origin-form, absolute-form, `*`, or with CONNECT an authority. A fragment would be cut off by whoever
/// parses the target as a URI.
fn is_target(method: &[u8], target: &[u8]) -> Result<(), Refusal> {
    if !target.is_ascii() {
        return Err(Refusal::TargetNotText);
    }
    let scheme = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let form = match method {
        b"CONNECT" => !target.is_empty(),
        b"OPTIONS" if target == b"*" => true,
        _ => target.starts_with(b"/") || scheme(b"http://") || scheme(b"https://"),
    };
    let visible = target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#');
    if form && visible { Ok(()) } else { Err(Refusal::Malformed) }
}

/// Optional blanks around a value are SP and HTAB and nothing else.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn number(value: &[u8]) -> Result<(), Refusal> {
    let digits = value.iter().all(u8::is_ascii_digit);
    let fits = std::str::from_utf8(value).is_ok_and(|text| text.parse::<i64>().is_ok());
    if digits && fits { Ok(()) } else { Err(Refusal::Malformed) }
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| is_token_byte(*byte))
}

fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Of each byte, whether it may stand in a token (RFC 9110 5.6.2): a look is less work than the question.
const TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        token[byte] = matches!(byte as u8, b'0'..=b'9' | b'A'..=b'Z' | b'^'..=b'z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'|' | b'~');
        byte += 1;
    }
    token
};

/// How many bytes are looked at at once. A token alone makes a header of some thousand.
const BLOCK: usize = 32;

/// Where the first control is. A block without one, as nearly all are, is looked at without a branch for each byte, which
/// compilers turn into a few instructions for the whole of it.
fn first_control(bytes: &[u8]) -> Option<usize> {
    let has_one = |block: &[u8]| block.iter().fold(false, |found, byte| found | is_control(*byte));
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    let clean = blocks.iter().take_while(|block| !has_one(&block[..])).count() * BLOCK;
    bytes[clean..].iter().position(|byte| is_control(*byte)).map(|found| clean + found)
}

/// What no field's value may hold (RFC 9110 5.5), nor anything else of a header.
fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// Reads the frame of one body that comes in chunks. Pingora takes any byte for part of a chunk extension, even LF,
/// where others see the end of the line.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    at: At,
    extras: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a chunk's size, after so many digits.
    #[default]
    Size0,
    Size {
        size: u64,
        digits: u8,
    },
    /// In blanks that only an extension may follow.
    Blank {
        size: u64,
    },
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the beginning of a trailer field, or of the empty line.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Done,
}

/// The bytes are no chunks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

impl Chunks {
    /// How many of these bytes belong to the body; those after it are another request's.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut rest = bytes;
        while let [byte, after @ ..] = rest {
            match self.at {
                At::Done => break,
                At::Data { left } => {
                    let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.at = if left == taken as u64 { At::DataCr } else { At::Data { left: left - taken as u64 } };
                    rest = &rest[taken..];
                }
                at => {
                    self.at = self.step(at, *byte)?;
                    rest = after;
                }
            }
        }
        Ok(bytes.len() - rest.len())
    }

    fn step(&mut self, at: At, byte: u8) -> Result<At, Broken> {
        let next = match (at, byte) {
            (At::Size0, _) => At::Size { size: digit(byte)?, digits: 1 },
            (At::Size { size, .. } | At::Extension { size }, b'\r') => At::SizeLf { size },
            (At::Size { size, .. } | At::Blank { size }, b';') => At::Extension { size },
            (At::Size { size, .. } | At::Blank { size }, b' ' | b'\t') => At::Blank { size },
            (At::Size { size, digits }, _) if digits < SIZE_DIGITS => {
                At::Size { size: size << 4 | digit(byte)?, digits: digits + 1 }
            }
            (At::Extension { size }, _) if !is_control(byte) => At::Extension { size },
            (At::SizeLf { size: 0 }, b'\n') => At::Trailer,
            (At::SizeLf { size }, b'\n') => At::Data { left: size },
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size0,
            (At::Trailer, b'\r') => At::LastLf,
            (At::Trailer | At::TrailerName, _) if is_token_byte(byte) => At::TrailerName,
            (At::TrailerName, b':') => At::TrailerValue,
            (At::TrailerValue, b'\r') => At::TrailerLf,
            (At::TrailerValue, _) if !is_control(byte) => At::TrailerValue,
            (At::TrailerLf, b'\n') => At::Trailer,
            (At::LastLf, b'\n') => At::Done,
            _ => return Err(Broken),
        };
        let extra = matches!(next, At::Blank { .. } | At::Extension { .. } | At::TrailerName | At::TrailerValue);
        self.extras += usize::from(extra);
        if self.extras > EXTRAS { Err(Broken) } else { Ok(next) }
    }
}

fn digit(byte: u8) -> Result<u64, Broken> {
    char::from(byte).to_digit(16).map(u64::from).ok_or(Broken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIELDS: usize = 100;

    fn head(text: &str) -> Result<Option<Complete>, Refusal> {
        Head::new(FIELDS).read(text.as_bytes())
    }

    fn chunks(text: &str) -> Result<(usize, bool), Broken> {
        let mut chunks = Chunks::default();
        chunks.read(text.as_bytes()).map(|used| (used, chunks.at == At::Done))
    }

    #[test]
    fn the_first_control_is_found_wherever_it_is() {
        for length in 0..3 * BLOCK {
            let mut bytes = vec![b'\t'; length];
            assert_eq!(first_control(&bytes), None);
            for at in (0..length).rev() {
                bytes[at] = if at % 2 == 0 { b'\r' } else { 0x7f };
                assert_eq!(first_control(&bytes), Some(at));
            }
        }
    }

    #[test]
    fn what_registry_clients_send_is_read() {
        for (text, chunked) in [
            ("GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n", false),
            ("HEAD /v2/a/blobs/sha256:0?a=%2e%2E/&b=%00 HTTP/1.1\r\nHost: a\r\n\r\n", false),
            ("GET /v2/ HTTP/1.0\r\n\r\n", false),
            ("\r\n\r\nGET http://a/v2/ HTTP/1.1\r\nhost:a\r\n\r\n", false),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", false),
            ("PUT /v2/ HTTP/1.1\r\nHost: a\r\ncontent-length: \t007 \r\nX-Empty:\r\nX: a\tb \u{e4}\r\n\r\n", false),
            ("PATCH /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", true),
        ] {
            let length = text.len();
            assert_eq!(head(&format!("{text}more")), Ok(Some(Complete { length, chunked })), "{text:?}");
            let mut slow = Head::new(FIELDS);
            for end in 0..length {
                assert_eq!(slow.read(&text.as_bytes()[..end]), Ok(None), "{text:?} up to {end}");
            }
            assert_eq!(slow.read(text.as_bytes()), Ok(Some(Complete { length, chunked })));
        }
    }

    #[test]
    fn what_another_program_could_read_differently_is_refused() {
        for line in [
            "GET /\n",
            "GET /  HTTP/1.1\r\n",
            "GET\t/ HTTP/1.1\r\n",
            "GET / HTTP/1.1 \r\n",
            "GET / HTTP/2.0\r\n",
            "GET / http/1.1\r\n",
            "GET / HTTP/1.1\n",
            "GET / HTTP/1.1\r\r\n",
            "GET /a b HTTP/1.1\r\n",
            " GET / HTTP/1.1\r\n",
            "GET /\r\n",
            "GET / HTTP/0.9\r\n",
            "GET / HTTP/1.10\r\n",
            "G(T / HTTP/1.1\r\n",
            "GET /#a HTTP/1.1\r\n",
            "GET /\0 HTTP/1.1\r\n",
            "GET /\x7f HTTP/1.1\r\n",
            "GET a HTTP/1.1\r\n",
            "GET * HTTP/1.1\r\n",
            "GET ftp://a/ HTTP/1.1\r\n",
            "\n",
            "\x16\x03\x01",
            "\r\r",
        ] {
            assert_eq!(head(line), Err(Refusal::Malformed), "{line:?}");
        }
        assert_eq!(head("GET /\u{e4} HTTP/1.1\r\n"), Err(Refusal::TargetNotText));
        for fields in [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: 9223372036854775808\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
            "Transfer-Encoding: \x0cchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding:\r\n chunked\r\n",
            " Transfer-Encoding: chunked\r\n",
            "X: a\r\n b\r\n",
            "X: a\r\n\tb\r\n",
            "X : a\r\n",
            ": a\r\n",
            "X\r\n",
            "X: a\nTransfer-Encoding: chunked\r\n",
            "X: a\rTransfer-Encoding: chunked\r\n",
            "X: a\0b\r\n",
            "X\0: a\r\n",
            "X: a\x7f\r\n",
            "X\u{e4}: a\r\n",
            "X: a\n\n",
            "X: a\r\n\n",
        ] {
            assert_eq!(
                head(&format!("PUT / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")),
                Err(Refusal::Malformed),
                "{fields:?}"
            );
        }
        assert_eq!(head("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), Err(Refusal::HostMissing));
        assert_eq!(head("PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(Refusal::Malformed));
        let many = "X: y\r\n".repeat(FIELDS + 1);
        assert_eq!(head(&format!("GET / HTTP/1.1\r\n{many}")), Err(Refusal::TooManyFields { limit: FIELDS }));
    }

    #[test]
    fn chunks_end_where_every_program_sees_their_end() {
        for (text, after) in [
            ("0\r\n\r\n", ""),
            ("3\r\nabc\r\n0\r\n\r\n", "GET / HTTP/1.1\r\n"),
            ("A\r\n\r\n0\r\n\r\n\n\0\r\r\n00\r\n\r\n", "x"),
            ("4;ext=1\r\nabcd\r\n1 ;a=\"b c\"\r\nx\r\n0;z\r\nX-Sum: 5\r\nY:\r\n\r\n", "0\r\n\r\n"),
        ] {
            assert_eq!(chunks(&format!("{text}{after}")), Ok((text.len(), true)), "{text:?}");
            let mut slow = Chunks::default();
            for byte in text.as_bytes() {
                assert_eq!(slow.read(&[*byte]), Ok(1));
            }
            assert_eq!(slow.read(b"x"), Ok(0));
        }
        for text in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\n",
            "1\r\r",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rb",
            "1;a\nb\r\n",
            "1;a\0\r\n",
            "1;a\rb",
            "1000000000000000\r\n",
            "0\r\n\n",
            "0\r\nX\r\n",
            "0\r\n X: y\r\n",
            "0\r\nX : y\r\n",
            "0\r\nX: y\n",
            "0\r\nX: y\0",
            "0\r\n\rX",
            "+1\r\n",
            "1_0\r\n",
            "1,\r\n",
        ] {
            assert_eq!(chunks(text), Err(Broken), "{text:?}");
        }
        assert_eq!(chunks(&format!("1;{}", "x".repeat(EXTRAS))), Err(Broken));
        assert_eq!(chunks(&format!("0\r\n{}", "X: yyyy\r\n".repeat(EXTRAS / 4))), Err(Broken));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_bytes_come(
            bytes in prop::collection::vec(prop::sample::select(b"GET / HTP1.\r\n\r\n:ax0;\t".to_vec()), 0..80),
            cut in 0usize..80,
        ) {
            let cut = cut.min(bytes.len());
            let whole = Head::new(FIELDS).read(&bytes);
            let mut head = Head::new(FIELDS);
            let first = head.read(&bytes[..cut]);
            let pieces = if first == Ok(None) { head.read(&bytes) } else { first };
            // A refusal may come at once or with a later piece, but it comes.
            prop_assert_eq!(whole.is_err(), pieces.is_err());

            let mut chunks = Chunks::default();
            let pieces = chunks.read(&bytes[..cut]).and_then(|used| if used < cut { Ok(used) } else {
                chunks.read(&bytes[cut..]).map(|more| used + more)
            });
            prop_assert_eq!(Chunks::default().read(&bytes), pieces);
        }
    }
}
