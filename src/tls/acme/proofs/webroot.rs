//! How does a proof come into the folder of another server that has port 80?
//!
//! `WEBROOT/.well-known/acme-challenge/TOKEN`, readable by all, for the time of an order. The folder may be another user's,
//! and we may be root: below the webroot no link is followed, each step is taken from the folder that is open
//! (`openat`, `O_NOFOLLOW`), so that nobody who may write there can have us write or remove anything elsewhere.
//!
//! **Invariants**
//! - A file that is there and does not hold our answer is neither overwritten nor removed, but for the beginning of our
//!   answer, as a power cut leaves it, which is removed.
//! - Nothing is made durable: after a power cut there is a new order. That is why `storage/durable.rs` is not used.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, mkdirat, openat, unlinkat};
use rustix::io::Errno;

/// The folders below the webroot (RFC 8555 8.3).
const BELOW: [&str; 2] = [".well-known", "acme-challenge"];
/// How a folder is opened.
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC).union(OFlags::RDONLY);
/// The most of a file that is read to see whether it is ours.
const LIMIT: u64 = 512;

/// Puts the answer there, for anybody to read.
pub(super) fn put(webroot: &Path, token: &str, answer: &str) -> Result<(), String> {
    let inner = || {
        let folder = below(root(webroot)?, true)?;
        match create(&folder, token) {
            Ok(file) => fill(file, answer).inspect_err(|_| {
                // The failure that matters is the one that is returned; what stays is half an answer to nobody.
                let _ = unlinkat(&folder, token, AtFlags::empty());
            }),
            // From an order that was cut short: the authority asks for the same again.
            Err(Errno::EXIST) if held(&folder, token).is_ok_and(|held| held == answer) => Ok(()),
            Err(Errno::EXIST) => Err(io::Error::other("something else is there, and it is not ours to replace")),
            Err(error) => Err(error.into()),
        }
    };
    inner().map_err(|error| explain(webroot, token, &error))
}

/// Takes it away again, if it is there. What is there and is not ours stays, and that is no failure; neither is a link or a
/// file where a folder below the webroot should be, for we put nothing behind one.
pub(super) fn take(webroot: &Path, token: &str, answer: &str) -> Result<(), String> {
    let inner = || {
        let folder = match below(root(webroot)?, false) {
            Err(error) if is_other(&error) => return Ok(()),
            opened => opened?,
        };
        match held(&folder, token) {
            Ok(held) if answer.starts_with(&held) => {
                unlinkat(&folder, token, AtFlags::empty()).map_err(io::Error::from)
            }
            Ok(_) => Ok(()),
            Err(error) if is_other(&error) => Ok(()),
            Err(error) => Err(error),
        }
    };
    match inner() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|error| explain(webroot, token, &error)),
    }
}

/// The webroot itself, which may be a link.
fn root(webroot: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, webroot, FOLDER, Mode::empty())?)
}

/// The folder of answers, opened step by step from the webroot; with `make`, what is missing is made.
fn below(mut folder: OwnedFd, make: bool) -> io::Result<OwnedFd> {
    for name in BELOW {
        let opened = openat(&folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
        folder = match opened {
            Err(Errno::NOENT) if make => {
                let everybody = Mode::from_raw_mode(0o755);
                let made = mkdirat(&folder, name, everybody);
                let there = openat(&folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
                match made {
                    Ok(()) => fchmod(there.as_ref().map_err(|error| *error)?, everybody)?, // whatever the umask says
                    Err(Errno::EXIST) => {} // another order made it this moment
                    Err(error) => return Err(error.into()),
                }
                there?
            }
            opened => opened?,
        };
    }
    Ok(folder)
}

fn create(folder: &OwnedFd, token: &str) -> Result<File, Errno> {
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(folder, token, new, Mode::from_raw_mode(0o644)).map(File::from)
}

fn fill(mut file: File, answer: &str) -> io::Result<()> {
    fchmod(&file, Mode::from_raw_mode(0o644))?; // the same
    file.write_all(answer.as_bytes())
}

fn held(folder: &OwnedFd, token: &str) -> io::Result<String> {
    // Not blocked by a pipe that somebody put there.
    let flags = OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(openat(folder, token, flags, Mode::empty())?);
    let mut text = String::new();
    file.take(LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

/// A link, a folder, a file where a folder should be, or what is no text: nothing that we put there.
fn is_other(error: &io::Error) -> bool {
    let odd = error.kind() == io::ErrorKind::InvalidData || error.kind() == io::ErrorKind::IsADirectory;
    odd || matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::LOOP | Errno::NOTDIR))
}

fn explain(webroot: &Path, token: &str, error: &io::Error) -> String {
    let path = webroot.join(BELOW[0]).join(BELOW[1]).join(token);
    let help = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => ". Make the folder, or name the one that the server on port 80 serves".to_owned(),
        Some(Errno::ACCESS | Errno::PERM) => format!(
            ". We are user {}: make {} once and give it to that user",
            rustix::process::geteuid(),
            webroot.join(BELOW[0]).join(BELOW[1]).display()
        ),
        Some(Errno::LOOP | Errno::NOTDIR) => {
            format!(". Below {} there may be no link: make folders of {}", webroot.display(), BELOW.join("/"))
        }
        Some(Errno::ROFS) => ". The folder is read-only for us: see ReadWritePaths= of the systemd unit".to_owned(),
        _ => String::new(),
    };
    format!("{} (`tls.acme.webroot`): {error}{help}", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn an_answer_lies_there_for_all_to_read_until_it_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "token", "token.thumb").unwrap();
        let path = folder.path().join(".well-known/acme-challenge/token");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "token.thumb");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o644, 0o755));
        put(folder.path(), "token", "token.thumb").unwrap();
        take(folder.path(), "token", "token.thumb").unwrap();
        take(folder.path(), "token", "token.thumb").unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn orders_that_begin_in_one_moment_make_the_folders_together() {
        for _ in 0..30 {
            let folder = tempfile::tempdir().unwrap();
            let together = std::sync::Barrier::new(8);
            let put_one = |number: usize| {
                together.wait();
                put(folder.path(), &format!("token{number}"), "answer").unwrap();
            };
            std::thread::scope(|scope| {
                for number in 0..8 {
                    let put_one = &put_one;
                    scope.spawn(move || put_one(number));
                }
            });
        }
    }

    #[test]
    fn no_link_below_the_webroot_is_followed_and_what_is_not_ours_stays() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = folder.path();
        symlink(elsewhere.path(), root.join(".well-known")).unwrap();
        let said = put(root, "token", "answer").unwrap_err();
        assert!(said.contains("there may be no link"), "{said}");
        take(root, "token", "answer").unwrap();
        std::fs::remove_file(root.join(".well-known")).unwrap();
        std::fs::create_dir(root.join(".well-known")).unwrap();
        symlink(elsewhere.path(), root.join(".well-known/acme-challenge")).unwrap();
        assert!(put(root, "token", "answer").is_err());
        std::fs::File::create(elsewhere.path().join("token")).unwrap().write_all(b"answer").unwrap();
        take(root, "token", "answer").unwrap();
        std::fs::remove_file(elsewhere.path().join("token")).unwrap();
        assert_eq!(elsewhere.path().read_dir().unwrap().count(), 0);

        std::fs::remove_file(root.join(".well-known/acme-challenge")).unwrap();
        put(root, "mine", "answer").unwrap();
        let below = root.join(".well-known/acme-challenge");
        let theirs = elsewhere.path().join("theirs");
        std::fs::File::create(&theirs).unwrap().write_all(b"answer").unwrap();
        symlink(&theirs, below.join("token")).unwrap();
        assert!(put(root, "token", "answer").unwrap_err().contains("not ours to replace"));
        std::fs::create_dir(below.join("folder")).unwrap();
        for (token, answer) in [("token", "answer"), ("folder", "answer"), ("mine", "another"), ("mine", "ans")] {
            assert!(put(root, token, answer).is_err());
            take(root, token, answer).unwrap();
            assert!(below.join(token).symlink_metadata().is_ok(), "{token} {answer}");
        }
        assert_eq!(std::fs::read_to_string(below.join("mine")).unwrap(), "answer");
        assert!(theirs.exists());
        std::fs::File::create(below.join("half")).unwrap().write_all(b"ans").unwrap();
        take(root, "half", "answer").unwrap();
        assert!(!below.join("half").exists());
    }

    #[test]
    fn the_webroot_itself_may_be_a_link_and_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        assert!(put(&link, "token", "answer").unwrap_err().contains("Make the folder"));
        std::fs::File::create(&real).unwrap();
        assert!(take(&real, "token", "answer").is_err(), "what is there when it is a folder is still to be taken away");
        std::fs::remove_file(&real).unwrap();
        std::fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        put(&link, "token", "answer").unwrap();
        assert!(real.join(".well-known/acme-challenge/token").exists());
    }
}
