//! How do keys become files?
//!
//! A key is a path below the root, an object is a file, and its folders are directories. Modes are those of Distribution
//! (files 0644, directories 0755, less the umask), so that either program can read what the other wrote.
//!
//! **Invariant:** a thread that serves requests never waits for a disk. What is hot is read [where we are](here); whatever
//! may wait is one trip to the blocking pool for each driver call: a whole small file is opened, measured and read in
//! one go, and so is the first piece of a large one. Either way gives the same, and what is read here counts against
//! the turn of its task, so that no request reads on and on while others wait.
//!
//! **Invariant:** a durable file lies in durable directories. A directory that exists is not enough: the process that
//! made it may have died, or another thread may be about to sync it. `Folders` therefore trusts a directory only after
//! this process has synced its parent, once.
//!
//! Absent on purpose: `O_DIRECT` and memory maps (the page cache is the cache), and any lock between processes.
//! Symbolic links are followed, the root's own and those that an operator laid inside.

use std::collections::{BTreeSet, BinaryHeap};
use std::ffi::CStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

mod here;
mod read;
mod seen;
mod settled;

use here::{Branch, Here};
use read::Begun;
use seen::Moment;
use settled::Settled;

use super::appender::FileAppender;
use super::sweep::Sweep;
use super::{Appender, Driver, Durability, Entry, Error, ErrorKind, Key, Mark, Reader, Stat, Swept, durable};

/// How many directories are remembered as durable before the memory starts anew.
const FOLDERS_REMEMBERED: usize = 16_384;

/// Objects as files below a directory.
#[derive(Debug, Clone)]
pub struct Filesystem {
    tree: Arc<Tree>,
}

#[derive(Debug)]
struct Tree {
    root: PathBuf,
    folders: Folders,
    settled: Settled,
    here: Here,
}

impl Filesystem {
    /// Objects below `root`, which is made with the first object if it is missing.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let (folders, here) = (Folders::new(root.clone()), Here::below(&root));
        Self { tree: Arc::new(Tree { root, folders, settled: Settled::default(), here }) }
    }

    /// One that does everything on the blocking pool, as on an old kernel.
    #[cfg(test)]
    fn on_the_pool(root: impl Into<PathBuf>) -> Self {
        let driver = Self::new(root);
        driver.tree.here.refuse();
        driver
    }

    /// Does `here` where we are, or `work` on the blocking pool if that had to wait.
    async fn reading<T: Send + 'static>(
        &self,
        key: &Key,
        here: impl FnOnce(&Here, &CStr) -> rustix::io::Result<T> + Send,
        work: impl FnOnce(&Tree, PathBuf) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        tokio::task::coop::consume_budget().await;
        match self.tree.here.attempt(key, here) {
            Some(outcome) => outcome.map_err(|cause| Error::io(key, cause)),
            None => self.blocking(key, work).await,
        }
    }

    /// Runs `work` on the blocking pool and names the object in its error.
    async fn blocking<T: Send + 'static>(
        &self,
        key: &Key,
        work: impl FnOnce(&Tree, PathBuf) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (tree, path) = (self.tree.clone(), self.tree.root.join(key.as_str()));
        finished(key, tokio::task::spawn_blocking(move || work(&tree, path)).await)
    }
}

/// The result of blocking work. A panic there goes on here; the pool's end (at shutdown) is a failure.
pub(super) fn finished<T>(key: &Key, outcome: Result<io::Result<T>, tokio::task::JoinError>) -> Result<T, Error> {
    match outcome {
        Ok(result) => result.map_err(|cause| Error::io(key, cause)),
        Err(gone) => match gone.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::new(ErrorKind::Other, key)),
        },
    }
}

#[async_trait]
impl Driver for Filesystem {
    async fn get(&self, key: &Key, limit: usize) -> Result<Bytes, Error> {
        let here = |here: &Here, path: &CStr| here.read_whole(path, limit, Moment::now());
        let branch = Branch::of(key);
        let read = self.reading(key, here, move |tree, path| read::read_whole(tree, branch, &path, limit)).await?;
        read.ok_or_else(|| Error::new(ErrorKind::TooLarge, key))
    }

    async fn open(&self, key: &Key, offset: u64, length: Option<u64>) -> Result<Reader, Error> {
        tokio::task::coop::consume_budget().await;
        let branch = Branch::of(key);
        let begun = match self.tree.here.attempt(key, Here::open) {
            Some(Ok(file)) => {
                Begun::here(&self.tree, branch, file, offset, length).await.map_err(|cause| Error::io(key, cause))?
            }
            Some(Err(cause)) => return Err(Error::io(key, cause)),
            None => {
                let tree = self.tree.clone();
                self.blocking(key, move |_, path| Begun::on_the_pool(&tree, branch, &path, offset, length)).await?
            }
        };
        Ok(begun.into_reader())
    }

    async fn stat(&self, key: &Key) -> Result<Stat, Error> {
        let found = self.reading(key, Here::look, |_, path| path.metadata()).await?;
        read::stat(found).map_err(|cause| Error::io(key, cause))
    }

    async fn put(&self, key: &Key, bytes: Bytes, durability: Durability) -> Result<(), Error> {
        self.blocking(key, move |tree, path| match durability {
            Durability::Durable => tree.folders.with_parent(&path, || durable::write(&path, &bytes, durable::PUBLIC)),
            Durability::Light => with_light_parent(&path, || durable::write_lightly(&path, &bytes, durable::PUBLIC)),
        })
        .await?;
        match durability {
            Durability::Durable => self.tree.settled.remember(key),
            Durability::Light => self.tree.settled.forget(key),
        }
        Ok(())
    }

    async fn settle(&self, key: &Key) -> Result<(), Error> {
        if self.tree.settled.knows(key) {
            return Ok(());
        }
        self.blocking(key, |tree, path| {
            read::stat(path.metadata()?)?; // the way to what is missing is not to be made
            tree.folders.with_parent(&path, || durable::settle(&path))
        })
        .await?;
        self.tree.settled.remember(key);
        Ok(())
    }

    async fn list(&self, key: &Key, after: Option<&str>, limit: usize) -> Result<Vec<Entry>, Error> {
        let after = after.map(str::to_owned);
        self.blocking(key, move |_, path| list(&path, after.as_deref(), limit)).await
    }

    async fn mark(&self, key: &Key) -> Result<Mark, Error> {
        let found = self.reading(key, Here::look, |_, path| path.metadata()).await?;
        read::mark(found).map_err(|cause| Error::io(key, cause))
    }

    async fn delete(&self, key: &Key, durability: Durability) -> Result<(), Error> {
        self.tree.settled.forget(key);
        self.blocking(key, move |tree, path| {
            if path.symlink_metadata()?.is_dir() {
                tree.folders.forget_below(&path);
                std::fs::remove_dir_all(&path)?;
            } else {
                std::fs::remove_file(&path)?;
            }
            match durability {
                Durability::Durable => durable::sync_parent(&path),
                Durability::Light => Ok(()),
            }
        })
        .await
    }

    /// Each step is a trip to the blocking pool of its own, so that the end of the process need not wait for the last.
    async fn sweep(&self, below: &Key, before: SystemTime) -> Result<Swept, Error> {
        let mut sweep = match self.blocking(below, move |_, path| Sweep::of(&path, before)).await {
            Err(missing) if missing.is_not_found() => return Ok(Swept::default()),
            begun => begun?,
        };
        loop {
            let (walked, swept) = self
                .blocking(below, move |_, _| {
                    let swept = sweep.step();
                    Ok((sweep, swept))
                })
                .await?;
            match swept {
                Some(swept) => return Ok(swept),
                None => sweep = walked,
            }
        }
    }

    async fn rename(&self, from: &Key, to: &Key, size: u64) -> Result<(), Error> {
        let source = self.tree.root.join(from.as_str());
        self.blocking(to, move |tree, target| {
            let file = OpenOptions::new().read(true).write(true).open(&source)?; // locks of NFS want both
            claim(&file)?;
            if file.metadata()?.len() != size {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            let renamed = tree.folders.with_parent(&target, || durable::rename(&source, &target));
            release(&file);
            renamed
        })
        .await?;
        self.tree.settled.forget(from);
        self.tree.settled.remember(to);
        Ok(())
    }

    async fn append(&self, key: &Key, offset: u64) -> Result<Box<dyn Appender>, Error> {
        self.tree.settled.forget(key);
        let file = self
            .blocking(key, move |_, path| {
                let mut options = OpenOptions::new();
                options.write(true).mode(durable::PUBLIC);
                let file = match offset {
                    0 => with_light_parent(&path, || options.create(true).open(&path))?,
                    _ => options.open(&path)?,
                };
                claim(&file)?;
                let (found, named) = (file.metadata()?, path.metadata()?);
                // Before it was ours somebody may have given it another name: that of a blob.
                if (found.dev(), found.ino()) != (named.dev(), named.ino()) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                if found.len() != offset {
                    return Err(io::ErrorKind::ResourceBusy.into());
                }
                Ok(file)
            })
            .await?;
        Ok(Box::new(FileAppender::new(key.clone(), file, offset)))
    }
}

/// Has everybody else who would append to a file, or give it another name, find it taken, in this process and in others, as
/// long as it is open or until it is [released](release). Where the file system has no locks nobody is kept away.
fn claim(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// Ends a claim. Closing would do it as well, but not while a process that is just being started has a copy of the file.
pub(super) fn release(file: &File) {
    let _ = file.unlock(); // without locks there is none
}

/// The `limit` smallest names above `after`. Memory is bounded by `limit`, not by the directory.
fn list(path: &Path, after: Option<&str>, limit: usize) -> io::Result<Vec<Entry>> {
    let mut smallest: BinaryHeap<Entry> = BinaryHeap::new();
    for entry in path.read_dir()? {
        let entry = entry?;
        // A name that is not UTF-8 cannot be a key of ours.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let too_large = smallest.len() >= limit && smallest.peek().is_none_or(|largest| name >= largest.name);
        if too_large || after.is_some_and(|after| name.as_str() <= after) {
            continue;
        }
        let is_folder = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => entry.path().is_dir(),
            Ok(kind) => kind.is_dir(),
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if !is_folder && durable::is_temporary(&name) {
            continue;
        }
        smallest.push(Entry { name, is_folder });
        if smallest.len() > limit {
            smallest.pop();
        }
    }
    Ok(smallest.into_sorted_vec())
}

/// Runs `work`, and once more after making the parent directory if that was what it missed.
fn with_light_parent<T>(path: &Path, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match (work(), path.parent()) {
        (Err(missing), Some(parent)) if missing.kind() == io::ErrorKind::NotFound => {
            durable::make_dirs_lightly(parent)?;
            work()
        }
        (outcome, _) => outcome,
    }
}

/// The directories that this process knows to be durable, up to the root.
#[derive(Debug)]
struct Folders {
    root: PathBuf,
    /// Ordered, so that everything below a directory is one range.
    known: Mutex<BTreeSet<PathBuf>>,
}

impl Folders {
    fn new(root: PathBuf) -> Self {
        Self { root, known: Mutex::default() }
    }

    /// Runs `work`, which makes an entry in the parent of `path` durable, with that parent there, and makes the way to it
    /// durable. When somebody removed it under us, tries once more.
    ///
    /// The way is synced after the work and not before: nothing counts before we return, and by then most of these
    /// syncs find their directory clean, because the journal wrote it with the work's own.
    fn with_parent(&self, path: &Path, work: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let Some(parent) = path.parent() else { return work() };
        let attempt = || {
            let unknown = self.make(parent)?;
            work()?;
            self.make_known(unknown)
        };
        match attempt() {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                self.forget_around(parent);
                attempt()
            }
            outcome => outcome,
        }
    }

    /// Makes a directory and what is missing above it, and returns those that are not known to be durable, deepest first.
    fn make(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let unknown: Vec<PathBuf> = {
            let known = self.known.lock();
            let below_root = folder.ancestors().take_while(|above| above.starts_with(&self.root));
            below_root.take_while(|above| !known.contains(*above)).map(Path::to_owned).collect()
        };
        for folder in unknown.iter().rev() {
            if *folder == self.root {
                durable::make_dirs(folder)?;
            } else {
                durable::make_dir_lightly(folder)?;
            }
        }
        Ok(unknown)
    }

    /// Makes the entries of directories durable and remembers that they are.
    fn make_known(&self, folders: Vec<PathBuf>) -> io::Result<()> {
        for folder in &folders {
            match durable::sync_parent(folder) {
                // The root's own name stands in a folder that may be somebody else's, to go through and not to look into, as
                // GitLab's is. Who made the root there made its name durable.
                Err(denied) if *folder == self.root && denied.kind() == io::ErrorKind::PermissionDenied => {}
                synced => synced?,
            }
        }
        let mut known = self.known.lock();
        if known.len() + folders.len() > FOLDERS_REMEMBERED {
            known.clear();
        }
        known.extend(folders);
        Ok(())
    }

    /// Forgets a directory, everything below it and everything above it.
    fn forget_around(&self, folder: &Path) {
        self.forget_below(folder);
        let mut known = self.known.lock();
        for above in folder.ancestors() {
            known.remove(above);
        }
    }

    /// Forgets a directory that goes away and everything below it.
    fn forget_below(&self, folder: &Path) {
        let mut known = self.known.lock();
        let gone: Vec<PathBuf> =
            known.range(folder.to_owned()..).take_while(|path| path.starts_with(folder)).cloned().collect();
        for path in gone {
            known.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use super::super::conformance;
    use super::*;

    fn driver() -> (tempfile::TempDir, Filesystem) {
        let dir = tempfile::tempdir().unwrap();
        let driver = Filesystem::new(dir.path().join("made/on/demand"));
        (dir, driver)
    }

    #[tokio::test]
    async fn it_keeps_the_drivers_contract_where_we_are_and_on_the_pool() {
        let (dir, driver) = driver();
        conformance::suite(&driver).await;
        conformance::suite(&Filesystem::on_the_pool(dir.path().join("pool"))).await;
    }

    /// Another driver is what another process would have: locks belong to files that are open.
    #[tokio::test]
    async fn of_two_servers_one_appends_and_the_other_leaves_its_object_alone() {
        let (dir, ours) = driver();
        let theirs = Filesystem::new(dir.path().join("made/on/demand"));
        let (data, blob) = (Key::new("upload/data"), Key::new("blob/data"));
        let mut appender = ours.append(&data, 0).await.unwrap();
        appender.write("ours".into()).await.unwrap();
        for offset in [0, 4] {
            assert_eq!(theirs.append(&data, offset).await.err().unwrap().kind, ErrorKind::Busy);
        }
        assert_eq!(theirs.rename(&data, &blob, 4).await.unwrap_err().kind, ErrorKind::Busy);
        appender.finish().await.unwrap();
        drop(appender);
        assert_eq!(theirs.append(&data, 0).await.err().unwrap().kind, ErrorKind::Busy, "what it knew is old");
        theirs.append(&data, 4).await.unwrap().finish().await.unwrap();
        theirs.rename(&data, &blob, 4).await.unwrap();
        assert!(ours.append(&data, 4).await.err().unwrap().is_not_found(), "it is a blob");
        assert_eq!(ours.get(&blob, 10).await.unwrap(), "ours");
    }

    #[tokio::test]
    async fn files_and_folders_have_the_modes_that_distribution_gives_them() {
        let (dir, driver) = driver();
        driver.put(&Key::new("a/durable"), "x".into(), Durability::Durable).await.unwrap();
        driver.put(&Key::new("a/light"), "x".into(), Durability::Light).await.unwrap();
        driver.append(&Key::new("b/grown"), 0).await.unwrap();
        let root = dir.path().join("made/on/demand");
        let mode = |name: &str| root.join(name).metadata().unwrap().permissions().mode() & 0o777;
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
        let umask = !u32::from_str_radix(umask.trim(), 8).unwrap();
        for file in ["a/durable", "a/light", "b/grown"] {
            assert_eq!(mode(file), 0o644 & umask, "{file}");
        }
        assert_eq!((mode("a"), mode("b")), (0o755 & umask, 0o755 & umask));
    }

    /// Another driver is what another process would have.
    #[tokio::test]
    async fn what_another_process_wrote_is_settled_with_the_way_to_it_and_what_this_one_wrote_is_known() {
        let (dir, killed) = driver();
        let key = Key::new("a/b/link");
        killed.put(&key, "x".into(), Durability::Light).await.unwrap();
        assert!(!killed.tree.settled.knows(&key), "nobody has synced it");
        let after = Filesystem::new(dir.path().join("made/on/demand"));
        after.settle(&key).await.unwrap();
        let known: Vec<PathBuf> = after.tree.folders.known.lock().iter().cloned().collect();
        assert_eq!(known, ["", "a", "a/b"].map(|folder| after.tree.root.join(folder)));
        assert!(after.tree.settled.knows(&key));
        after.delete(&key, Durability::Durable).await.unwrap();
        assert!(after.settle(&key).await.unwrap_err().is_not_found(), "it is looked at again");

        killed.put(&key, "x".into(), Durability::Durable).await.unwrap();
        killed.rename(&key, &Key::new("a/moved"), 1).await.unwrap();
        assert_eq!([key, Key::new("a/moved")].map(|key| killed.tree.settled.knows(&key)), [false, true]);
    }

    #[tokio::test]
    async fn to_settle_what_is_missing_makes_no_folder() {
        let (dir, driver) = driver();
        assert!(driver.settle(&Key::new("a/b/link")).await.unwrap_err().is_not_found());
        assert!(!dir.path().join("made").exists());
    }

    #[tokio::test]
    async fn leftovers_of_a_crash_are_never_listed() {
        let (dir, driver) = driver();
        driver.put(&Key::new("a/kept"), "x".into(), Durability::Durable).await.unwrap();
        let folder = dir.path().join("made/on/demand/a");
        std::fs::File::create(folder.join("kept.0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10.tmp")).unwrap();
        std::fs::create_dir(folder.join("tag.0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10.tmp")).unwrap();
        let names: Vec<String> =
            driver.list(&Key::new("a"), None, 10).await.unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["kept", "tag.0b3bbd51-7f1e-4f3c-9f8a-3f2f0f6f8a10.tmp"], "a folder is somebody's tag");
        let later = SystemTime::now() + Duration::from_secs(60);
        assert_eq!(driver.sweep(&Key::new("b"), later).await.unwrap(), Swept::default(), "they are elsewhere");
        assert_eq!(driver.sweep(&Key::new("a"), later).await.unwrap(), Swept { removed: 1, failed: 0 });
        assert_eq!(folder.read_dir().unwrap().count(), 2);
    }

    /// As no registry sweeps, which waits until a writer must be dead.
    #[tokio::test]
    async fn a_sweep_that_comes_too_early_costs_a_write_and_no_content() {
        let (_dir, driver) = driver();
        let (key, sweeper, later) = (Key::new("a/link"), driver.clone(), SystemTime::now() + Duration::from_secs(3600));
        driver.put(&key, "old".into(), Durability::Durable).await.unwrap();
        let sweeping = tokio::spawn(async move {
            let mut removed = 0;
            while removed < 10 {
                removed += sweeper.sweep(&Key::new("a"), later).await.unwrap().removed;
            }
        });
        while !sweeping.is_finished() {
            for (content, durability) in [("new", Durability::Durable), ("old", Durability::Light)] {
                if let Err(error) = driver.put(&key, content.into(), durability).await {
                    assert!(error.is_not_found(), "swept away twice: {error}");
                }
                let seen = driver.get(&key, 10).await.unwrap();
                assert!(seen == "old" || seen == "new");
            }
        }
        sweeping.await.unwrap();
    }

    #[tokio::test]
    async fn a_folder_that_another_program_removed_is_made_again() {
        let (dir, driver) = driver();
        let key = Key::new("a/b/c");
        driver.put(&key, "x".into(), Durability::Durable).await.unwrap();
        std::fs::remove_dir_all(dir.path().join("made")).unwrap();
        driver.put(&key, "y".into(), Durability::Durable).await.unwrap();
        assert_eq!(driver.get(&key, 10).await.unwrap(), "y");
    }

    #[test]
    fn removed_folders_are_not_trusted_any_more_and_their_neighbours_are() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::new(dir.path().to_owned());
        for path in ["a/b", "a/b/c", "a/b-c"] {
            folders.with_parent(&dir.path().join(path).join("object"), || Ok(())).unwrap();
        }
        folders.forget_below(&dir.path().join("a/b"));
        let known: Vec<PathBuf> = folders.known.lock().iter().cloned().collect();
        assert_eq!(known, [dir.path().to_owned(), dir.path().join("a"), dir.path().join("a/b-c")]);
    }
}
