//! The folders that the server writes to, and whose they are.
//!
//! Started as root, the server becomes `user`, by default the owner of the storage root, so that whoever served this
//! tree before can always read what we write. Folders that do not exist yet are made for that user.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, User, access, geteuid};

use super::{Error, privileges};
use crate::config::Settings;
use crate::tls::acme::{self, Dns};

/// Keys and the database: nobody else's.
const STATE_MODE: u32 = 0o700;
/// The key of the folder of what is ordered.
const STORAGE: &str = "tls.acme.storage";
/// Registry data, as Distribution makes it.
const DATA_MODE: u32 = 0o755;

/// Makes the missing folders, becomes their owner, and checks that they can be written.
pub(super) fn make_and_become_owner(settings: &Settings) -> Result<(), Error> {
    let tree = ("registry.storage.filesystem.rootdirectory", &settings.registry.root, DATA_MODE);
    let state = ("state", &settings.state, STATE_MODE);
    // A registry alone keeps nothing but its tree.
    let folders = match (settings.registry_only, settings.services.registry) {
        (true, _) => vec![tree],
        (false, true) => vec![state, tree],
        (false, false) => vec![state],
    };
    let refused = |key, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Folder { path, user: privileges::current_user(), key, source }
    };
    let user = if geteuid().is_root() { Some(user_for(settings)?) } else { stay(settings)? };
    for &(key, path, mode) in &folders {
        make(path, mode, user.as_ref()).map_err(refused(key, path))?;
    }
    if let Some(user) = user.as_ref().filter(|_| !settings.registry_only) {
        // Before anything is put into it: a folder with content is in use, and stays its owner's.
        give_fresh_state(settings, user).map_err(refused("state", &settings.state))?;
    }
    if may_need_local_authority(settings) {
        let path = &settings.tls.local.directory;
        make(path, DATA_MODE, user.as_ref()).map_err(refused("tls.local", path))?; // ca.crt is for everybody, keys are 0600
    }
    if let Some(acme) = &settings.tls.acme {
        make(&acme.storage, STATE_MODE, user.as_ref()).map_err(refused(STORAGE, &acme.storage))?;
    }
    if let Some(user) = user {
        privileges::become_user(&user)?;
    }
    for (key, path, _) in folders {
        let all = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
        access(path.as_path(), all).map_err(io::Error::from).map_err(refused(key, path))?;
    }
    Ok(())
}

/// Whatever ordering certificates takes, with the rights that are left: makes the storage folder if it is not there, and
/// looks for what only root may read. To find that out from an order that fails would take until the next renewal.
pub(super) fn prepare_orders(acme: &acme::Config) -> Result<(), Error> {
    let storage = &acme.storage;
    let refused = |key, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Order { path, user: privileges::current_user(), key, source }
    };
    make(storage, STATE_MODE, None).map_err(refused(STORAGE, storage))?;
    for (key, path, rights) in needed(acme).chain(kept(storage).map_err(refused(STORAGE, storage))?) {
        match access(path.as_path(), rights).map_err(io::Error::from) {
            // It was taken away meanwhile, by another node: a lease, say.
            Err(error) if key == STORAGE && error.kind() == io::ErrorKind::NotFound => {}
            allowed => allowed.map_err(refused(key, &path))?,
        }
    }
    Ok(())
}

/// The operator's files.
fn needed(acme: &acme::Config) -> impl Iterator<Item = (&'static str, PathBuf, AccessFlags)> {
    let account = acme.account.as_ref().map(|account| ("tls.acme.eab.key", &account.key, AccessFlags::R_OK));
    let dns = acme.dns.as_ref().and_then(|dns| match dns {
        Dns::Update { key, .. } => key.as_ref().map(|key| ("tls.acme.dns.key", key, AccessFlags::R_OK)),
        Dns::Hook { program } => Some(("tls.acme.dns.hook", program, AccessFlags::X_OK)),
    });
    let ca = acme.ca.as_ref().map(|ca| ("tls.acme.ca", ca, AccessFlags::R_OK));
    [ca, account, dns].into_iter().flatten().map(|(key, path, rights)| (key, path.clone(), rights))
}

/// What lies in the storage folder by now: one start as root would leave it to root.
fn kept(storage: &Path) -> io::Result<Vec<(&'static str, PathBuf, AccessFlags)>> {
    let all = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
    let mut found = vec![(STORAGE, storage.to_owned(), all)];
    let mut folders = vec![storage.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue }; // it is among `found`, and refused there
        for entry in entries {
            let entry = entry?;
            // Whatever else lies at the root of a volume, as lost+found, is nobody's business.
            if folder == *storage && !acme::is_of_storage(&entry.file_name()) {
                continue;
            }
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir()); // gone, or refused below
            found.push((STORAGE, entry.path(), if is_folder { all } else { AccessFlags::R_OK }));
            if is_folder && folder == *storage {
                folders.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Not being root we are who we are: a `user` that names somebody else cannot be honoured.
fn stay(settings: &Settings) -> Result<Option<User>, Error> {
    match &settings.user {
        Some(user) if *user != privileges::current_user() => {
            Err(Error::NotRoot { user: user.clone(), we: privileges::current_user() })
        }
        Some(_) | None => Ok(None),
    }
}

/// Whether our certificate comes from an authority of our own, for good or until there is an ordered one.
fn may_need_local_authority(settings: &Settings) -> bool {
    let needed = settings.tls.certificates.is_empty() && settings.front.needs_certificates();
    needed || settings.tls.acme.is_some()
}

/// The user named by `user`, or the owner of the storage root (or of the nearest folder above it that exists).
fn user_for(settings: &Settings) -> Result<User, privileges::Error> {
    match &settings.user {
        Some(name) => privileges::find_user(name),
        None => privileges::owner_of(settings.data()),
    }
}

/// A state directory of root's with nothing in it yet is a fresh volume: it goes to the user.
fn give_fresh_state(settings: &Settings, user: &User) -> io::Result<()> {
    if privileges::is_fresh(&settings.state, settings.data())? {
        privileges::give(&settings.state, user)?;
    }
    Ok(())
}

/// Makes a folder and those above it that are missing; each belongs to `user` from its first moment that matters.
fn make(path: &Path, mode: u32, user: Option<&User>) -> io::Result<()> {
    let absolute = std::path::absolute(path)?;
    let missing: Vec<PathBuf> =
        absolute.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
    for folder in missing.iter().rev() {
        let last = *folder == absolute;
        DirBuilder::new().mode(if last { mode } else { DATA_MODE }).create(folder)?;
        if let Some(user) = user {
            privileges::give(folder, user)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn missing_folders_are_made_and_only_the_state_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a/b/state");
        make(&state, STATE_MODE, None).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&folder.path().join("a"))), (0o700, 0o755));
    }

    #[test]
    fn what_orders_take_is_looked_at_and_made_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let storage = folder.path().join("acme");
        let mut config = acme::Config {
            directory: "https://authority.test/directory".to_owned(),
            ca: None,
            contact: Vec::new(),
            challenges: vec![acme::Challenge::TlsAlpn01],
            certificates: vec![vec!["registry.test".to_owned()]],
            account: None,
            profile: None,
            webroot: None,
            dns: None,
            storage: storage.clone(),
        };
        prepare_orders(&config).unwrap();
        assert_eq!(std::fs::metadata(&storage).unwrap().permissions().mode() & 0o777, 0o700);
        let program = folder.path().join("hook");
        crate::storage::durable::write(&program, b"#!/bin/sh\n", 0o644).unwrap();
        config.dns = Some(Dns::Hook { program: program.clone() });
        let message = prepare_orders(&config).unwrap_err().to_string();
        assert!(message.contains("hook") && message.contains("tls.acme.dns.hook"), "{message}");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        prepare_orders(&config).unwrap();
    }
}
