//! How do lines reach a stream that may be slow, without anybody waiting for it?
//!
//! A line is appended to a queue in memory; a thread writes the queue out in large pieces. A reader that stops (a full
//! pipe, a stopped terminal) fills the queue to [`QUEUE_LIMIT`]; lines beyond it are counted, and the count is
//! written in their place when the reader comes back.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use serde::Serialize;

use super::{Format, Style};

/// How many bytes may wait for a slow reader.
const QUEUE_LIMIT: usize = 4 << 20;
/// How long the writer lets lines gather after it has written some: one system call for hundreds of requests.
const GATHER: Duration = Duration::from_millis(10);
/// How much of the memory for one line a thread keeps for the next.
const LINE_KEPT: usize = 4 << 10;
/// How long the end of the process waits for a reader.
const FAREWELL: Duration = Duration::from_secs(3);

/// Where lines end up.
pub(super) trait Sink: Send + 'static {
    /// Takes whole lines. What becomes of them is the sink's to tell.
    fn write(&mut self, lines: &[u8]);

    /// Begins anew where somebody moved the old end away.
    fn reopen(&mut self) {}
}

/// A stream that was there before us.
struct Stream<W>(W);

impl<W: Write + Send + 'static> Sink for Stream<W> {
    fn write(&mut self, lines: &[u8]) {
        // A stream that is gone (EPIPE) takes nothing more; there is nobody to tell, and the server runs on.
        let _ = self.0.write_all(lines).and_then(|()| self.0.flush());
    }
}

/// Something that one line tells.
pub(super) trait Line: Serialize {
    /// The line for people; nothing in it may break it.
    fn text(&self) -> String;
}

/// A log: lines of one style that go somewhere, or nowhere. Clones share it.
#[derive(Clone)]
pub struct Log {
    lines: Option<Lines>,
    style: Style,
}

impl Log {
    /// Nowhere.
    pub fn off() -> Self {
        Self { lines: None, style: Style::Json }
    }

    /// To this stream, in a thread of its own; `Auto` means JSON.
    pub fn new(stream: impl Write + Send + 'static, format: Format) -> Self {
        Self::to(Stream(stream), if format == Format::Text { Style::Text } else { Style::Json })
    }

    pub(super) fn to_stdout(style: Style) -> Self {
        Self::to(Stream(io::stdout()), style)
    }

    pub(super) fn to(sink: impl Sink, style: Style) -> Self {
        Self { lines: Some(Lines::to(sink, style)), style }
    }

    /// Writes one line, or counts it as lost when the reader does not keep up. Never waits.
    pub(super) fn write(&self, told: &impl Line) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let Some(lines) = &self.lines else { return };
        LINE.with_borrow_mut(|line| {
            line.clear();
            match self.style {
                Style::Json if serde_json::to_writer(&mut *line, told).is_ok() => {}
                // Neither a struct nor memory fails. If one ever does, half a line is none.
                Style::Json => {
                    line.clear();
                    line.extend_from_slice(b"{\"lost\":1,\"message\":\"a line that is no JSON\"}");
                }
                Style::Text => line.extend_from_slice(told.text().as_bytes()),
            }
            line.push(b'\n');
            lines.push(line);
            line.shrink_to(LINE_KEPT);
        });
    }

    /// Whether anybody wants lines.
    pub(super) fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    pub(super) fn reopen(&self) {
        if let Some(lines) = &self.lines {
            lines.reopen();
        }
    }

    /// Ends the log; how many bytes stay unwritten, if any.
    pub(super) fn close(&self) -> Option<usize> {
        self.lines.as_ref()?.close()
    }
}

/// A stream of lines. Clones share it.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    finished: Condvar,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Lines thrown away since the last that was queued.
    lost: u64,
    reopen: bool,
    closing: bool,
    finished: bool,
}

impl Lines {
    pub(super) fn new(stream: impl Write + Send + 'static, style: Style) -> Self {
        Self::to(Stream(stream), style)
    }

    fn to(sink: impl Sink, style: Style) -> Self {
        let shared = Arc::new(Shared { queue: Mutex::default(), filled: Condvar::new(), finished: Condvar::new() });
        let lines = Self(shared.clone());
        let writer = std::thread::Builder::new().name("log".to_owned()).spawn(move || shared.write_out(sink, style));
        if writer.is_err() {
            // No thread, no lines; everything else still works.
            lines.0.queue.lock().finished = true;
        }
        lines
    }

    /// Appends a line, or counts it as lost. Never waits for the reader.
    pub(super) fn push(&self, line: &[u8]) {
        let mut queue = self.0.queue.lock();
        if queue.bytes.len() + line.len() > QUEUE_LIMIT || queue.finished {
            queue.lost += 1;
            return;
        }
        let was_empty = queue.bytes.is_empty();
        queue.bytes.extend_from_slice(line);
        if was_empty {
            self.0.filled.notify_one();
        }
    }

    /// What comes from now on, and perhaps what waits, goes to where the name leads now.
    fn reopen(&self) {
        self.0.queue.lock().reopen = true;
        self.0.filled.notify_one();
    }

    /// Ends the stream; gives back how many bytes could not be written in time, if any.
    pub(super) fn close(&self) -> Option<usize> {
        let deadline = Instant::now() + FAREWELL;
        let mut queue = self.0.queue.lock();
        queue.closing = true;
        self.0.filled.notify_one();
        while !queue.finished {
            if self.0.finished.wait_until(&mut queue, deadline).timed_out() {
                return Some(queue.bytes.len().max(1));
            }
        }
        None
    }
}

impl Shared {
    fn write_out(&self, mut sink: impl Sink, style: Style) {
        let mut batch = Vec::new();
        loop {
            let (lost, reopen, closing) = {
                let mut queue = self.queue.lock();
                while queue.bytes.is_empty() && queue.lost == 0 && !queue.reopen && !queue.closing {
                    self.filled.wait(&mut queue);
                }
                if queue.bytes.is_empty() && queue.lost == 0 && !queue.reopen {
                    queue.finished = true;
                    self.finished.notify_all();
                    return;
                }
                std::mem::swap(&mut batch, &mut queue.bytes);
                (std::mem::take(&mut queue.lost), std::mem::take(&mut queue.reopen), queue.closing)
            };
            if reopen {
                sink.reopen();
            }
            if lost > 0 {
                batch.extend_from_slice(loss(lost, style).as_bytes());
            }
            sink.write(&batch);
            batch.clear();
            batch.shrink_to(64 << 10);
            if !closing {
                std::thread::sleep(GATHER);
            }
        }
    }
}

fn loss(lines: u64, style: Style) -> String {
    match style {
        Style::Text => format!("({lines} lines were lost here: the reader of this stream was too slow)\n"),
        Style::Json => format!("{{\"lost\":{lines},\"message\":\"the reader of this stream was too slow\"}}\n"),
    }
}

/// What `tracing` writes an event to: one call, one line.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use serde::ser::SerializeMap as _;

    use super::*;

    /// A reader that takes a piece only when the test says so.
    struct Gate {
        open: mpsc::Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.open.recv(); // an error when the test lets go of its end: open for good
            self.taken.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Lines, mpsc::Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (opener, open) = mpsc::channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        (Lines::new(Gate { open, taken: taken.clone() }, Style::Text), opener, taken)
    }

    #[test]
    fn closing_writes_every_line_in_order() {
        let (lines, opener, taken) = gated();
        drop(opener);
        for n in 0..1000 {
            lines.push(format!("{n}\n").as_bytes());
        }
        assert_eq!(lines.close(), None);
        let expected: String = (0..1000).map(|n| format!("{n}\n")).collect();
        assert_eq!(String::from_utf8(taken.lock().clone()).unwrap(), expected);
    }

    #[test]
    fn a_line_that_cannot_be_written_to_its_end_is_not_begun_either() {
        struct Odd;

        impl serde::Serialize for Odd {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("good", &1)?;
                Err(serde::ser::Error::custom("as the test wants"))
            }
        }

        impl Line for Odd {
            fn text(&self) -> String {
                String::new()
            }
        }

        let taken = Arc::new(Mutex::new(Vec::new()));
        let (opener, open) = mpsc::channel();
        drop(opener);
        let log = Log::new(Gate { open, taken: taken.clone() }, Format::Json);
        log.write(&Odd);
        assert_eq!(log.close(), None);
        let taken = String::from_utf8(taken.lock().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(taken.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!((&line["lost"], &line["good"]), (&1.into(), &serde_json::Value::Null), "{taken}");
    }

    #[test]
    fn a_stuck_reader_costs_lines_but_never_time_and_the_loss_is_told() {
        let (lines, opener, taken) = gated();
        let line = [b'x'; 1 << 16];
        let pushed = 3 * QUEUE_LIMIT / line.len();
        for _ in 0..pushed {
            lines.push(&line);
        }
        drop(opener);
        assert_eq!(lines.close(), None);
        let taken = taken.lock();
        assert!(taken.len() < 2 * QUEUE_LIMIT + 1000);
        let text = String::from_utf8_lossy(&taken);
        assert!(text.contains("lines were lost here"), "the loss is said");
    }

    #[test]
    fn what_cannot_be_written_before_the_end_is_reported() {
        let (lines, opener, _taken) = gated();
        lines.push(b"never read\n");
        assert!(lines.close().is_some());
        drop(opener);
    }
}
