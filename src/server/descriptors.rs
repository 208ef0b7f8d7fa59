//! May this process have as many files open as its limits let clients make it open?
//!
//! A connection is one file. So is what a request holds while it lasts: an image's content, an upload, or a connection to an
//! upstream. Where none is left, connections wait to be accepted, which harms nobody but them, and requests of clients
//! that are in already fail. So the operator hears of it before.
//!
//! Absent on purpose: what is open for a moment (a folder that is flushed, a small file that is read), of which there are no
//! more than threads that block.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::front::Limits;

/// What is open beside connections and their requests, with room to spare: listeners, databases, logs, connections that are
/// told why they are turned away, those to upstreams that wait for the next request.
const OTHERS: u64 = 1024;

/// Takes as many file descriptors as the machine allows.
pub(super) fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!("cannot raise the limit of open files from {soft} to {hard}: {error}");
    }
}

/// Says so when clients may need more than there are: as a warning where one request on each connection is enough, and
/// otherwise as what takes clients that have several on all of theirs.
pub(super) fn compare_with_limit(limits: &Limits) {
    let Ok((files, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    match Need::of(limits).within(files) {
        Enough::Always => {}
        Enough::Usually => tracing::info!("{}", Need::of(limits).said(limits, files)),
        Enough::No => tracing::warn!("{}", Need::of(limits).said(limits, files)),
    }
}

/// How many files clients can make us open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Need {
    /// With one request on each connection, as on HTTP/1.1.
    usual: u64,
    /// With as many as there may be.
    most: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Enough {
    Always,
    Usually,
    No,
}

impl Need {
    fn of(limits: &Limits) -> Self {
        let [connections, requests] = [limits.connections, limits.requests()].map(|count| count as u64);
        let files = |requests: u64| connections.saturating_add(requests).saturating_add(OTHERS);
        Self { usual: files(connections), most: files(requests) }
    }

    fn within(self, files: u64) -> Enough {
        match files {
            files if files >= self.most => Enough::Always,
            files if files >= self.usual => Enough::Usually,
            _ => Enough::No,
        }
    }

    fn said(self, limits: &Limits, files: u64) -> String {
        let Self { usual, most } = self;
        format!(
            "this process may have {files} files open. With limits.connections {} clients can make it open {usual} by one \
             request on each connection, and {most} by as many as HTTP/2 lets them have. Where none is left, requests fail \
             and connections wait: raise it (systemd: LimitNOFILE=, containers: --ulimit nofile=) or lower \
             limits.connections",
            limits.connections
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: usize) -> Limits {
        Limits { connections, ..Limits::default() }
    }

    #[test]
    fn a_connection_and_each_request_that_it_may_have_is_a_file() {
        let need = Need::of(&limits(20_000));
        // Four on each connection, and as many further ones as there may be connections.
        assert_eq!(need, Need { usual: 40_000 + OTHERS, most: 20_000 + 100_000 + OTHERS });
        assert_eq!(need.within(1024), Enough::No);
        assert_eq!(need.within(20_000), Enough::No, "connections alone are of no use");
        assert_eq!(need.within(need.usual), Enough::Usually);
        assert_eq!(need.within(need.most - 1), Enough::Usually);
        assert_eq!(need.within(need.most), Enough::Always);
        assert_eq!(Need::of(&limits(usize::MAX)).within(u64::MAX), Enough::Always, "without a limit");
    }

    #[test]
    fn what_is_said_names_the_limit_and_what_it_takes() {
        let said = Need::of(&limits(20_000)).said(&limits(20_000), 4096);
        for part in ["may have 4096 files", "limits.connections 20000", "open 41024 by", "121024 by", "LimitNOFILE="] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn the_service_may_have_as_many_files_open_as_the_defaults_can_take() {
        let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/pierhead.service");
        let unit = std::fs::read_to_string(unit).unwrap();
        let files = unit.lines().find_map(|line| line.strip_prefix("LimitNOFILE=")).unwrap();
        assert_eq!(Need::of(&Limits::default()).within(files.parse().unwrap()), Enough::Always);
    }
}
