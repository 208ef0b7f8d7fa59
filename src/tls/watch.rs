//! How does a changed file come to be shown?
//!
//! [`Watch`] looks at the metadata of every file once a second, through links, on any file system: what tools that renew
//! certificates do (write, rename, turn a link of Kubernetes) all changes it. A pair that changed is read; if it is good,
//! it takes its place from the next handshake on.
//!
//! **Invariants**
//! - A pair that cannot be shown, that clients would refuse now, or that lacks a name which was covered before, is not
//!   shown: the one before stays. Why is said once for each change, and is to be seen on the [`Board`].
//! - Certificate and key are two files: a pair that is whole again within [`GRACE`] was never wrong.
//!
//! The operator's `reload` decides anew: it takes what can be shown at all.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::config::Files;
use super::files::{self, Pair};
use super::remark::{self, Remark};
use super::served::Shown;
use super::stamp::{Stamp, paths, stamps};
use super::status::{Refused, Status};
use super::{Error, local, patience};
use crate::telemetry::Metrics;

/// How often we look.
const LOOK: Duration = Duration::from_secs(1);
/// How long a pair may be anything while it is being replaced.
const GRACE: Duration = Duration::from_secs(2);
/// The clocks of file systems are coarse: so long after a change, what was read is read again. Longer than the grace.
const SURE: Duration = Duration::from_secs(5);
/// How often what is wrong with what is shown is said again, and what is ours to renew is looked after.
const REPEAT: Duration = Duration::from_secs(24 * 60 * 60);

/// Whoever looks at the files.
#[derive(Debug)]
pub struct Watch {
    board: Arc<Board>,
    places: Vec<Place>,
    metrics: Metrics,
    said: Instant,
}

/// What can be seen of it.
#[derive(Debug)]
pub struct Board {
    shown: Vec<Shown>,
    /// By the number in `Watch::places`.
    refused: Mutex<Vec<Option<Refused>>>,
}

/// One pair of files and where it is shown.
#[derive(Debug)]
struct Place {
    shown: Shown,
    number: usize,
    files: Files,
    /// How the files were when they were last decided about.
    seen: Vec<Stamp>,
    /// Until when a change could be missed.
    unsure: Option<Instant>,
    /// Since when the files have been no good pair.
    bad: Option<Instant>,
    /// Whether what was seen is not shown.
    refused: bool,
    /// When it should be looked at again all the same, in seconds since 1970.
    again: Option<i64>,
}

/// Why a change is not shown.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error(transparent)]
    Unusable(#[from] Error),
    #[error("{0}")]
    Invalid(Remark),
    #[error(
        "the new certificate {file} carries no longer the name {name} (external_url, aliases); `pierhead reload` takes it all the same"
    )]
    Lost { file: String, name: String },
}

impl Unfit {
    fn is_absence(&self) -> bool {
        matches!(self, Self::Unusable(error) if error.is_absence())
    }

    /// When it may have become good without a change, in seconds since 1970.
    fn again(&self) -> Option<i64> {
        match self {
            Self::Invalid(Remark::NotYetValid { at, .. }) => Some(*at),
            _ => None,
        }
    }
}

impl Watch {
    /// Begins with what is shown: says what is wrong with it, and which files are out of sight for the user that we are
    /// by now, `who`.
    pub fn new(shown: Vec<Shown>, metrics: Metrics, who: &str, now: SystemTime) -> Self {
        let mut places: Vec<Place> = shown.iter().flat_map(Place::of).collect();
        places.iter_mut().for_each(|place| place.say_what_is_out_of_sight(who));
        let board = Board { refused: Mutex::new(vec![None; places.len()]), shown };
        let watch = Self { board: Arc::new(board), places, metrics, said: Instant::now() };
        watch.say(now);
        watch.measure();
        watch
    }

    /// What can be seen of it from now on.
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Looks for ever.
    pub async fn keep(mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let looked = tokio::task::spawn_blocking(move || {
                self.look(SystemTime::now(), Instant::now());
                self
            });
            match patience::look("the files of certificates", looked).await {
                Ok(watch) => self = watch,
                Err(error) => return tracing::error!(%error, "the files of certificates are no longer watched"),
            }
        }
    }

    fn look(&mut self, now: SystemTime, tick: Instant) {
        let mut changed = false;
        for (number, place) in self.places.iter_mut().enumerate() {
            match place.look(local::seconds(now), tick) {
                Looked::AsBefore => {}
                Looked::Whole { new } => {
                    self.board.refused.lock()[number] = None;
                    changed |= new;
                }
                Looked::Refused(why) => {
                    let reason = why.to_string();
                    tracing::error!("a changed certificate is not shown, the one before stays: {reason}");
                    let at = Timestamp::try_from(now).unwrap_or_default();
                    self.board.refused.lock()[number] = Some(Refused { at, reason });
                }
            }
        }
        if changed {
            self.measure();
        }
        if changed || tick.saturating_duration_since(self.said) >= REPEAT {
            self.said = tick;
            self.renew(now);
            self.say(now);
        }
    }

    /// Certificates of our own authority are made anew in time. That they changed is seen as with all others.
    fn renew(&self, now: SystemTime) {
        for local in self.board.shown.iter().filter_map(|shown| shown.local.as_ref()) {
            if let Err(error) = local::ensure(local, now) {
                tracing::error!("the certificate of the local authority cannot be made anew: {error}");
            }
        }
    }

    fn say(&self, now: SystemTime) {
        for remark in self.board.shown.iter().flat_map(|shown| shown.remarks(now)) {
            if remark.is_grave() { tracing::error!("{remark}") } else { tracing::warn!("{remark}") }
        }
    }

    fn measure(&self) {
        let shown = self.board.shown.iter().flat_map(|shown| Vec::clone(&shown.certificates.pairs()));
        // What stands in for an ordered certificate says nothing about that one.
        let shown = shown.filter(|pair| !pair.stands_in);
        let expiry = |pair: Arc<Pair>| (pair.files.certificate.display().to_string(), pair.leaf().not_after);
        self.metrics.certificates(shown.map(expiry).collect());
    }
}

impl Board {
    /// What is shown now, and what was refused.
    pub fn status(&self, now: SystemTime) -> Vec<Status> {
        let shown = self.shown.iter().flat_map(|shown| Status::of(shown, now));
        let refused = self.refused.lock();
        shown.zip(refused.iter()).map(|(status, refused)| Status { refused: refused.clone(), ..status }).collect()
    }
}

/// What came of a look.
#[derive(Debug)]
enum Looked {
    AsBefore,
    /// The files are good.
    Whole {
        /// Whether something else is shown now.
        new: bool,
    },
    /// They are not, for too long.
    Refused(Unfit),
}

impl Place {
    /// Every place of these certificates.
    fn of(shown: &Shown) -> Vec<Self> {
        let place = |(number, pair): (usize, &Arc<Pair>)| Self {
            shown: shown.clone(),
            number,
            files: pair.files.clone(),
            seen: pair.stamps.clone(),
            unsure: None,
            bad: None,
            refused: false,
            again: None,
        };
        shown.certificates.pairs().iter().enumerate().map(place).collect()
    }

    /// Files that only root may read were read when we were root. Now we cannot, or do not even see that they change.
    fn say_what_is_out_of_sight(&mut self, who: &str) {
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        for path in paths(&self.files).filter(|path| File::open(path).is_err_and(|error| denied(&error))) {
            let path = path.display();
            tracing::warn!(
                "{path} was read by root, and the server is user {who} by now, who may not: when the file changes, \
                 restart the server, or give {who} the right to read it"
            );
        }
        let now = stamps(&self.files);
        if now.contains(&Err(io::ErrorKind::PermissionDenied)) {
            self.seen = now;
        }
    }

    fn look(&mut self, now: i64, tick: Instant) -> Looked {
        let stamps = stamps(&self.files);
        let mut changed = stamps != self.seen;
        changed |= self.again.is_some_and(|at| now >= at);
        if !changed && self.unsure.is_none_or(|until| tick >= until) {
            (self.unsure, self.bad) = (None, None);
            return Looked::AsBefore;
        }
        match self.read(now) {
            Ok(pair) => {
                let was_refused = std::mem::take(&mut self.refused);
                self.settle(stamps, changed, tick);
                let before = Arc::clone(&self.shown.certificates.pairs()[self.number]);
                if pair.shows_the_same(&before) {
                    return if was_refused { Looked::Whole { new: false } } else { Looked::AsBefore };
                }
                let until = pair.leaf().not_after;
                self.shown.certificates.replace(self.number, pair);
                let file = self.files.certificate.display();
                tracing::info!("the certificate {file} changed and is shown now, good until {}", remark::time(until));
                Looked::Whole { new: true }
            }
            Err(_) if !changed && self.refused => Looked::AsBefore, // it was said
            Err(why) if why.is_absence() && self.shown.certificates.ordered(self.number).is_some() => {
                self.settle(stamps, changed, tick); // whoever orders certificates sees it too
                Looked::AsBefore
            }
            Err(why) => {
                let since = *self.bad.get_or_insert(tick);
                if tick.saturating_duration_since(since) < GRACE {
                    return Looked::AsBefore;
                }
                self.settle(stamps, changed, tick);
                (self.refused, self.again) = (true, why.again());
                Looked::Refused(why)
            }
        }
    }

    /// They are decided about.
    fn settle(&mut self, stamps: Vec<Stamp>, changed: bool, tick: Instant) {
        (self.seen, self.bad, self.again) = (stamps, None, None);
        if changed {
            self.unsure = Some(tick + SURE);
        }
    }

    /// Reads what may be shown in place of what is.
    fn read(&self, now: i64) -> Result<Pair, Unfit> {
        let pair = files::read(&self.files)?;
        if let Some(remark) = remark::validity(&pair, now) {
            return Err(Unfit::Invalid(remark));
        }
        let before = self.shown.certificates.pairs();
        // What stands in for others has all names, and clients trust none of them.
        let real = || before.iter().enumerate().filter(|(_, pair)| !pair.stands_in);
        let missing = self.shown.uncovered(real().map(|(_, pair)| pair.leaf()));
        let others = real().filter(|(number, _)| *number != self.number).map(|(_, other)| other.leaf());
        let after = others.chain([pair.leaf()]);
        match self.shown.uncovered(after).into_iter().find(|name| !missing.contains(name)) {
            Some(name) => Err(Unfit::Lost { file: self.files.certificate.display().to_string(), name }),
            None => Ok(pair),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::testing::{self, Authority, DAY, now, put};
    use super::super::{Certificates, acme};
    use super::*;
    use crate::telemetry::Exposition;

    /// Somebody who watches a pair, and a clock.
    struct Post {
        watch: Watch,
        now: SystemTime,
        tick: Instant,
    }

    impl Post {
        fn new(files: &Files, names: &[&str]) -> Self {
            let certificates = Arc::new(Certificates::load(std::slice::from_ref(files)).unwrap());
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let shown = Shown { certificates, names, local: None };
            let watch = Watch::new(vec![shown], Metrics::default(), "nobody", now());
            Self { watch, now: now(), tick: Instant::now() }
        }

        /// A second later.
        fn look(&mut self) -> Status {
            self.now += LOOK;
            self.tick += LOOK;
            self.watch.look(self.now, self.tick);
            self.watch.board().status(self.now).remove(0)
        }

        /// So many seconds later.
        fn wait(&mut self, seconds: u32) -> Status {
            (1..seconds).for_each(|_| drop(self.look()));
            self.look()
        }
    }

    #[test]
    fn a_changed_pair_is_shown_and_measured() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let files = testing::write(folder.path(), &authority.whole(&["a.test"], 90));
        let mut post = Post::new(&files, &["a.test"]);
        let before = post.look();
        testing::write(folder.path(), &authority.whole(&["a.test", "b.test"], 120));
        let after = post.look();
        assert_eq!((before.names, after.names), (vec!["a.test".into()], vec!["a.test".into(), "b.test".into()]));
        assert_eq!(after.refused, None);
        let until = after.not_after.unwrap().as_second();
        let page = post.watch.metrics.page(Exposition::Prometheus);
        assert!(page.contains(&format!("a.crt\"}} {until}")), "{page}");
    }

    #[test]
    fn a_bad_pair_is_refused_once_with_the_reason_and_the_one_before_stays() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let good = authority.whole(&["a.test", "b.test"], 90);
        let files = testing::write(folder.path(), &good);
        let mut post = Post::new(&files, &["a.test", "c.test"]);
        let shown = post.look();
        let other = authority.whole(&["a.test"], 90);
        let [leaf, intermediate] = [authority.issue(&["a.test"], 90), (authority.intermediate.pem(), String::new())];
        for (bad, reason) in [
            ((good.0.clone(), other.1.clone()), "does not belong to the certificate"),
            ((intermediate.0 + &leaf.0, leaf.1.clone()), "is out of order"),
            (authority.whole(&["a.test"], 9), "expired at"),
            (authority.issue_from(&["a.test"], now() + DAY, 90), "is not valid before"),
            (authority.whole(&["b.test"], 90), "carries no longer the name a.test"),
            ((String::new(), other.1.clone()), "holds no certificate in PEM form"),
            ((good.0.clone(), good.0.clone()), "holds no private key in PEM form"),
        ] {
            testing::write(folder.path(), &bad);
            let in_time = post.wait(2);
            let refused = post.wait(1).refused.unwrap_or_else(|| panic!("{reason}"));
            assert!(refused.reason.contains(reason), "{reason}: {}", refused.reason);
            assert!(in_time.refused.is_none_or(|before| before.at != refused.at));
            let later = post.wait(10);
            assert_eq!((later.refused.as_ref(), &later.not_after), (Some(&refused), &shown.not_after), "said once");
        }
        std::fs::remove_file(&files.key).unwrap();
        assert!(post.wait(3).refused.unwrap().reason.contains("cannot read"));
        testing::write(folder.path(), &good);
        assert_eq!(post.look(), Status { days_left: post.look().days_left, ..shown });
        testing::write(folder.path(), &other);
        assert_eq!(post.look().names, ["a.test"], "that c.test is missing is not new");
    }

    #[test]
    fn a_pair_that_is_whole_again_in_time_was_never_wrong() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let files = testing::write(folder.path(), &authority.whole(&["a.test"], 90));
        let mut post = Post::new(&files, &["a.test"]);
        for names in [["a.test", "b.test"], ["a.test", "c.test"]] {
            let (certificate, key) = authority.whole(&names, 90);
            put(&files.certificate, &certificate);
            let half = post.wait(2);
            assert!(half.refused.is_none() && half.names != names);
            put(&files.key, &key);
            let whole = post.look();
            assert!(whole.refused.is_none() && whole.names == names);
        }
    }

    #[test]
    fn what_is_not_yet_valid_is_shown_when_it_is() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let files = testing::write(folder.path(), &authority.whole(&["a.test"], 90));
        let mut post = Post::new(&files, &["a.test"]);
        testing::write(folder.path(), &authority.issue_from(&["a.test", "b.test"], now() + DAY, 90));
        assert!(post.wait(3).refused.is_some());
        post.now += DAY;
        let later = post.wait(1);
        assert!(later.refused.is_none() && later.names.len() == 2);
    }

    #[test]
    fn the_certificate_of_the_local_authority_is_made_anew_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let names = vec!["localhost".to_owned()];
        let local = super::super::Local { directory: folder.path().to_owned(), names };
        let files = local::ensure(&local, now()).unwrap().server;
        let certificates = Arc::new(Certificates::load(&[files]).unwrap());
        let shown = Shown { certificates, names: Vec::new(), local: Some(local) };
        let watch = Watch::new(vec![shown], Metrics::default(), "nobody", now());
        let mut post = Post { watch, now: now(), tick: Instant::now() };
        let first = post.look();
        (post.now, post.tick) = (now() + 780 * DAY, post.tick + REPEAT);
        assert_eq!(post.look().not_after, first.not_after);
        assert!(post.look().days_left > 800);
    }

    #[test]
    fn an_ordered_certificate_takes_its_place_when_it_is_there_and_is_never_replaced_by_a_worse_one() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let local = super::super::Local {
            directory: folder.path().join("local"),
            names: vec!["a.test".to_owned(), "b.test".to_owned()],
        };
        let stand_in = local::ensure(&local, now()).unwrap().server;
        let place = acme::Place::of_tests(folder.path(), &["a.test"]);
        let files = testing::write(folder.path(), &authority.whole(&["c.test"], 90));
        let certificates =
            Certificates::load(&[files]).unwrap().with_ordered(vec![place.clone()], &[], &stand_in, now()).unwrap();
        let names = ["a.test", "b.test", "c.test"].map(str::to_owned).to_vec();
        let shown = Shown { certificates: Arc::new(certificates), names, local: None };
        let remarks = || shown.remarks(now()).iter().map(Remark::to_string).collect::<Vec<_>>().join("\n");
        assert!(
            remarks().contains("there is no certificate for a.test from https://ca.test/directory yet"),
            "{}",
            remarks()
        );
        let metrics = Metrics::default();
        let watch = Watch::new(vec![shown.clone()], metrics.clone(), "nobody", now());
        let mut post = Post { watch, now: now(), tick: Instant::now() };
        let counted = || metrics.page(crate::telemetry::Exposition::Prometheus).contains("ordered.pem");
        assert!(!counted(), "what stands in has another's expiry");
        let mut ordered = |seconds| {
            post.wait(seconds);
            post.watch.board.status(post.now).remove(1)
        };
        let file = place.pem.display().to_string();
        let before = ordered(10);
        assert!(before.file == file && before.refused.is_none() && before.issuer.contains("local authority"));
        let put_pair = |(certificate, key): (String, String)| put(&place.pem, &format!("{key}{certificate}"));
        put_pair(authority.whole(&["a.test"], 90));
        assert_eq!(ordered(1).names, ["a.test"], "b.test, which only the stand-in has, holds up nothing");
        assert!(!remarks().contains("local authority") && remarks().contains("b.test"), "{}", remarks());
        assert!(counted());
        for worse in [authority.whole(&["a.test"], 9), authority.whole(&["x.test"], 90)] {
            put_pair(worse);
            let refused = ordered(4);
            assert!(refused.refused.is_some() && refused.names == ["a.test"]);
        }
        std::fs::remove_file(&place.pem).unwrap();
        assert_eq!(ordered(4).names, ["a.test"]);
        put_pair(authority.whole(&["a.test", "b.test"], 90));
        let last = ordered(1);
        assert!(last.refused.is_none() && last.names == ["a.test", "b.test"]);
        let late = shown.remarks(now() + 70 * DAY).iter().any(|remark| matches!(remark, Remark::RenewalOverdue { .. }));
        assert!(late && !remarks().contains("expires"));
    }

    #[test]
    fn a_link_that_is_turned_is_a_change() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let data = |number: u32| folder.path().join(format!("..{number}"));
        let files = Files::new(folder.path().join("a.crt"), folder.path().join("a.key"));
        for (number, names) in [(1, &["a.test"][..]), (2, &["a.test", "b.test"])] {
            std::fs::create_dir(data(number)).unwrap();
            testing::write(&data(number), &authority.whole(names, 90));
        }
        // As a volume of Kubernetes has it.
        symlink("..1", folder.path().join("..data")).unwrap();
        symlink("..data/a.crt", &files.certificate).unwrap();
        symlink("..data/a.key", &files.key).unwrap();
        let mut post = Post::new(&files, &["a.test"]);
        assert_eq!(post.look().names, ["a.test"]);
        symlink("..2", folder.path().join("..data_tmp")).unwrap();
        crate::storage::durable::rename(&folder.path().join("..data_tmp"), &folder.path().join("..data")).unwrap();
        assert_eq!(post.look().names, ["a.test", "b.test"]);
    }
}
