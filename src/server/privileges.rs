//! As whom do we run?
//!
//! Started as root we become somebody who owns what we write, and for good. The order is fixed: first the groups, then the
//! group, then the user, because each step needs the right that the last one gives up; afterwards we check that there is
//! no way back. The calls go through libc, which applies them to every thread; still this belongs before the first one.
//!
//! Not being root is no error here: whoever may not write will hear so from the file system.

use std::ffi::CString;
use std::fs::{DirBuilder, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid, User, geteuid, getresgid, getresuid, initgroups, setgid, setuid};

use crate::storage::durable;

/// The state directory holds keys and accounts: nobody else's.
const STATE_MODE: u32 = 0o700;

/// Why we cannot become somebody else. The process must end: it may be half-way.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration names a user that this machine does not know.
    #[error("user: there is no user {0:?} on this machine")]
    Unknown(String),
    /// A file or folder that decides cannot be looked at, made or given away.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system refused a step.
    #[error("cannot become user {user}: {step}: {source}")]
    Refused {
        /// Who we were to become.
        user: String,
        /// Which step.
        step: &'static str,
        /// Why.
        source: Errno,
    },
    /// Every step was taken, and yet root could be had back.
    #[error("became user {0}, but the rights of root are not gone")]
    NotGone(String),
}

/// The user of that name.
pub fn find_user(name: &str) -> Result<User, Error> {
    User::from_name(name).ok().flatten().ok_or_else(|| Error::Unknown(name.to_owned()))
}

/// The user that owns something. One who is not in this machine's user database (in a container many are not) goes by
/// the number, and has the group of what is owned.
pub fn owner(uid: Uid, gid: Gid) -> User {
    User::from_uid(uid).ok().flatten().unwrap_or_else(|| User {
        name: uid.to_string(),
        uid,
        gid,
        passwd: CString::default(),
        gecos: CString::default(),
        dir: PathBuf::new(),
        shell: PathBuf::new(),
    })
}

/// Who we are now, for messages.
pub fn current_user() -> String {
    let uid = geteuid();
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// Becomes a user, with that user's groups. Not being root, or becoming root, changes nothing.
pub fn become_user(user: &User) -> Result<(), Error> {
    if !geteuid().is_root() || user.uid.is_root() {
        return Ok(());
    }
    let refused = |step| move |source| Error::Refused { user: user.name.clone(), step, source };
    let name = CString::new(user.name.as_str()).map_err(|_| Error::Unknown(user.name.clone()))?;
    initgroups(&name, user.gid).map_err(refused("initgroups"))?;
    setgid(user.gid).map_err(refused("setgid"))?;
    setuid(user.uid).map_err(refused("setuid"))?;
    let users = getresuid().map_err(refused("getresuid"))?;
    let groups = getresgid().map_err(refused("getresgid"))?;
    let changed = [users.real, users.effective, users.saved].iter().all(|held| *held == user.uid)
        && [groups.real, groups.effective, groups.saved].iter().all(|held| *held == user.gid);
    let back = setuid(Uid::from_raw(0)).is_ok();
    if changed && !back { Ok(()) } else { Err(Error::NotGone(user.name.clone())) }
}

/// Becomes the owner of `path`, or of the nearest folder above it that exists.
pub fn become_owner_of(path: &Path) -> Result<(), Error> {
    become_user(&owner_of(path)?)
}

/// Makes the state directory when it is missing, and becomes whoever owns what is kept in it.
///
/// That is the owner of a state directory that is in use. A new one, or root's with nothing in it yet (a fresh volume), is
/// given to `user`, by default to the owner of the storage root, so that the registry which lies there and we can write
/// each other's files. The server goes by the same rule, so no command leaves files that the server cannot write.
pub fn become_keeper_of(state: &Path, user: Option<&str>, storage: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { path: state.to_owned(), source };
    let (found, in_use) = match std::fs::metadata(state) {
        Ok(metadata) => (true, metadata.uid() != 0 || !is_fresh(state, storage).map_err(failed)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (false, false),
        Err(source) => return Err(failed(source)),
    };
    if in_use {
        return become_owner_of(state);
    }
    if !found {
        make_private(state).map_err(failed)?;
    }
    if !geteuid().is_root() {
        return Ok(());
    }
    let keeper = user.map_or_else(|| owner_of(storage), find_user)?;
    give(state, &keeper).map_err(failed)?;
    become_user(&keeper)
}

/// Gives a folder of root's to a user. Links are not followed, and what is somebody else's stays theirs: whoever may
/// write to the folder above could otherwise have us give away another.
pub(super) fn give(folder: &Path, user: &User) -> io::Result<()> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY).bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(folder)?;
    if opened.metadata()?.uid() == 0 {
        fchown(&opened, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    }
    Ok(())
}

fn make_private(folder: &Path) -> io::Result<()> {
    let absolute = std::path::absolute(folder)?;
    if let Some(parent) = absolute.parent() {
        durable::make_dirs(parent)?;
    }
    DirBuilder::new().mode(STATE_MODE).create(&absolute)
}

/// Whether a folder holds nothing but what the storage root or the making of a file system put there.
pub(super) fn is_fresh(state: &Path, storage: &Path) -> io::Result<bool> {
    for entry in std::fs::read_dir(state)? {
        let entry = entry?;
        if entry.file_name() != "lost+found" && !storage.starts_with(entry.path()) {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn owner_of(path: &Path) -> Result<User, Error> {
    let found = nearest(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    Ok(owner(Uid::from_raw(found.uid()), Gid::from_raw(found.gid())))
}

/// What is at `path`, or at the nearest folder above it that exists.
fn nearest(path: &Path) -> io::Result<Metadata> {
    for place in std::path::absolute(path)?.ancestors() {
        match std::fs::metadata(place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            decided => return decided,
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;
    use std::process::Command;

    use super::*;
    use crate::metadata::Database;

    /// A user that no machine's database knows.
    const STRANGER: u32 = 54_321;

    /// Runs one of the tests below in a process of its own, because there is no way back. `None` when we are not root.
    fn in_a_process_of_its_own(test: &str, state: &Path, storage: &Path) -> Option<String> {
        if !geteuid().is_root() {
            return None;
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", &format!("server::privileges::tests::{test}")])
            .env("PIERHEAD_TEST_STATE", state)
            .env("PIERHEAD_TEST_STORAGE", storage)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{text}");
        Some(text)
    }

    /// The folders, in the child process; nothing in the parent, where these tests do nothing.
    fn folders() -> Option<(PathBuf, PathBuf)> {
        Some((std::env::var_os("PIERHEAD_TEST_STATE")?.into(), std::env::var_os("PIERHEAD_TEST_STORAGE")?.into()))
    }

    #[test]
    fn child_becomes_the_owner() {
        let Some((state, _)) = folders() else { return };
        become_owner_of(&state.join("not/there/yet")).unwrap();
        println!("now {} {}", geteuid(), getresgid().unwrap().effective);
    }

    #[test]
    fn child_becomes_the_keeper() {
        let Some((state, storage)) = folders() else { return };
        become_keeper_of(&state, None, &storage).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { Database::open(&Database::path_in(&state)).await.unwrap().close().await });
        println!("now {}", geteuid());
    }

    #[test]
    fn root_becomes_the_owner_of_the_nearest_folder_with_the_owners_group_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        if geteuid().is_root() {
            chown(folder.path(), Some(STRANGER), Some(STRANGER + 1)).unwrap();
        }
        let Some(text) = in_a_process_of_its_own("child_becomes_the_owner", folder.path(), folder.path()) else {
            return;
        };
        assert!(text.contains(&format!("now {STRANGER} {}", STRANGER + 1)), "{text}");
    }

    #[test]
    fn a_new_state_directory_and_a_fresh_volume_go_to_the_owner_of_the_storage() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let volume = folder.path().join("volume");
        let storage = volume.join("registry");
        durable::make_dirs(&storage).unwrap();
        chown(&storage, Some(STRANGER), Some(STRANGER)).unwrap();
        for state in [folder.path().join("new/state"), volume.clone(), volume] {
            let text = in_a_process_of_its_own("child_becomes_the_keeper", &state, &storage).unwrap();
            assert!(text.contains(&format!("now {STRANGER}")), "{text}");
            assert_eq!(std::fs::metadata(Database::path_in(&state)).unwrap().uid(), STRANGER);
        }
    }

    #[test]
    fn a_state_directory_that_root_uses_stays_roots() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let storage = folder.path().join("storage");
        durable::make_dirs(&storage).unwrap();
        chown(&storage, Some(STRANGER), Some(STRANGER)).unwrap();
        durable::write(&Database::path_in(folder.path()), b"", 0o600).unwrap();
        let text = in_a_process_of_its_own("child_becomes_the_keeper", folder.path(), &storage).unwrap();
        assert!(text.contains("now 0"), "{text}");
    }

    #[test]
    fn a_state_directory_that_is_made_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a/state");
        make_private(&state).unwrap();
        assert_eq!(std::fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn an_unknown_user_is_named() {
        let error = find_user("nobody-here").unwrap_err();
        assert_eq!(error.to_string(), "user: there is no user \"nobody-here\" on this machine");
    }
}
