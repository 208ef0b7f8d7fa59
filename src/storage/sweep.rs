//! What becomes of files that were never finished?
//!
//! A process that dies between writing `NAME.UUID.tmp` and renaming it (`durable.rs`) leaves that file behind, wherever in
//! the tree it was writing. Listings do not show it, nobody reads it, and only a walk through all folders finds it.
//!
//! **No writer is disturbed.** The name holds a random UUID and is used once, so what is old when we look is what we
//! remove. Whoever has written nothing to such a file for as long as the caller says has died: these files are small
//! and renamed as soon as they are full. And should a writer be held up for longer, then its rename finds nothing and it
//! writes once more; what it replaces was never touched.
//!
//! **Invariant:** one step looks at a bounded number of entries, so that whoever sweeps can stop between two; an open
//! folder for each level is all that is held, whatever the size of the tree.
//!
//! Absent on purpose: following symbolic links, which may lead anywhere, round in circles as well; and removing folders
//! that are empty then, which somebody may be about to write to.

use std::fs::{DirEntry, ReadDir};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::{Swept, durable};

/// How many entries are looked at in one step.
const STEP: usize = 1000;
/// How deep folders may lie in one another: more than the parts that the longest name can have.
const DEPTH: usize = 256;

/// A walk through everything below a folder.
#[derive(Debug)]
pub(super) struct Sweep {
    /// The folders from the first to here.
    open: Vec<ReadDir>,
    /// What was written later stays.
    before: SystemTime,
    swept: Swept,
}

impl Sweep {
    pub(super) fn of(folder: &Path, before: SystemTime) -> io::Result<Self> {
        Ok(Self { open: vec![folder.read_dir()?], before, swept: Swept::default() })
    }

    /// Goes on for a while; what it came to once the end is reached.
    pub(super) fn step(&mut self) -> Option<Swept> {
        for _ in 0..STEP {
            let Some(folder) = self.open.last_mut() else { return Some(self.swept) };
            match folder.next() {
                Some(Ok(entry)) => self.visit(&entry).unwrap_or_else(|cause| self.failed(&entry.path(), &cause)),
                Some(Err(cause)) => {
                    self.failed(Path::new("a folder"), &cause);
                    self.open.pop();
                }
                None => drop(self.open.pop()),
            }
        }
        None
    }

    fn visit(&mut self, entry: &DirEntry) -> io::Result<()> {
        let kind = entry.file_type()?;
        if kind.is_dir() && self.open.len() < DEPTH {
            self.open.push(entry.path().read_dir()?);
        } else if kind.is_file()
            && entry.file_name().to_str().is_some_and(durable::is_temporary)
            && entry.metadata()?.modified()? < self.before
        {
            std::fs::remove_file(entry.path())?;
            self.swept.removed += 1;
        }
        Ok(())
    }

    /// What is gone meanwhile was somebody else's to remove.
    fn failed(&mut self, path: &Path, cause: &io::Error) {
        if cause.kind() == io::ErrorKind::NotFound {
            return;
        }
        if self.swept.failed == 0 {
            tracing::warn!(path = %path.display(), %cause, "leftovers cannot be looked for here; more are only counted");
        }
        self.swept.failed += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::Duration;

    use super::*;

    const LEFTOVER: &str = "link.0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10.tmp";

    fn sweep(folder: &Path, before: SystemTime) -> Swept {
        let mut sweep = Sweep::of(folder, before).unwrap();
        std::iter::repeat_with(|| sweep.step()).find_map(|done| done).unwrap()
    }

    #[test]
    fn old_temporaries_go_wherever_they_are_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (deep, tag) = (dir.path().join("a/b/c"), dir.path().join("tags").join(LEFTOVER));
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(&tag).unwrap();
        let stays = [deep.join("link"), deep.join("v1.tmp"), tag.join("link")];
        let goes = [dir.path().join(LEFTOVER), deep.join(LEFTOVER), tag.join(LEFTOVER)];
        for file in stays.iter().chain(&goes) {
            File::create(file).unwrap();
        }
        let now = SystemTime::now();
        assert_eq!(sweep(dir.path(), now - Duration::from_secs(60)), Swept::default(), "they are young");
        assert_eq!(sweep(dir.path(), now + Duration::from_secs(60)), Swept { removed: 3, failed: 0 });
        assert!(stays.iter().all(|file| file.exists()) && !goes.iter().any(|file| file.exists()));
    }

    #[test]
    fn a_link_leads_nowhere() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        File::create(elsewhere.path().join(LEFTOVER)).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("round")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join(LEFTOVER), dir.path().join(LEFTOVER)).unwrap();
        assert_eq!(sweep(dir.path(), SystemTime::now() + Duration::from_secs(60)), Swept::default());
    }

    #[test]
    fn a_large_tree_is_gone_through_in_steps_and_with_few_open_folders() {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        for folder in 0..30 {
            let folder = dir.path().join(folder.to_string());
            fs::create_dir(&folder).unwrap();
            for file in 0..100 {
                File::create(folder.join(format!("{file}.0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10.tmp"))).unwrap();
            }
        }
        let mut sweep = Sweep::of(dir.path(), SystemTime::now() + Duration::from_secs(60)).unwrap();
        let mut steps = 1;
        let swept = loop {
            assert!(sweep.open.len() <= 2);
            match sweep.step() {
                Some(swept) => break swept,
                None => steps += 1,
            }
        };
        assert_eq!((swept, steps), (Swept { removed: 3000, failed: 0 }, 4));
    }
}
