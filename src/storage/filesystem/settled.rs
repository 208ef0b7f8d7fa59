//! Which objects does this process know to be durable?
//!
//! Those that it made durable itself. Any other that lies there may be what a process left that was killed between the
//! rename and the sync: everybody sees it, and a power cut can still take it back. It is synced when somebody is to be told
//! that it is kept, and then never again.
//!
//! **Invariant:** what is not known is synced once more, so forgetting costs time and nothing else: the memory starts anew
//! when it is full.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::super::Key;

/// How many objects are remembered, at about 200 bytes each.
const REMEMBERED: usize = 16_384;

/// Keys of objects, ordered, so that everything below a key is one range.
#[derive(Debug, Default)]
pub(super) struct Settled(Mutex<BTreeSet<Box<str>>>);

impl Settled {
    pub(super) fn knows(&self, key: &Key) -> bool {
        self.0.lock().contains(key.as_str())
    }

    pub(super) fn remember(&self, key: &Key) {
        let mut known = self.0.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key.as_str().into());
    }

    /// Forgets an object that goes away or grows, and everything below its key.
    pub(super) fn forget(&self, key: &Key) {
        let mut known = self.0.lock();
        known.remove(key.as_str());
        let below = format!("{key}/");
        let gone: Vec<Box<str>> =
            known.range(Box::from(&*below)..).take_while(|name| name.starts_with(&below)).cloned().collect();
        for name in gone {
            known.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_away_is_forgotten_with_all_below_it_and_its_neighbours_are_not() {
        let settled = Settled::default();
        let keys = ["a", "a/b", "a/b/c", "a/b-c", "b"].map(Key::new);
        keys.iter().for_each(|key| settled.remember(key));
        settled.forget(&keys[1]);
        assert_eq!(keys.map(|key| settled.knows(&key)), [true, false, false, true, true]);
    }

    #[test]
    fn the_memory_is_bounded() {
        let settled = Settled::default();
        for number in 0..REMEMBERED + 10 {
            settled.remember(&Key::new(number.to_string()));
        }
        assert_eq!(settled.0.lock().len(), 10);
    }
}
