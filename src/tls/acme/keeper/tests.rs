//! An authority that does as it is told, and a clock that goes when nobody has anything to do.
//!
//! ```text
//! here      when there is an order, and what becomes of one
//! budget    how many there are, whatever happens
//! folder    the storage folder: one that cannot be written, that hangs, that lacks something
//! ```

mod budget;
mod folder;

use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use async_trait::async_trait;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::storage::durable;
use crate::tls::acme::order::{Issued, Kind, Proof, Wanted, Window};
use crate::tls::acme::{Challenge, LETS_ENCRYPT_STAGING};
use crate::tls::testing::{self, DAY, now};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// What the authority does with an order.
#[derive(Debug, Clone)]
enum Deed {
    Issue {
        life: Duration,
    },
    IssueFor(&'static str),
    Fail(Kind),
    Hang,
    PresentAndHang,
    Panic,
    IssueAfter(Duration),
    /// Somebody puts a file where a folder should be.
    IssueAndOccupy(PathBuf),
}

struct Fake {
    ca: testing::Authority,
    deeds: Mutex<VecDeque<Deed>>,
    /// Then always.
    usual: Mutex<Deed>,
    window: Mutex<Option<Window>>,
    /// Never says when to renew.
    mute: std::sync::atomic::AtomicBool,
    /// When, which names and how.
    orders: Mutex<Vec<(Duration, Vec<String>, Challenge)>>,
    start: Instant,
}

impl Fake {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            ca: testing::Authority::new(),
            deeds: Mutex::default(),
            usual: Mutex::new(Deed::Issue { life: 90 * DAY }),
            window: Mutex::default(),
            mute: Default::default(),
            orders: Mutex::default(),
            start: Instant::now(),
        })
    }

    fn will(self: &Arc<Self>, deeds: impl IntoIterator<Item = Deed>) -> Arc<Self> {
        self.deeds.lock().extend(deeds);
        Arc::clone(self)
    }

    fn always(self: &Arc<Self>, deed: Deed) -> Arc<Self> {
        *self.usual.lock() = deed;
        Arc::clone(self)
    }

    fn time(&self) -> SystemTime {
        now() + self.start.elapsed()
    }

    fn issue(&self, names: &[String], life: Duration) -> Issued {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (certificate, key) = self.ca.issue_for(&names, self.time(), life);
        Issued { chain: certificate + &self.ca.intermediate.pem(), key }
    }

    fn times(&self) -> Vec<u64> {
        self.orders.lock().iter().map(|order| order.0.as_secs()).collect()
    }
}

#[async_trait]
impl Authority for Fake {
    async fn order(&self, wanted: &Wanted<'_>, proofs: &Arc<dyn Proofs>) -> Result<Issued, Failure> {
        self.orders.lock().push((self.start.elapsed(), wanted.names.to_vec(), wanted.ways[0]));
        let deed = self.deeds.lock().pop_front().unwrap_or_else(|| self.usual.lock().clone());
        match deed {
            Deed::Issue { life } => Ok(self.issue(wanted.names, life)),
            Deed::IssueFor(name) => Ok(self.issue(&[name.to_owned()], 90 * DAY)),
            Deed::IssueAfter(pause) => {
                tokio::time::sleep(pause).await;
                Ok(self.issue(wanted.names, 90 * DAY))
            }
            Deed::IssueAndOccupy(path) => {
                durable::write(&path, b"no folder", durable::SECRET).unwrap();
                Ok(self.issue(wanted.names, 90 * DAY))
            }
            Deed::Fail(kind) => Err(Failure::new(kind, format!("{kind:?} in the test"))),
            Deed::Hang => std::future::pending().await,
            Deed::PresentAndHang => {
                let [name, token, key_authorization] = ["a.test", "token", "token.thumb"].map(str::to_owned);
                proofs.present(&Proof { by: wanted.ways[0], name, token, key_authorization }).await?;
                std::future::pending().await
            }
            Deed::Panic => panic!("a fault in the test"),
        }
    }

    async fn renewal(&self, _certificate: &CertificateDer<'_>) -> Result<Option<Window>, Failure> {
        if self.mute.load(std::sync::atomic::Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        Ok(*self.window.lock())
    }
}

struct NoProofs;

#[async_trait]
impl Proofs for NoProofs {
    async fn present(&self, _proof: &Proof) -> Result<(), Failure> {
        Ok(())
    }

    async fn withdraw(&self, _proof: &Proof) {}
}

fn config(storage: &Path, certificates: &[&[&str]]) -> Config {
    let names = |names: &&[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Config {
        directory: LETS_ENCRYPT_STAGING.to_owned(),
        ca: None,
        contact: Vec::new(),
        challenges: vec![Challenge::TlsAlpn01, Challenge::Http01],
        certificates: certificates.iter().map(names).collect(),
        account: None,
        profile: None,
        webroot: None,
        dns: None,
        storage: storage.to_owned(),
    }
}

/// A keeper at work.
struct Node {
    orders: Orders,
    metrics: Metrics,
    task: JoinHandle<()>,
    fake: Arc<Fake>,
}

impl Node {
    fn start(config: Config, fake: &Arc<Fake>) -> Self {
        Self::with(config, fake, Arc::new(NoProofs))
    }

    fn with(config: Config, fake: &Arc<Fake>, proofs: Arc<dyn Proofs>) -> Self {
        let (metrics, of_orders, of_time) = (Metrics::default(), Arc::clone(fake), Arc::clone(fake));
        let connect: Connect = Box::new(move |_, _| Ok(Arc::clone(&of_orders) as Arc<dyn Authority>));
        let clock: Clock = Box::new(move || of_time.time());
        let keeper = Keeper::with(config, connect, proofs, metrics.clone(), clock);
        Self { orders: keeper.orders(), metrics, task: tokio::spawn(keeper.keep()), fake: Arc::clone(fake) }
    }

    fn status(&self) -> Vec<Status> {
        self.orders.status(self.fake.time()).into_iter().map(|(_, status)| status).collect()
    }

    /// Waits until something is so.
    async fn until(&self, is_so: impl Fn(&[Status]) -> bool) {
        for step in 0..100_000 {
            if is_so(&self.status()) {
                return;
            }
            tokio::time::sleep(Duration::from_secs(if step < 1000 { 1 } else { 60 })).await;
        }
        panic!("it never came to be: {:#?}", self.status());
    }

    async fn until_orders(&self, count: usize) {
        self.until(|_| self.fake.orders.lock().len() >= count).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_ordered_at_first_and_renewed_when_it_is_due() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("acme");
    let fake = Fake::new().always(Deed::Issue { life: 4 * HOUR });
    let node = Node::start(config(&storage, &[&["a.test", "b.test"], &["*.a.test"]]), &fake);
    node.until(|status| status[0].ordered.is_some()).await;
    let pem = storage.join("certificates/a.test.pem");
    assert_eq!((mode(&pem), mode(&storage), mode(pem.parent().unwrap())), (0o600, 0o700, 0o700));
    let read = crate::tls::Certificates::load(&[tls::Files::new(pem.clone(), pem)]);
    assert!(read.is_ok(), "it can be shown");
    let next = node.status()[0].next.unwrap();
    node.until_orders(2).await;
    let at = fake.times()[1];
    assert!((7200..7200 + 120).contains(&at), "at half of a short life: {at} {next}");
    let keys: Vec<_> = storage.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    let key = keys.iter().find(|path| path.extension().is_some_and(|end| end == "key")).unwrap();
    assert_eq!(mode(key), 0o600);
    let wildcard = &node.status()[1];
    assert!(wildcard.error.as_ref().unwrap().reason.contains("dns-01"), "and holds up nobody: {wildcard:?}");
}

#[tokio::test(start_paused = true)]
async fn failures_are_kept_over_a_restart_and_seen_and_end_with_a_success() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new().will([Deed::Fail(Kind::Refused), Deed::Fail(Kind::Refused)]);
    let settings = config(folder.path(), &[&["a.test"]]);
    let node = Node::start(settings.clone(), &fake);
    node.until(|status| status[0].failures == 1).await;
    let page = node.metrics.page(crate::telemetry::Exposition::Prometheus);
    for line in
        ["pierhead_acme_orders_total{outcome=\"refused\"} 1", "pierhead_acme_failures{certificate=\"a.test\"} 1"]
    {
        assert!(page.contains(line), "{page}");
    }
    drop(node);
    let node = Node::start(settings, &fake);
    node.until_orders(3).await;
    let times = fake.times();
    let hours: Vec<u64> = times.windows(2).map(|pair| (pair[1] - pair[0]) / 3600).collect();
    assert_eq!(hours, [1, 2]);
    node.until(|status| status[0].failures == 0 && status[0].ordered.is_some()).await;
    assert!(node.status()[0].error.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_tried_at_once_with_settings_that_have_not_failed_yet() {
    let (folder, key) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let fake = Fake::new().always(Deed::Fail(Kind::Refused));
    let plain = config(folder.path(), &[&["a.test"]]);
    let account = crate::tls::acme::ExternalAccount { id: "us".to_owned(), key: key.path().to_owned() };
    let bound = Config { account: Some(account), ..plain.clone() };
    let mut count = 0;
    let mut tried = async |settings: &Config| {
        let node = Node::start(settings.clone(), &fake);
        node.until(|status| status[0].failures > 0 && status[0].since.is_none()).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        let before = std::mem::replace(&mut count, fake.orders.lock().len());
        count - before
    };
    assert_eq!((tried(&plain).await, tried(&plain).await), (1, 0));
    assert_eq!((tried(&bound).await, tried(&bound).await), (1, 0));
    assert_eq!(tried(&plain).await, 0, "nodes that differ do not begin anew because of each other");
    durable::write(key.path(), b"another", durable::SECRET).unwrap();
    assert_eq!((tried(&bound).await, tried(&bound).await), (1, 0), "another key in the same file");
    fake.always(Deed::Fail(Kind::Validation));
    assert_eq!(tried(&Config { profile: Some("short".to_owned()), ..plain.clone() }).await, 2, "both ways");
    assert_eq!(tried(&Config { profile: Some("other".to_owned()), ..plain }).await, 0, "settings prove no names");
}

#[tokio::test(start_paused = true)]
async fn what_hangs_or_panics_or_is_not_what_was_ordered_is_a_failure() {
    for (deed, said) in [
        (Deed::Hang, "given up after 900 s"),
        (Deed::Panic, "a fault of this program"),
        (Deed::IssueFor("b.test"), "does not carry the name a.test"),
        (Deed::Issue { life: Duration::ZERO }, "it expired at"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let fake = Fake::new().will([deed]);
        let node = Node::start(config(folder.path(), &[&["a.test"], &["c.test"]]), &fake);
        node.until(|status| status.iter().any(|status| status.error.is_some())).await;
        let reasons: Vec<_> = node.status().into_iter().filter_map(|status| status.error).collect();
        assert!(reasons.iter().any(|error| error.reason.contains(said)) || said.contains("a.test"), "{reasons:?}");
        assert!(node.status().iter().any(|status| status.ordered.is_some()), "the other is there");
        node.until(|status| status.iter().all(|status| status.ordered.is_some())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_that_is_cut_off_before_anything_could_be_looked_at_is_no_failed_proof() {
    for (deed, count) in [(Deed::Hang, 0), (Deed::Panic, 0), (Deed::PresentAndHang, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let fake = Fake::new().will([deed.clone()]);
        let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
        node.until(|status| status[0].failures == 1).await;
        let tried = std::fs::read_to_string(folder.path().join("attempts/a.test.json")).unwrap();
        let tried: serde_json::Value = serde_json::from_str(&tried).unwrap();
        assert_eq!(tried["failed_proofs"].as_array().map(Vec::len), Some(count), "{deed:?}: {tried}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_life_is_renewed_in_time_whatever_happens_for_half_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let life = Duration::from_secs(120);
    let fake = Fake::new().always(Deed::Issue { life });
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    node.until(|status| status[0].ordered.is_some()).await;
    let first = node.status()[0].ordered.unwrap();
    fake.always(Deed::Hang);
    node.until(|status| status[0].failures > 0).await;
    fake.always(Deed::Issue { life });
    node.until(|status| status[0].ordered.unwrap() > first).await;
    let took = node.status()[0].ordered.unwrap().duration_since(first);
    assert!(took.as_secs() < 90, "{took}");
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_one_orders_and_both_know() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new().always(Deed::IssueAfter(Duration::from_secs(200)));
    let settings = config(folder.path(), &[&["a.test"]]);
    let (one, other) = (Node::start(settings.clone(), &fake), Node::start(settings, &fake));
    for node in [&one, &other] {
        node.until(|status| status[0].ordered.is_some()).await;
    }
    assert_eq!(fake.times().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_node_takes_over_from_one_that_ended() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new().will([Deed::Hang]);
    let settings = config(folder.path(), &[&["a.test"]]);
    let one = Node::start(settings.clone(), &fake);
    one.until_orders(1).await;
    let other = Node::start(settings, &fake);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(other.status()[0].since.is_some(), "it sees the attempt");
    drop(one);
    other.until(|status| status[0].ordered.is_some()).await;
    assert!(fake.times()[1] < 15, "{:?}", fake.times());
}

#[tokio::test(start_paused = true)]
async fn other_names_or_another_directory_are_ordered_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let before = config(folder.path(), &[&["a.test", "b.test"]]);
    let reordered = config(folder.path(), &[&["a.test", "b.test"]]);
    let more = config(folder.path(), &[&["a.test", "c.test"]]);
    let elsewhere = Config { directory: "https://ca.test/directory".to_owned(), ..more.clone() };
    for (number, (settings, orders)) in [(before, 1), (reordered, 1), (more, 2), (elsewhere, 3)].into_iter().enumerate()
    {
        let node = Node::start(settings, &fake);
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(fake.times().len(), orders, "{number}");
        assert!(node.status()[0].ordered.is_some() && node.status()[0].error.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn certificates_with_one_first_name_have_files_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let settings = config(folder.path(), &[&["a.test"], &["a.test", "b.test"], &["_.test"]]);
    let node = Node::start(settings.clone(), &fake);
    node.until(|status| status.iter().all(|status| status.ordered.is_some())).await;
    let mut files: Vec<_> = settings.places().into_iter().map(|place| place.pem).collect();
    files.dedup();
    assert_eq!((files.len(), fake.times().len()), (3, 3));
    assert!(files[0].ends_with("a.test.pem"));
}

#[tokio::test(start_paused = true)]
async fn the_authority_is_asked_when_to_renew() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new().always(Deed::Issue { life: 4 * HOUR });
    *fake.window.lock() = Some(Window { start: now() + HOUR, end: now() + HOUR + HOUR / 2 });
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    node.until_orders(2).await;
    let at = fake.times()[1];
    assert!((3600..5460).contains(&at), "{at}");
    tokio::time::sleep(HOUR).await;
    assert!(fake.times().len() <= 5, "the window of each new one is over, too: {:?}", fake.times());
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_does_not_say_when_to_renew_delays_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new().always(Deed::Issue { life: 4 * HOUR });
    fake.mute.store(true, std::sync::atomic::Ordering::Relaxed);
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    node.until_orders(3).await;
    for times in fake.times().windows(2) {
        assert!((7200..7200 + 120).contains(&(times[1] - times[0])), "at half of a short life: {times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_at_the_end_and_one_that_is_under_way_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new().always(Deed::IssueAfter(Duration::from_secs(200)));
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    node.until_orders(1).await;
    node.orders.begin_no_more();
    node.until(|status| status[0].ordered.is_some()).await;
    tokio::time::sleep(100 * DAY).await;
    assert_eq!(fake.times().len(), 1);
}
