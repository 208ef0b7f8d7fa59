//! A disk that forgets: what a power cut may leave of a file system.
//!
//! The model promises what POSIX does and nothing more, except that a name changes from one instant to the next:
//!
//! - fsync of a file makes its bytes and its size durable, but not its name;
//! - fsync of a directory makes the names in it durable, but not what they name;
//! - everything else may be there after the cut or not, each change for itself, and a write may be there in part;
//! - a rename is two changes: the new name is durable with its directory, and without a journal the old name may stay.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::random::Random;
use crate::support::trace::Step;

type Inode = usize;

/// What happens to the changes that were not synced.
#[derive(Debug)]
pub(crate) enum Unsynced<'a> {
    Kept,
    Lost,
    /// Each is kept, lost or (a write) torn.
    Random(&'a mut Random),
}

/// Which syncs the disk honours. When it does not honour all, the test must see damage, or it proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syncs {
    Honest,
    OfFiles,
    OfDirectories,
    Ignored,
}

/// The disk after some steps.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    root: PathBuf,
    syncs: Syncs,
    inodes: Vec<Node>,
    open: HashMap<u32, Open>,
    /// Syncs that have begun, by thread: the inode, and how many changes there had been.
    syncing: HashMap<u32, (Inode, u64)>,
    changes: u64,
    synced: u64,
}

#[derive(Debug, Clone)]
struct Open {
    inode: Inode,
    position: u64,
    append: bool,
}

/// A file has data, a directory has names.
#[derive(Debug, Clone, Default)]
struct Node {
    is_directory: bool,
    durable: Content,
    pending: Vec<(u64, Change)>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Content {
    data: Vec<u8>,
    names: BTreeMap<String, Inode>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { at: u64, bytes: Vec<u8> },
    Truncate { size: u64 },
    Name { name: String, inode: Option<Inode> },
}

impl Content {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { at, bytes } => {
                let end = *at as usize + bytes.len();
                if self.data.len() < end {
                    self.data.resize(end, 0);
                }
                self.data[*at as usize..end].copy_from_slice(bytes);
            }
            Change::Truncate { size } => self.data.resize(*size as usize, 0),
            Change::Name { name, inode: Some(inode) } => drop(self.names.insert(name.clone(), *inode)),
            Change::Name { name, inode: None } => drop(self.names.remove(name)),
        }
    }
}

impl Node {
    /// What a process sees.
    fn now(&self) -> Content {
        self.after_a_cut(&mut Unsynced::Kept)
    }

    fn after_a_cut(&self, unsynced: &mut Unsynced<'_>) -> Content {
        let mut content = self.durable.clone();
        for (_, change) in &self.pending {
            match (&mut *unsynced, change) {
                (Unsynced::Kept, _) => content.apply(change),
                (Unsynced::Lost, _) => {}
                (Unsynced::Random(random), Change::Write { at, bytes }) => match random.below(4) {
                    0 | 1 => content.apply(change),
                    2 => {
                        let part = random.below(bytes.len() as u64 + 1) as usize;
                        content.apply(&Change::Write { at: *at, bytes: bytes[..part].to_vec() });
                    }
                    _ => {}
                },
                (Unsynced::Random(random), _) => {
                    if random.below(2) == 0 {
                        content.apply(change);
                    }
                }
            }
        }
        content
    }
}

impl Disk {
    /// A disk whose files below `root` are as they are now, all of them durable.
    pub(crate) fn of(root: &Path) -> Self {
        let (open, syncing) = (HashMap::new(), HashMap::new());
        let mut disk = Self {
            root: root.to_owned(),
            syncs: Syncs::Honest,
            inodes: Vec::new(),
            open,
            syncing,
            changes: 0,
            synced: 0,
        };
        disk.read(root);
        disk
    }

    /// The same disk, which keeps these of its promises.
    pub(crate) fn with(self, syncs: Syncs) -> Self {
        Self { syncs, ..self }
    }

    fn read(&mut self, path: &Path) -> Inode {
        let inode = self.inodes.len();
        self.inodes.push(Node { is_directory: path.is_dir(), ..Node::default() });
        if path.is_dir() {
            for entry in fs::read_dir(path).expect("a directory") {
                let entry = entry.expect("an entry");
                let below = self.read(&entry.path());
                let name = entry.file_name().to_string_lossy().into_owned();
                self.inodes[inode].durable.names.insert(name, below);
            }
        } else {
            self.inodes[inode].durable.data = fs::read(path).expect("a file");
        }
        inode
    }

    /// How many changes there were so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// How many syncs there were so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.synced
    }

    /// Takes a step. What is not about this disk changes nothing.
    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::Open { path, descriptor, create, truncate, append } => {
                if path.starts_with(&self.root) {
                    self.opened(path, *descriptor, *create, *truncate, *append);
                }
            }
            Step::Close { descriptor } => drop(self.open.remove(descriptor)),
            Step::Seek { descriptor, to } => self.descriptor(*descriptor).position = *to,
            Step::Write { descriptor, at, bytes } => self.written(*descriptor, *at, bytes),
            Step::Truncate { descriptor, size } => {
                let inode = self.descriptor(*descriptor).inode;
                self.change(inode, Change::Truncate { size: *size });
            }
            Step::SyncBegins { thread, descriptor } => {
                let inode = self.descriptor(*descriptor).inode;
                self.syncing.insert(*thread, (inode, self.changes));
            }
            Step::SyncEnds { thread } => {
                let (inode, until) = self.syncing.remove(thread).expect("a sync that began");
                self.synced(inode, until);
            }
            Step::Rename { from, to } => {
                let inode = self.find(from).unwrap_or_else(|| panic!("{} is renamed", from.display()));
                self.name(to, Some(inode));
                self.name(from, None);
            }
            Step::Remove { path } => self.name(path, None),
            Step::MakeDirectory { path } => {
                self.inodes.push(Node { is_directory: true, ..Node::default() });
                self.name(path, Some(self.inodes.len() - 1));
            }
            Step::Missed { .. } | Step::Answer => {}
        }
    }

    fn opened(&mut self, path: &Path, descriptor: u32, create: bool, truncate: bool, append: bool) {
        let inode = match self.find(path) {
            Some(inode) => inode,
            None => {
                assert!(create, "{} was opened and is not on the disk", path.display());
                self.inodes.push(Node::default());
                self.name(path, Some(self.inodes.len() - 1));
                self.inodes.len() - 1
            }
        };
        if truncate {
            self.change(inode, Change::Truncate { size: 0 });
        }
        self.open.insert(descriptor, Open { inode, position: 0, append });
    }

    fn written(&mut self, descriptor: u32, at: Option<u64>, bytes: &[u8]) {
        let &mut Open { inode, position, append } = self.descriptor(descriptor);
        let at = at.unwrap_or(if append { self.inodes[inode].now().data.len() as u64 } else { position });
        self.descriptor(descriptor).position = at + bytes.len() as u64;
        self.change(inode, Change::Write { at, bytes: bytes.to_vec() });
    }

    fn descriptor(&mut self, descriptor: u32) -> &mut Open {
        self.open.get_mut(&descriptor).unwrap_or_else(|| panic!("descriptor {descriptor} is not open"))
    }

    fn change(&mut self, inode: Inode, change: Change) {
        self.changes += 1;
        self.inodes[inode].pending.push((self.changes, change));
    }

    fn name(&mut self, path: &Path, inode: Option<Inode>) {
        let parent = path.parent().and_then(|parent| self.find(parent)).expect("a directory that is there");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        self.change(parent, Change::Name { name, inode });
    }

    /// What was changed up to a moment is durable now.
    fn synced(&mut self, inode: Inode, until: u64) {
        self.synced += 1;
        let node = &mut self.inodes[inode];
        match self.syncs {
            Syncs::Honest => {}
            Syncs::OfFiles if !node.is_directory => {}
            Syncs::OfDirectories if node.is_directory => {}
            Syncs::OfFiles | Syncs::OfDirectories | Syncs::Ignored => return,
        }
        let (durable, pending) = std::mem::take(&mut node.pending).into_iter().partition(|(when, _)| *when <= until);
        node.pending = pending;
        let durable: Vec<(u64, Change)> = durable;
        for (_, change) in &durable {
            node.durable.apply(change);
        }
    }

    fn find(&self, path: &Path) -> Option<Inode> {
        let below = path.strip_prefix(&self.root).ok()?;
        below
            .iter()
            .try_fold(0, |inode, name| self.inodes[inode].now().names.get(name.to_string_lossy().as_ref()).copied())
    }

    /// What is there below a directory of the root when the power comes back.
    pub(crate) fn after_a_cut(&self, directory: &str, unsynced: &mut Unsynced<'_>) -> Survivors {
        let mut survivors = Survivors::default();
        if let Some(inode) = self.inodes[0].after_a_cut(unsynced).names.get(directory) {
            self.collect(*inode, Path::new(""), unsynced, &mut HashMap::new(), &mut survivors);
        }
        survivors
    }

    fn collect(
        &self,
        inode: Inode,
        path: &Path,
        unsynced: &mut Unsynced<'_>,
        seen: &mut HashMap<Inode, Content>,
        into: &mut Survivors,
    ) {
        // Two names of one file show the same bytes.
        let content = seen.entry(inode).or_insert_with(|| self.inodes[inode].after_a_cut(unsynced)).clone();
        if !self.inodes[inode].is_directory {
            into.files.insert(path.to_owned(), content.data);
            return;
        }
        into.directories.insert(path.to_owned());
        for (name, below) in content.names {
            self.collect(below, &path.join(name), unsynced, seen, into);
        }
    }
}

/// Files and directories that a cut left.
#[derive(Debug, Default, PartialEq, Eq, Hash, Clone)]
pub(crate) struct Survivors {
    directories: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Survivors {
    /// Lays them down in an empty directory.
    pub(crate) fn lay_down(&self, root: &Path) {
        fs::create_dir_all(root).expect("a directory can be made");
        for directory in &self.directories {
            fs::create_dir_all(root.join(directory)).expect("a directory can be made");
        }
        for (path, data) in &self.files {
            fs::write(root.join(path), data).expect("a file can be written");
        }
    }
}
