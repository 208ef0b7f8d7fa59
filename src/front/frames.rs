//! Is this HTTP/2 connection used, or is it only kept busy?
//!
//! Frames that carry nothing (`PING`, `SETTINGS`, `PRIORITY`, `RST_STREAM`, `WINDOW_UPDATE`, `CONTINUATION`, `DATA` without
//! data) cost the client a few bytes and us work and answers. Every client sends some. [`Frames`] follows the frames of one
//! connection, inside TLS, and gives them a credit that what is really moved pays back: a client that sends nothing else
//! runs out of it.
//!
//! Absent on purpose: what frames mean, and how large they may be, which the HTTP/2 codec knows.

/// The client connection preface (RFC 9113 3.4).
const PREFACE: usize = 24;
/// Length, type, flags and stream of a frame (RFC 9113 4.1).
const HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// What one frame that carries nothing costs, in bytes moved. The busiest clients send two `WINDOW_UPDATE` for every
/// 4 KiB that they take: a quarter of what that pays.
const COST: i64 = 512;
/// How many of them a client may be ahead.
const CREDIT: i64 = 10_000 * COST;
/// What a request pays: it may be given up, and opens windows.
const REQUEST: i64 = 8 * COST;

/// Follows what an HTTP/2 client sends.
#[derive(Debug)]
pub(super) struct Frames {
    header: [u8; HEADER],
    /// How much of `header` has come.
    came: usize,
    /// How much is left of the frame's payload, or of the preface.
    left: usize,
    credit: i64,
}

/// The client only keeps us busy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flood;

impl Frames {
    pub(super) fn new() -> Self {
        Self { header: [0; HEADER], came: 0, left: PREFACE, credit: CREDIT }
    }

    /// Looks at what the client sent.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while !bytes.is_empty() {
            let payload = self.left.min(bytes.len());
            self.left -= payload;
            bytes = &bytes[payload..];
            let header = (HEADER - self.came).min(bytes.len());
            self.header[self.came..self.came + header].copy_from_slice(&bytes[..header]);
            self.came += header;
            bytes = &bytes[header..];
            if self.came == HEADER {
                self.came = 0;
                self.begin();
            }
            if self.credit < 0 {
                return Err(Flood);
            }
        }
        Ok(())
    }

    /// So many bytes were sent to the client.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.pay(i64::try_from(bytes).unwrap_or(CREDIT));
    }

    /// A frame begins.
    fn begin(&mut self) {
        let [high, middle, low, kind, ..] = self.header;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.left = length as usize;
        match kind {
            DATA if length > 0 => self.pay(i64::from(length)),
            HEADERS => self.pay(REQUEST),
            _ => self.credit -= COST,
        }
    }

    fn pay(&mut self, worth: i64) {
        self.credit = self.credit.saturating_add(worth).min(CREDIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let [_, high, middle, low] = u32::try_from(length).unwrap().to_be_bytes();
        let mut frame = vec![high, middle, low, kind, 0, 0, 0, 0, 1];
        frame.resize(HEADER + length, 0xff);
        frame
    }

    fn begun() -> Frames {
        let mut frames = Frames::new();
        frames.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        frames
    }

    const EMPTY: [u8; 8] = [0, 2, 3, 4, 6, 8, 9, 200];

    #[test]
    fn frames_that_carry_nothing_run_out_of_credit() {
        for kind in EMPTY {
            let mut frames = begun();
            let frame = if kind == DATA { frame(kind, 0) } else { frame(kind, 8) };
            let sent = (0..20_000).take_while(|_| frames.read(&frame).is_ok()).count();
            assert_eq!(sent as i64, CREDIT / COST, "{kind}");
        }
    }

    #[test]
    fn whoever_moves_something_pays() {
        let mut frames = begun();
        for _ in 0..100_000 {
            frames.read(&frame(8, 4)).unwrap();
            frames.read(&frame(8, 4)).unwrap();
            frames.sent(4096); // a download
        }
        for _ in 0..100_000 {
            frames.read(&frame(HEADERS, 30)).unwrap();
            frames.read(&frame(3, 4)).unwrap();
            frames.read(&frame(6, 8)).unwrap();
        }
        for _ in 0..100_000 {
            frames.read(&frame(DATA, 1)).unwrap();
        }
        frames.read(&frame(DATA, (1 << 24) - 1)).unwrap();
    }

    #[test]
    fn it_does_not_matter_in_which_pieces_bytes_come() {
        let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for (kind, length) in [(4, 0), (HEADERS, 25), (DATA, 700), (6, 8), (8, 4), (DATA, 0)] {
            all.extend(frame(kind, length));
        }
        let mut whole = Frames::new();
        whole.read(&all).unwrap();
        for size in [1, 2, 7, 9, 10, 33] {
            let mut frames = Frames::new();
            all.chunks(size).for_each(|piece| frames.read(piece).unwrap());
            assert_eq!((frames.credit, frames.left, frames.came), (whole.credit, whole.left, whole.came));
        }
        assert_eq!(whole.credit, CREDIT - 3 * COST);
    }
}
