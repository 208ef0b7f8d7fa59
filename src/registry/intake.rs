//! How does a request's body become the data of an upload?
//!
//! ```text
//! client ──read──▶ gather 1 MiB ──▶ one piece waiting ──▶ hash ┐ both at once, on the blocking pool
//!                                                        write ┘
//! ```
//!
//! **Invariant:** at most three pieces of [`PIECE`] are in memory for an upload, whatever its size. When the disk is slow,
//! the piece that waits stops the reading, and that stops the client.
//!
//! **Invariant:** once a turn is taken, everything that touches the upload happens in a task of its own that holds the
//! [`Turn`]. A client that disconnects ends the reading and nothing else: the task writes what it has, makes it durable
//! and only then lets the next request in. Without that, an abandoned write could still be on its way to a file that
//! somebody else already goes on with, or that has become a blob.
//!
//! **Invariant:** what a request could not make durable is cut off again. After a failed sync nobody knows what the disk
//! has, and the next sync would succeed without writing it: what earlier requests made durable is all that counts.
//!
//! **Order:** the data is durable before the hash state that vouches for it is written. Resuming trusts a state without
//! reading the data again, so a state must never know more than the disk does.

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::store::{Store, absorb, present};
use super::turns::{Attendance, Turn};
use super::uploads::discard;
use super::{Error, ended, hash_state, layout};
use crate::exchange::{Exchange, content_length};
use crate::oci::{Algorithm, Hasher, RepositoryName, UploadId};
use crate::storage::{self, Appender, Durability, PIECE};

/// How many hash states are looked at to find one to go on from. One lies there for every chunk.
const STATES: usize = 10_000;

/// An upload that is ours to write to.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) name: RepositoryName,
    pub(super) id: UploadId,
    /// How many bytes have arrived.
    pub(super) size: u64,
    /// How many it may have.
    pub(super) limit: u64,
    pub(super) turn: Turn,
}

/// An upload and the hash of what has arrived of it.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) upload: Upload,
    pub(super) hasher: Hasher,
}

/// A body that was received, as far as it came.
#[derive(Debug)]
pub(super) struct Received {
    /// What there is now: durable, also when the body broke off.
    pub(super) arrived: Arrived,
    /// Whether that is what the client meant to send.
    pub(super) outcome: Result<(), Error>,
}

/// Appends a request's body to an upload. `first` is the piece that was read already; `expected` how long the client said
/// that the body is, which there is room for. A failure of the storage is the only error; a failure of the client is told in [`Received`].
pub(super) async fn receive<E: Exchange>(
    exchange: &mut E,
    store: &Store,
    upload: Upload,
    attendance: &Attendance,
    first: Option<Bytes>,
    expected: Option<u64>,
) -> Result<Received, Error> {
    let hasher = restore(store, &upload).await?;
    let (limit, room) = (upload.limit, upload.limit.saturating_sub(upload.size));
    let mut intake = Intake::begin(store.clone(), Arrived { upload, hasher }, content_length(&exchange.head().headers));
    let mut next = match first {
        Some(piece) => Ok(Some(piece)),
        None => read(exchange, attendance).await,
    };
    let mut left = expected.unwrap_or(room);
    let outcome = loop {
        let piece = match next {
            Ok(Some(piece)) => piece,
            Ok(None) if expected.is_some() && left > 0 => break Err(Error::ChunkLength),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        let surplus = piece.len() as u64 > left;
        let piece = if surplus { piece.slice(..left as usize) } else { piece };
        left -= piece.len() as u64;
        if intake.give(&piece).await.is_err() {
            // The storage failed: the task has the reason.
            break Ok(());
        }
        if surplus {
            break Err(if expected.is_some() { Error::ChunkLength } else { Error::BlobTooLarge { limit } });
        }
        next = read(exchange, attendance).await;
    };
    Ok(Received { arrived: intake.end().await?, outcome })
}

/// The next piece of the body, unless another request came to go on.
async fn read<E: Exchange>(exchange: &mut E, attendance: &Attendance) -> Result<Option<Bytes>, Error> {
    tokio::select! {
        biased;
        () = attendance.displaced() => Err(Error::UploadDisplaced),
        piece = exchange.read() => Ok(piece?),
    }
}

/// The hash of what has arrived: from a state that we or Distribution left, and what came after it read again.
pub(super) async fn restore(store: &Store, upload: &Upload) -> Result<Hasher, Error> {
    let size = upload.size;
    if size == 0 {
        return Ok(Hasher::new(Algorithm::Sha256));
    }
    let usable = async |offset: u64| saved_state(store, &upload.name, upload.id, offset).await;
    if let Some(hasher) = usable(size).await {
        return Ok(hasher);
    }
    let listed = present(store.driver().list(&layout::hash_states(&upload.name, upload.id), None, STATES).await)?
        .unwrap_or_default();
    let latest = listed.iter().filter_map(|state| state.name.parse().ok()).filter(|offset| *offset < size).max();
    let offset: u64 = latest.unwrap_or(0);
    let data = layout::upload_data(&upload.name, upload.id);
    Ok(match usable(offset).await {
        Some(hasher) => store.hash_object(&data, offset, hasher).await?,
        None => store.hash_object(&data, 0, Hasher::new(Algorithm::Sha256)).await?,
    })
}

/// The hash of the first `offset` bytes of an upload, if it was kept.
pub(super) async fn saved_state(store: &Store, name: &RepositoryName, id: UploadId, offset: u64) -> Option<Hasher> {
    let key = layout::hash_state(name, id, offset);
    let state = present(store.driver().get(&key, hash_state::LENGTH).await);
    // A state that cannot be read is no state; the data will tell whether the storage works.
    state.ok().flatten().and_then(|state| hash_state::decode(&state, offset)).map(Hasher::Sha256)
}

/// A running task that hashes and writes, and the piece that is being gathered for it.
struct Intake {
    gathered: BytesMut,
    pieces: mpsc::Sender<Bytes>,
    work: JoinHandle<Result<Arrived, Error>>,
}

/// The task has ended before the body.
struct Stopped;

impl Intake {
    /// `length` is how many bytes the client announced: small blobs need no large buffer.
    fn begin(store: Store, arrived: Arrived, length: Option<u64>) -> Self {
        let (pieces, waiting) = mpsc::channel(1);
        let capacity = length.map_or(PIECE, |length| length.min(PIECE as u64) as usize);
        let work = tokio::spawn(write_down(store, arrived, waiting).in_current_span());
        Self { gathered: BytesMut::with_capacity(capacity), pieces, work }
    }

    async fn give(&mut self, mut bytes: &[u8]) -> Result<(), Stopped> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.gathered.len()));
            self.gathered.extend_from_slice(now);
            bytes = later;
            if self.gathered.len() == PIECE {
                let piece = std::mem::replace(&mut self.gathered, BytesMut::with_capacity(PIECE));
                self.pieces.send(piece.freeze()).await.map_err(|_| Stopped)?;
            }
        }
        Ok(())
    }

    /// Hands over what is left and waits until everything is durable.
    async fn end(self) -> Result<Arrived, Error> {
        if !self.gathered.is_empty() {
            // A task that has stopped says why below.
            let _ = self.pieces.send(self.gathered.freeze()).await;
        }
        drop(self.pieces);
        ended(self.work.await)
    }
}

/// The task: hashes and writes pieces until there are no more, then makes them durable.
async fn write_down(store: Store, arrived: Arrived, mut pieces: mpsc::Receiver<Bytes>) -> Result<Arrived, Error> {
    let Some(first) = pieces.recv().await else { return Ok(arrived) };
    let (data, start) = (layout::upload_data(&arrived.upload.name, arrived.upload.id), arrived.upload.size);
    // The turn is held here until the last of this is done.
    let Arrived { mut upload, hasher } = arrived;
    let appender = store.driver().append(&data, start).await?;
    match append(appender, start, hasher, first, pieces).await {
        Ok((size, hasher)) => {
            upload.size = size;
            let arrived = Arrived { upload, hasher };
            save_state(&store, &arrived).await;
            Ok(arrived)
        }
        Err(error) => {
            cut_back(&store, &upload).await;
            Err(error.into())
        }
    }
}

async fn append(
    mut appender: Box<dyn Appender>,
    mut size: u64,
    mut hasher: Hasher,
    first: Bytes,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Result<(u64, Hasher), storage::Error> {
    let mut next = Some(first);
    while let Some(piece) = next {
        size += piece.len() as u64;
        let (hashed, written) = tokio::join!(absorb(hasher, piece.clone()), appender.write(piece));
        written?;
        hasher = hashed;
        next = pieces.recv().await;
    }
    appender.finish().await?;
    Ok((size, hasher))
}

/// Takes an upload back to what earlier requests made durable. That also gives back the space when this one filled the
/// disk: everybody else needs it more than half a layer does. An upload that cannot be taken back is not to be trusted.
async fn cut_back(store: &Store, upload: &Upload) {
    let data = layout::upload_data(&upload.name, upload.id);
    if let Err(error) = store.driver().append(&data, upload.size).await {
        tracing::warn!(%error, "an upload that could not be written could not be cut back either and is given up");
        discard(store, &upload.name, upload.id).await;
    }
}

/// Leaves the hash for the next request. Without it that one reads the data again, so a failure is only worth a line.
async fn save_state(store: &Store, Arrived { upload, hasher }: &Arrived) {
    let Hasher::Sha256(hash) = hasher else { return };
    let key = layout::hash_state(&upload.name, upload.id, upload.size);
    let state = Bytes::copy_from_slice(&hash_state::encode(hash));
    if let Err(error) = store.driver().put(&key, state, Durability::Light).await {
        tracing::warn!(%error, "the state of an upload could not be kept");
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_disk_that_does_not_keep_up_stops_the_client_after_two_pieces() {
        let (pieces, mut waiting) = mpsc::channel(1);
        let work = tokio::spawn(std::future::pending());
        let mut intake = Intake { gathered: BytesMut::new(), pieces, work };
        let kibibytes = vec![7; 64 << 10];
        let mut taken = 0;
        while intake.give(&kibibytes).now_or_never().is_some() {
            taken += kibibytes.len();
        }
        assert!(taken < 2 * PIECE, "one piece waits, one is gathered");
        assert_eq!(waiting.recv().await.map(|piece| piece.len()), Some(PIECE));
    }

    #[tokio::test]
    async fn a_body_in_bits_is_written_in_pieces() {
        let (pieces, mut waiting) = mpsc::channel(4);
        let work = tokio::spawn(std::future::pending());
        let mut intake = Intake { gathered: BytesMut::new(), pieces, work };
        for _ in 0..(2 * PIECE / 1000 + 1) {
            assert!(intake.give(&[7; 1000]).await.is_ok());
        }
        assert!(intake.give(&vec![7; PIECE]).await.is_ok(), "more at once than there is room for");
        let lengths: Vec<usize> = std::iter::from_fn(|| waiting.try_recv().ok()).map(|piece| piece.len()).collect();
        assert_eq!(lengths, [PIECE; 3]);
    }
}
