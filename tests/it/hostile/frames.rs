//! HTTP/2 by hand: frames that no library would send.

use std::time::{Duration, Instant};

use super::wire::{Door, Tls, Wire};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    let mut frame = vec![high, middle, low, kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Fields as literals without indexing, which need no table (RFC 7541 6.2.2).
pub(super) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, 0, 7, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// RFC 7541 5.1.
fn integer(block: &mut Vec<u8>, first: u8, bits: u8, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        return block.push(first | value as u8);
    }
    block.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// What became of stream 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was answered.
    Status(u16),
    /// It was reset.
    Reset,
    /// The connection was ended.
    Ended,
}

/// An HTTP/2 connection whose settings have been exchanged.
pub(super) struct Http2 {
    pub(super) wire: Wire<Tls>,
    pub(super) authority: String,
    came: Vec<u8>,
}

impl Http2 {
    pub(super) fn connect(door: &Door) -> Self {
        Self::with_settings(door, &[])
    }

    pub(super) fn with_settings(door: &Door, settings: &[u8]) -> Self {
        let mut wire = door.tls("h2");
        wire.send([PREFACE, &frame(SETTINGS, 0, 0, settings)].concat());
        Self { wire, authority: door.authority.clone(), came: Vec::new() }
    }

    pub(super) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.wire.send(frame(kind, flags, stream, payload))
    }

    pub(super) fn block(&self, method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
        let authority = self.authority.as_str();
        let mut all = vec![(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)];
        all.extend(more);
        fields(&all)
    }

    /// A request that ends with its header, or goes on with a body.
    pub(super) fn request(&mut self, stream: u32, method: &str, path: &str, more: &[(&str, &str)], end: bool) -> bool {
        let block = self.block(method, path, more);
        self.send(HEADERS, if end { END_HEADERS | END_STREAM } else { END_HEADERS }, stream, &block)
    }

    /// Sends the same frame until the server ends the connection; how often.
    pub(super) fn flood(&mut self, most: usize, mut frames: impl FnMut(usize) -> Vec<u8>) -> usize {
        for sent in 0..most {
            if !self.wire.send(frames(sent)) {
                return sent;
            }
            if sent % 64 == 0 {
                self.wire.stream.sock.set_read_timeout(Some(Duration::from_millis(1))).expect("a socket");
                self.came.extend(self.wire.glance());
                if self.wire.is_closed() {
                    return sent;
                }
            }
        }
        most
    }

    /// The next frame: type, flags, stream, payload. `None`: the connection is over.
    pub(super) fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let [high, middle, low, kind, flags, a, b, c, d, rest @ ..] = self.came.as_slice() {
                let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
                if rest.len() >= length {
                    let (kind, flags, stream) = (*kind, *flags, u32::from_be_bytes([*a, *b, *c, *d]));
                    let payload = rest[..length].to_vec();
                    self.came.drain(..9 + length);
                    return Some((kind, flags, stream, payload));
                }
            }
            if self.wire.is_closed() {
                return None;
            }
            assert!(Instant::now() < deadline, "the server neither answers nor ends it");
            let more = self.wire.glance();
            self.came.extend(more);
        }
    }

    pub(super) fn outcome(&mut self) -> Outcome {
        self.outcome_of(1)
    }

    pub(super) fn outcome_of(&mut self, wanted: u32) -> Outcome {
        loop {
            match self.next() {
                None => return Outcome::Ended,
                Some((GOAWAY, _, _, payload)) if payload[4..8] != [0; 4] => return Outcome::Ended,
                Some((HEADERS, _, stream, payload)) if stream == wanted => return Outcome::Status(status(&payload)),
                Some((RST_STREAM, _, stream, _)) if stream == wanted => return Outcome::Reset,
                Some(_) => {}
            }
        }
    }
}

/// The first field of an answer is `:status`, by static index or with a literal value (RFC 7541 appendix A).
fn status(block: &[u8]) -> u16 {
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [index @ 0x88..=0x8e, ..] => STATIC[usize::from(index - 0x88)],
        [0x08 | 0x48, 3, digits @ ..] => {
            std::str::from_utf8(&digits[..3]).ok().and_then(|text| text.parse().ok()).expect("a status")
        }
        [0x08 | 0x48, length, coded @ ..] => huffman_digits(&coded[..usize::from(length & 0x7f)]),
        _ => panic!("no status in {block:x?}"),
    }
}

/// Three digits in the Huffman code of HPACK: `0` to `2` have five bits, the others six (RFC 7541 appendix B).
fn huffman_digits(coded: &[u8]) -> u16 {
    let bits: Vec<u16> =
        coded.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1))).collect();
    let number = |bits: &[u16]| bits.iter().fold(0, |number, bit| number * 2 + bit);
    let (mut at, mut value) = (0, 0);
    for _ in 0..3 {
        let short = number(&bits[at..at + 5]);
        let digit = if short <= 2 { short } else { number(&bits[at..at + 6]) - 0b01_1001 + 3 };
        at += if short <= 2 { 5 } else { 6 };
        value = value * 10 + digit;
    }
    value
}
