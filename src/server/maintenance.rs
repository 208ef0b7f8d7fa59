//! What did the operator order, and is it remembered?
//!
//! An order of `pierhead maintenance` lies in the state directory, so that it holds after a restart. It is on disk before
//! it is in force, and in force before anybody hears that it is.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::registry::{Maintenance, Mode, Pause};
use crate::storage::durable;

/// The file's name in the state directory.
const NAME: &str = "maintenance.json";
/// More than the file ever has.
const LARGEST: u64 = 4 << 10;

/// What the server says of maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The operator's order, if there is one.
    pub ordered: Option<Pause>,
    /// What the configuration says, if it says so.
    pub configured: Option<Pause>,
    /// Requests that are changing something.
    pub writing: usize,
}

impl Status {
    pub(super) fn of(maintenance: &Maintenance) -> Self {
        let (ordered, configured) = (maintenance.ordered(), maintenance.configured());
        Self { ordered, configured, writing: maintenance.writing() }
    }
}

/// Puts in force what was ordered before a restart.
pub(super) fn restore(state: &Path, maintenance: &Maintenance) -> Result<(), Error> {
    let path = state.join(NAME);
    let pause = read(&path).map_err(|source| Error::Maintenance { path, source })?;
    if let Some(Pause { mode, since, .. }) = pause {
        tracing::warn!(?mode, %since, "maintenance is on: nothing can be pushed or deleted until `pierhead maintenance off`");
    }
    maintenance.order(pause);
    Ok(())
}

fn read(path: &Path) -> io::Result<Option<Pause>> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(LARGEST).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(serde_json::from_str(&text)?)
}

/// Begins a pause. One that lasts goes on since it began, with the mode and the grace time of this order.
pub(super) fn begin(state: &Path, maintenance: &Maintenance, mode: Mode, grace: Duration) -> io::Result<Pause> {
    let mut pause = Pause::new(mode, Timestamp::now(), grace);
    pause.since = maintenance.ordered().map_or(pause.since, |before| before.since);
    put(state, maintenance, Some(pause))?;
    Ok(pause)
}

/// Ends the pause.
pub(super) fn end(state: &Path, maintenance: &Maintenance) -> io::Result<()> {
    put(state, maintenance, None)
}

fn put(state: &Path, maintenance: &Maintenance, pause: Option<Pause>) -> io::Result<()> {
    let path: PathBuf = state.join(NAME);
    durable::write(&path, &serde_json::to_vec(&pause)?, durable::SECRET)?;
    maintenance.order(pause);
    Ok(())
}
