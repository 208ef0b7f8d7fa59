//! How does a request's body become the data of an upload?
//!
//! ```text
//! client ──read──▶ hash, gather a piece ──▶ one piece waiting ──▶ write, on the blocking pool
//! ```
//!
//! What was read is hashed at once, where it was decrypted: it is still in the processor's own cache then, and carrying it
//! to another thread costs more than hashing it. Writing may wait for the disk, so it is done elsewhere.
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
//! **Invariant:** each piece travels with the hash of everything up to its end, so the task that writes it knows what it
//! has, wherever the request that read it was dropped.
//!
//! **Order:** the data is durable before the hash state that vouches for it is written. Resuming trusts a state without
//! reading the data again, so a state must never know more than the disk does.

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::store::{Store, present};
use super::turns::{Attendance, Turn};
use super::uploads::discard;
use super::{Error, ended, go_on, hash_state, layout};
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

/// A piece of an upload, and the hash of the upload up to its end.
struct Piece {
    bytes: Bytes,
    hasher: Hasher,
}

/// A running task that writes, and the piece that is being gathered for it.
struct Intake {
    gathered: BytesMut,
    /// How long the gathered piece is to become: up to the next multiple of [`PIECE`] in the object.
    wanted: usize,
    hasher: Hasher,
    pieces: mpsc::Sender<Piece>,
    work: JoinHandle<Result<Arrived, Error>>,
}

/// The task has ended before the body.
struct Stopped;

impl Intake {
    /// `length` is how many bytes the client announced: small blobs need no large buffer.
    fn begin(store: Store, arrived: Arrived, length: Option<u64>) -> Self {
        let (pieces, waiting) = mpsc::channel(1);
        let wanted = PIECE - (arrived.upload.size % PIECE as u64) as usize;
        let capacity = length.map_or(wanted, |length| length.min(wanted as u64) as usize);
        let hasher = arrived.hasher.clone();
        let work = go_on(write_down(store, arrived, waiting));
        Self { gathered: BytesMut::with_capacity(capacity), wanted, hasher, pieces, work }
    }

    async fn give(&mut self, mut bytes: &[u8]) -> Result<(), Stopped> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.wanted - self.gathered.len()));
            self.hasher.update(now);
            self.gathered.extend_from_slice(now);
            bytes = later;
            if self.gathered.len() == self.wanted {
                self.wanted = PIECE;
                let full = std::mem::take(&mut self.gathered);
                self.hand_over(full).await?;
                // Not before: while that waits, there are three pieces already.
                self.gathered = BytesMut::with_capacity(PIECE);
            }
        }
        Ok(())
    }

    async fn hand_over(&self, piece: BytesMut) -> Result<(), Stopped> {
        let piece = Piece { bytes: piece.freeze(), hasher: self.hasher.clone() };
        self.pieces.send(piece).await.map_err(|_| Stopped)
    }

    /// Hands over what is left and waits until everything is durable.
    async fn end(mut self) -> Result<Arrived, Error> {
        if !self.gathered.is_empty() {
            let rest = std::mem::take(&mut self.gathered);
            // A task that has stopped says why below.
            let _ = self.hand_over(rest).await;
        }
        drop(self.pieces);
        ended(self.work.await)
    }
}

/// The task: writes pieces until there are no more, then makes them durable.
async fn write_down(store: Store, arrived: Arrived, mut pieces: mpsc::Receiver<Piece>) -> Result<Arrived, Error> {
    let Some(first) = pieces.recv().await else { return Ok(arrived) };
    // The turn is held here until the last of this is done.
    let mut upload = arrived.upload;
    let data = layout::upload_data(&upload.name, upload.id);
    let opened = present(store.driver().append(&data, upload.size).await)?;
    let mut appender = opened.ok_or(Error::UploadUnknown)?; // another server has made a blob of it
    match append(&mut *appender, first, pieces).await {
        Ok((size, hasher)) => {
            upload.size = size;
            let arrived = Arrived { upload, hasher };
            save_state(&store, &arrived).await;
            Ok(arrived)
        }
        Err(error) => {
            cut_back(&mut *appender, &store, &upload).await;
            Err(error.into())
        }
    }
}

/// Returns the object's size and hash.
async fn append(
    appender: &mut dyn Appender,
    first: Piece,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<(u64, Hasher), storage::Error> {
    let Piece { bytes, mut hasher } = first;
    appender.write(bytes).await?;
    while let Some(piece) = pieces.recv().await {
        appender.write(piece.bytes).await?;
        hasher = piece.hasher;
    }
    Ok((appender.finish().await?, hasher))
}

/// Takes an upload back to what earlier requests made durable. That also gives back the space when this one filled the
/// disk: everybody else needs it more than half a layer does. An upload that cannot be taken back is not to be trusted.
async fn cut_back(appender: &mut dyn Appender, store: &Store, upload: &Upload) {
    if let Err(error) = appender.cut_back().await {
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
    use crate::oci::Digest;

    fn intake(waiting: usize, arrived: u64) -> (Intake, mpsc::Receiver<Piece>) {
        let (pieces, receiver) = mpsc::channel(waiting);
        let work = tokio::spawn(std::future::pending());
        let wanted = PIECE - (arrived % PIECE as u64) as usize;
        let hasher = Hasher::new(Algorithm::Sha256);
        (Intake { gathered: BytesMut::new(), wanted, hasher, pieces, work }, receiver)
    }

    #[tokio::test]
    async fn a_disk_that_does_not_keep_up_stops_the_client_after_two_pieces() {
        let (mut intake, mut waiting) = intake(1, 0);
        let kibibytes = vec![7; 64 << 10];
        let mut taken = 0;
        while intake.give(&kibibytes).now_or_never().is_some() {
            taken += kibibytes.len();
        }
        assert!(taken < 2 * PIECE, "one piece waits, one is gathered");
        assert_eq!(intake.gathered.capacity(), 0, "and there is no third");
        assert_eq!(waiting.recv().await.map(|piece| piece.bytes.len()), Some(PIECE));
    }

    #[tokio::test]
    async fn a_body_in_bits_is_written_in_pieces() {
        let (mut intake, mut waiting) = intake(4, 0);
        for _ in 0..(2 * PIECE / 1000 + 1) {
            assert!(intake.give(&[7; 1000]).await.is_ok());
        }
        assert!(intake.give(&vec![7; PIECE]).await.is_ok(), "more at once than there is room for");
        let lengths: Vec<usize> =
            std::iter::from_fn(|| waiting.try_recv().ok()).map(|piece| piece.bytes.len()).collect();
        assert_eq!(lengths, [PIECE; 3]);
    }

    #[tokio::test]
    async fn pieces_end_where_the_disk_likes_it_also_when_the_upload_was_interrupted_elsewhere() {
        let (mut intake, mut waiting) = intake(4, 5 * PIECE as u64 + 1);
        assert!(intake.give(&vec![7; 2 * PIECE]).await.is_ok());
        let lengths: Vec<usize> =
            std::iter::from_fn(|| waiting.try_recv().ok()).map(|piece| piece.bytes.len()).collect();
        assert_eq!(lengths, [PIECE - 1, PIECE]);
    }

    #[tokio::test]
    async fn every_piece_knows_the_hash_of_what_came_up_to_its_end() {
        let (mut intake, mut waiting) = intake(4, 0);
        let content: Vec<u8> = (0..2 * PIECE + 5).map(|index| (index % 251) as u8).collect();
        for bits in content.chunks(70_001) {
            assert!(intake.give(bits).await.is_ok());
        }
        for end in [PIECE, 2 * PIECE] {
            let piece = waiting.recv().await.unwrap();
            assert_eq!(piece.hasher.finish(), Digest::of(Algorithm::Sha256, &content[..end]));
        }
    }
}
