//! Promise: we answer what the OCI conformance program asks (distribution-spec 1.1 and its development version) as the
//! specification wants, with every switch on and for both digest algorithms.
//!
//! The cases follow the program's; they are not its run. They differ in two places. Sparse content (`DATA_SPARSE`) is
//! asked for as refused, which is what we do while references are checked, and as taken where the operator says that
//! they are not. And where tokens count, a mount that names no source finds only what the token may read; the program may
//! show one for the target alone, with which an ordinary upload begins. The specification allows that, and the
//! program counts it as unsupported.
//!
//! [`cases.tsv`](cases.tsv) is the list of what is asked, one case a line: the switch of the program that it belongs to,
//! the digest algorithm, the request, the answer, and the test that asks. A test is a [`Group`] of cases that differ only
//! in parameters. It fails when a case of its lines did not run, when it ran one that has no line, and with all the cases
//! that were answered otherwise; [`the_table_is_whole`] fails when a line names no test. So a line cannot be forgotten.
//!
//! One server with TLS and logins serves every group that runs at the same time (only other settings need another one);
//! each group keeps to repositories of its own.

mod blobs;
mod content;
mod data;
mod lists;
mod manifests;
mod settings;
mod steps;
mod uploads;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use self::data::Algorithm;
use crate::support::pierhead::{Pierhead, Site};
use crate::support::registry::{Registry, Repository};

/// `id, switch, algorithm, asked, expected, test`.
const TABLE: &str = include_str!("cases.tsv");
const COLUMNS: usize = 6;
/// A shorter table has lost some.
const AT_LEAST: usize = 300;

/// The program's switches, without `OCI_`.
const SWITCHES: [&str; 30] = [
    "API_PULL",
    "API_PUSH",
    "API_BLOBS_ATOMIC",
    "API_BLOBS_DELETE",
    "API_BLOBS_DIGEST_HEADER",
    "API_BLOBS_MOUNT_ANONYMOUS",
    "API_BLOBS_UPLOAD_CANCEL",
    "API_MANIFESTS_ATOMIC",
    "API_MANIFESTS_DELETE",
    "API_MANIFESTS_DIGEST_HEADER",
    "API_MANIFESTS_TAG_PARAM",
    "API_TAGS_ATOMIC",
    "API_TAGS_DELETE",
    "API_TAGS_LIST",
    "API_REFERRER",
    "DATA_IMAGE",
    "DATA_INDEX",
    "DATA_INDEX_LIST",
    "DATA_ARTIFACT",
    "DATA_SUBJECT",
    "DATA_SUBJECT_MISSING",
    "DATA_ARTIFACT_LIST",
    "DATA_SUBJECT_LIST",
    "DATA_DATA_FIELD",
    "DATA_NONDISTRIBUTABLE",
    "DATA_CUSTOM_FIELDS",
    "DATA_NO_LAYERS",
    "DATA_EMPTY_BLOB",
    "DATA_SHA512",
    "DATA_SPARSE",
];

/// Why a case is not as it should be.
type Check = Result<(), String>;

macro_rules! groups {
    ($($module:ident::$group:ident),* $(,)?) => {
        $(
            #[test]
            fn $group() {
                Group::run(stringify!($group), $module::$group);
            }
        )*

        /// Every test that asks cases.
        const GROUPS: &[&str] = &[$(concat!("conformance::", stringify!($group))),*];
    };
}

groups![
    blobs::blobs_arrive_in_every_way_and_leave_at_once,
    blobs::blobs_are_read_in_parts,
    blobs::blobs_that_are_not_what_they_claim_are_refused,
    content::content_of_every_shape_named_by_sha256,
    content::content_of_every_shape_named_by_sha512,
    lists::tags_are_listed_in_pages,
    lists::referrers_are_listed_in_pages,
    manifests::manifests_that_cannot_be_are_refused,
    manifests::one_push_gives_many_tags,
    manifests::headers_say_what_clients_rely_on,
    manifests::whoever_has_no_right_is_told_how_to_get_it,
    settings::a_registry_without_deletion_says_so_and_keeps_everything,
    settings::a_registry_that_is_read_only_serves_everything_and_changes_nothing,
    settings::where_nobody_guards_a_blob_is_mounted_from_anywhere,
    settings::where_nobody_looks_sparse_content_is_taken,
    uploads::uploads_are_asked_about_resumed_and_given_up,
];

#[derive(Debug)]
struct Row {
    id: &'static str,
    switch: &'static str,
    algorithm: &'static str,
    test: &'static str,
}

fn table() -> Vec<Row> {
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.split('\t').collect();
        assert!(cells.len() == COLUMNS && cells.iter().all(|cell| !cell.trim().is_empty()), "a gap: {line}");
        Row { id: cells[0], switch: cells[1], algorithm: cells[2], test: cells[5] }
    };
    TABLE.lines().skip(1).map(row).collect()
}

#[test]
fn the_table_is_whole() {
    let rows = table();
    assert!(rows.len() >= AT_LEAST, "only {} cases", rows.len());
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), rows.len(), "each case has a name of its own");
    for row in &rows {
        assert!(GROUPS.contains(&row.test), "no test asks this: {row:?}");
        assert!(["sha256", "sha512", "any"].contains(&row.algorithm), "{row:?}");
        let known = |switch: &str| SWITCHES.contains(&switch) || switch == "always";
        assert!(row.switch.split(' ').all(known), "no such switch: {row:?}");
    }
    for group in GROUPS {
        assert!(rows.iter().any(|row| row.test == *group), "{group} asks nothing");
    }
    for switch in SWITCHES {
        for algorithm in ["sha256", "sha512"] {
            let asks = |row: &Row| row.algorithm == algorithm && row.switch.split(' ').any(|word| word == switch);
            let other = switch == "DATA_SHA512" && algorithm == "sha256";
            assert!(other || rows.iter().any(asks), "nothing asks {switch} with {algorithm}");
        }
    }
}

/// A running server, for as long as a group needs it.
struct Shared {
    _server: Pierhead,
    site: Site,
}

impl Shared {
    fn get() -> Arc<Self> {
        static RUNNING: Mutex<Weak<Shared>> = Mutex::new(Weak::new());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.upgrade().unwrap_or_else(|| {
            let site = Site::new();
            let server = site.start();
            let shared = Arc::new(Self { _server: server, site });
            *running = Arc::downgrade(&shared);
            shared
        })
    }
}

/// The cases of one test, while they are asked.
struct Group {
    server: Arc<Shared>,
    admin: Registry,
    asked: RefCell<BTreeMap<String, Check>>,
}

impl Group {
    fn run(name: &str, ask: fn(&Self)) {
        let server = Shared::get();
        let group = Self { admin: server.site.admin(), server, asked: RefCell::default() };
        let finished = catch_unwind(AssertUnwindSafe(|| ask(&group)));
        let test = format!("conformance::{name}");
        let rows = table();
        let wanted: BTreeSet<&str> = rows.iter().filter(|row| row.test == test).map(|row| row.id).collect();
        let asked = group.asked.borrow();
        let without_row = asked.keys().filter(|id| !wanted.contains(id.as_str())).map(|id| format!("{id}: no line"));
        let not_asked = wanted.iter().filter(|id| !asked.contains_key(**id)).map(|id| format!("{id}: not asked"));
        let failed = asked.iter().filter_map(|(id, check)| Some(format!("{id}: {}", check.as_ref().err()?)));
        let wrong: Vec<String> = failed.chain(without_row).chain(not_asked).collect();
        assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), wanted.len(), wrong.join("\n"));
        finished.expect("the cases are asked to the end");
    }

    /// Asks one case.
    fn case(&self, id: impl Into<String>, check: impl FnOnce() -> Check) {
        let id = id.into();
        let outcome =
            catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| Err("it panicked, see above".to_owned()));
        assert!(self.asked.borrow_mut().insert(id.clone(), outcome).is_none(), "{id} is asked twice");
    }

    /// A repository of this group's own.
    fn repository(&self, name: &str, algorithm: Algorithm) -> Repository {
        self.admin.repository(&path(name, algorithm), "pull,push,delete")
    }
}

fn path(name: &str, algorithm: Algorithm) -> String {
    format!("conformance/{name}-{algorithm}")
}
