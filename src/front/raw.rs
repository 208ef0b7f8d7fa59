//! What do the readers of raw bytes say of these? For who tries them from outside with bytes made at random (`fuzz/`).
//!
//! Nothing of the product comes by here. [`strict`] and [`proxy_protocol`] say what they promise.

use std::net::SocketAddr;

use futures_util::FutureExt as _;

use super::proxy_protocol::{self, Header};
use super::strict::{self, Chunks};

/// It is not by the letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

/// How many fields a header may have here.
pub const FIELDS: usize = 100;

/// The header of one request, of which `cut` bytes come first: its length, and whether a body comes in chunks. `None`:
/// it is not complete.
///
/// # Errors
/// It is refused.
pub fn head(bytes: &[u8], cut: usize) -> Result<Option<(usize, bool)>, Refused> {
    let mut head = strict::Head::new(FIELDS);
    let first = head.read(&bytes[..cut.min(bytes.len())]).map_err(|_| Refused)?;
    let complete = match first {
        Some(complete) => Some(complete),
        None => head.read(bytes).map_err(|_| Refused)?,
    };
    Ok(complete.map(|complete| (complete.length, complete.chunked)))
}

/// A body in chunks, of which `cut` bytes come first: how many bytes belong to it, and whether that is all of it.
///
/// # Errors
/// It is refused.
pub fn chunks(bytes: &[u8], cut: usize) -> Result<(usize, bool), Refused> {
    let mut chunks = Chunks::default();
    let (first, then) = bytes.split_at(cut.min(bytes.len()));
    let mut read = chunks.read(first).map_err(|_| Refused)?;
    if read == first.len() {
        read += chunks.read(then).map_err(|_| Refused)?;
    }
    // What is complete takes nothing more, whatever it is.
    Ok((read, chunks.read(b"\0") == Ok(0)))
}

/// The header of the PROXY protocol that these bytes begin with: its length, and the client that it names, if it names one.
///
/// # Errors
/// It is refused, or not complete.
pub fn proxy_header(bytes: &[u8]) -> Result<(usize, Option<SocketAddr>), Refused> {
    let mut rest = bytes;
    let read = proxy_protocol::read(&mut rest).now_or_never(); // memory never lets anybody wait
    let client = match read {
        Some(Ok(Header::For(client))) => Some(client),
        Some(Ok(Header::Unnamed)) => None,
        Some(Err(_)) | None => return Err(Refused),
    };
    Ok((bytes.len() - rest.len(), client))
}
