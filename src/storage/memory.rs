//! What is the least that keeps the driver's contract?
//!
//! Objects in a map, for tests: as fast as a registry's own logic allows, and proof that the rooms above need no files.
//! A power cut takes everything, so nothing here says more about [`Durability`] than that both kinds look alike.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream;
use parking_lot::Mutex;

use super::{Appender, Driver, Durability, Entry, Error, ErrorKind, Key, Mark, PIECE, Pieces, Reader, Stat, Swept};

/// Objects under their keys. Clones are the same storage.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    objects: Arc<Mutex<BTreeMap<String, Object>>>,
    /// When an object was last taken away. When one was added, the object says.
    removed: Arc<Mutex<Option<SystemTime>>>,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    modified: SystemTime,
}

impl Object {
    fn new(bytes: Bytes) -> Self {
        Self { bytes, modified: SystemTime::now() }
    }
}

impl Memory {
    fn find(&self, key: &Key) -> Result<Object, Error> {
        self.objects.lock().get(key.as_str()).cloned().ok_or_else(|| Error::new(ErrorKind::NotFound, key))
    }
}

#[async_trait]
impl Driver for Memory {
    async fn get(&self, key: &Key, limit: usize) -> Result<Bytes, Error> {
        let bytes = self.find(key)?.bytes;
        if bytes.len() > limit { Err(Error::new(ErrorKind::TooLarge, key)) } else { Ok(bytes) }
    }

    async fn open(&self, key: &Key, offset: u64, length: Option<u64>) -> Result<Reader, Error> {
        let bytes = self.find(key)?.bytes;
        let size = bytes.len() as u64;
        let from = offset.min(size);
        let to = length.map_or(size, |length| from.saturating_add(length).min(size));
        let asked = bytes.slice(from as usize..to as usize);
        let starts = (0..asked.len()).step_by(PIECE);
        let pieces: Vec<_> = starts.map(|at| Ok(asked.slice(at..asked.len().min(at + PIECE)))).collect();
        Ok(Reader { size, pieces: Pieces::Many(stream::iter(pieces).boxed()) })
    }

    async fn stat(&self, key: &Key) -> Result<Stat, Error> {
        let Object { bytes, modified } = self.find(key)?;
        Ok(Stat { size: bytes.len() as u64, modified })
    }

    async fn put(&self, key: &Key, bytes: Bytes, _: Durability) -> Result<(), Error> {
        self.objects.lock().insert(key.as_str().to_owned(), Object::new(bytes));
        Ok(())
    }

    async fn settle(&self, key: &Key) -> Result<(), Error> {
        self.find(key).map(|_| ())
    }

    async fn list(&self, key: &Key, after: Option<&str>, limit: usize) -> Result<Vec<Entry>, Error> {
        let below = format!("{key}/");
        let objects = self.objects.lock();
        let mut children: BTreeMap<&str, bool> = BTreeMap::new();
        for name in objects.range(below.clone()..).map_while(|(name, _)| name.strip_prefix(&below)) {
            let (child, is_folder) = name.split_once('/').map_or((name, false), |(child, _)| (child, true));
            *children.entry(child).or_default() |= is_folder;
        }
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        let wanted = children.range::<str, _>((first, Bound::Unbounded)).take(limit);
        Ok(wanted.map(|(name, is_folder)| Entry { name: (*name).to_owned(), is_folder: *is_folder }).collect())
    }

    /// Of all objects, which is more often than of this folder's.
    async fn mark(&self, key: &Key) -> Result<Mark, Error> {
        let below = format!("{key}/");
        let objects = self.objects.lock();
        if !objects.keys().any(|name| name.starts_with(&below)) {
            return Err(Error::new(ErrorKind::NotFound, key));
        }
        let added = objects.values().map(|object| object.modified).max();
        Ok(Mark { folder: (0, 0), changed: added.max(*self.removed.lock()).unwrap_or(SystemTime::UNIX_EPOCH) })
    }

    async fn delete(&self, key: &Key, _: Durability) -> Result<(), Error> {
        let below = format!("{key}/");
        let mut objects = self.objects.lock();
        let before = objects.len();
        objects.retain(|name, _| name != key.as_str() && !name.starts_with(&below));
        if objects.len() == before {
            return Err(Error::new(ErrorKind::NotFound, key));
        }
        *self.removed.lock() = Some(SystemTime::now());
        Ok(())
    }

    /// Nothing here is ever half done.
    async fn sweep(&self, _: &Key, _: SystemTime) -> Result<Swept, Error> {
        Ok(Swept::default())
    }

    async fn rename(&self, from: &Key, to: &Key, size: u64) -> Result<(), Error> {
        let mut objects = self.objects.lock();
        if objects.get(from.as_str()).is_some_and(|object| object.bytes.len() as u64 != size) {
            return Err(Error::new(ErrorKind::Busy, from));
        }
        let moved = objects.remove(from.as_str()).ok_or_else(|| Error::new(ErrorKind::NotFound, from))?;
        objects.insert(to.as_str().to_owned(), moved);
        *self.removed.lock() = Some(SystemTime::now());
        Ok(())
    }

    async fn append(&self, key: &Key, offset: u64) -> Result<Box<dyn Appender>, Error> {
        let mut objects = self.objects.lock();
        let there = match objects.get(key.as_str()) {
            Some(object) => object.bytes.clone(),
            None if offset == 0 => Bytes::new(),
            None => return Err(Error::new(ErrorKind::NotFound, key)),
        };
        if there.len() as u64 != offset {
            return Err(Error::new(ErrorKind::Busy, key));
        }
        objects.insert(key.as_str().to_owned(), Object::new(there));
        Ok(Box::new(Growing { memory: self.clone(), key: key.clone(), begun: offset, size: offset }))
    }
}

/// An object that grows: each piece copies it, which tests can afford.
struct Growing {
    memory: Memory,
    key: Key,
    begun: u64,
    size: u64,
}

#[async_trait]
impl Appender for Growing {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let mut objects = self.memory.objects.lock();
        // As with files: who removed the object meanwhile does not hear of it again.
        if let Some(object) = objects.get_mut(self.key.as_str()) {
            let mut grown = BytesMut::from(&object.bytes[..]);
            grown.extend_from_slice(&bytes);
            *object = Object::new(grown.freeze());
        }
        self.size += bytes.len() as u64;
        Ok(())
    }

    async fn finish(&mut self) -> Result<u64, Error> {
        Ok(self.size)
    }

    async fn cut_back(&mut self) -> Result<(), Error> {
        if let Some(object) = self.memory.objects.lock().get_mut(self.key.as_str()) {
            *object = Object::new(object.bytes.slice(..self.begun as usize));
        }
        Ok(())
    }
}

mod tests {
    use super::super::conformance;
    use super::*;

    #[tokio::test]
    async fn it_keeps_the_drivers_contract() {
        conformance::suite(&Memory::default()).await;
    }
}
