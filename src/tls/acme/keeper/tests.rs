//! An authority that does as it is told, and a clock that goes when nobody has anything to do.

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
        let (metrics, of_orders, of_time) = (Metrics::default(), Arc::clone(fake), Arc::clone(fake));
        let connect: Connect = Box::new(move |_, _| Ok(Arc::clone(&of_orders) as Arc<dyn Authority>));
        let clock: Clock = Box::new(move || of_time.time());
        let keeper = Keeper::with(config, connect, Arc::new(NoProofs), metrics.clone(), clock);
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
async fn ways_to_prove_a_name_take_turns_within_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new().always(Deed::Fail(Kind::Validation));
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    node.until_orders(9).await;
    let orders = fake.orders.lock().clone();
    for five in orders.windows(5) {
        assert!(five[4].0 - five[0].0 > HOUR, "{orders:?}");
    }
    for two in orders.windows(2) {
        assert_ne!(two[0].2, two[1].2);
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
async fn an_order_is_made_when_somebody_asks_unless_the_budget_is_spent() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let node = Node::start(config(folder.path(), &[&["a.test", "b.test"]]), &fake);
    let ask = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        node.orders.order_now(&names, fake.time())
    };
    node.until(|status| status[0].ordered.is_some()).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let early = ask(&[]).unwrap_err().to_string();
    assert!(early.contains("issued within the last hour"), "{early}");
    tokio::time::sleep(HOUR).await;
    assert!(matches!(ask(&["c.test"]), Err(Refusal::Unknown { .. })));
    assert!(ask(&["B.test"]).unwrap()[0].ends_with("certificates/a.test.pem"));
    node.until_orders(2).await;
    tokio::time::sleep(HOUR + Duration::from_secs(10)).await;
    fake.always(Deed::Fail(Kind::Validation));
    for failures in 1..=4 {
        ask(&[]).unwrap();
        node.until(|status| status[0].failures == failures).await;
    }
    let refused = ask(&[]).unwrap_err().to_string();
    assert!(refused.contains("could not be proven 4 times within an hour"), "{refused}");
    assert!(node.status()[0].ordered.is_some());
    fake.always(Deed::Issue { life: 90 * DAY });
    tokio::time::sleep(HOUR + Duration::from_secs(120)).await;
    ask(&["a.test"]).unwrap();
    node.until(|status| status[0].failures == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_cannot_be_written_costs_no_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("acme");
    durable::write(&storage, b"no folder", durable::SECRET).unwrap();
    let fake = Fake::new();
    let node = Node::start(config(&storage, &[&["a.test"]]), &fake);
    node.until(|status| status[0].failures > 2).await;
    let said = node.status()[0].error.clone().unwrap().reason;
    assert!(said.contains("tls.acme.storage"), "{said}");
    assert_eq!(fake.times().len(), 0);
    std::fs::remove_file(&storage).unwrap();
    node.until(|status| status[0].ordered.is_some() && status[0].error.is_none()).await;
    assert_eq!(fake.times().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_issued_and_cannot_be_written_is_written_later_and_not_ordered_again() {
    let folder = tempfile::tempdir().unwrap();
    let occupied = folder.path().join("certificates");
    let fake = Fake::new().will([Deed::IssueAndOccupy(occupied.clone())]);
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    node.until(|status| status[0].error.is_some()).await;
    assert!(node.status()[0].error.as_ref().unwrap().reason.contains("a.test.pem"));
    let kept = std::fs::read_to_string(folder.path().join("attempts/a.test.json")).unwrap();
    let kept: super::super::history::History = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept.issued.len(), 1, "it counts before it is there: whoever crashes now has had it");
    std::fs::remove_file(&occupied).unwrap();
    node.until(|status| status[0].ordered.is_some() && status[0].error.is_none()).await;
    assert_eq!(fake.times().len(), 1);
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
async fn what_crashes_left_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let answers = folder.path().join("challenges/http-01");
    durable::make_dirs(&answers).unwrap();
    for name in ["old", "new"] {
        durable::write(&answers.join(name), b"answer", durable::SECRET).unwrap();
    }
    let age = |name: &str, at: SystemTime| {
        let file = std::fs::File::options().write(true).open(answers.join(name)).unwrap();
        file.set_modified(at).unwrap();
    };
    age("old", SystemTime::now() - 2 * DAY);
    age("new", SystemTime::now() - HOUR);
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &Fake::new());
    node.until(|status| status[0].ordered.is_some()).await;
    node.until(|_| !answers.join("old").exists()).await;
    assert!(answers.join("new").exists());
}

#[tokio::test(start_paused = true)]
async fn whoever_is_ended_in_the_middle_of_orders_stays_within_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new().always(Deed::Hang);
    for _ in 0..60 {
        let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
        tokio::time::sleep(Duration::from_secs(120)).await;
        drop(node);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let times = fake.times();
    assert!(times.len() >= 5, "{times:?}");
    assert!(times.windows(5).all(|five| five[4] - five[0] > HOUR.as_secs()), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_came_to_no_end_counts_also_when_the_next_cannot_begin() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let begun = crate::tls::local::seconds(fake.time()) - 60;
    let file = folder.path().join("attempts/a.test.json");
    durable::make_dirs(file.parent().unwrap()).unwrap();
    durable::write(&file, format!("{{ \"begun\": {begun} }}").as_bytes(), durable::SECRET).unwrap();
    durable::write(&folder.path().join("leases"), b"no folder", durable::SECRET).unwrap();
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    node.until(|status| status[0].failures == 1).await;
    let tried: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(tried["failed_proofs"].as_array().map(Vec::len), Some(1), "{tried}");
    assert!(tried["begun"].is_null() && fake.orders.lock().is_empty(), "{tried}");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_differ_and_fail_pause_all_the_same() {
    let limited = Kind::RateLimited(Some(HOUR));
    for (kind, most) in [(Kind::Validation, 4), (Kind::Refused, 2), (limited, 1), (Kind::Unreachable, 14)] {
        let folder = tempfile::tempdir().unwrap();
        let fake = Fake::new().always(Deed::Fail(kind));
        let _one = Node::start(config(folder.path(), &[&["a.test", "b.test"]]), &fake);
        let _other = Node::start(config(folder.path(), &[&["a.test", "c.test"]]), &fake);
        tokio::time::sleep(HOUR - Duration::from_secs(60)).await;
        let times = fake.times();
        assert!((1..=most).contains(&times.len()), "{kind:?}: {times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_orders_again_and_again_gets_a_few_and_none_while_the_authority_wants_none() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    let mut refused = Vec::new();
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        refused.extend(node.orders.order_now(&[], fake.time()).err().map(|refusal| refusal.to_string()));
    }
    assert_eq!(fake.times().len(), 4, "{:?}", fake.times());
    assert!(refused.last().unwrap().contains("4 were issued within a day"), "{refused:?}");
    tokio::time::sleep(24 * HOUR).await;
    fake.always(Deed::Fail(Kind::RateLimited(Some(24 * HOUR))));
    node.orders.order_now(&[], fake.time()).unwrap();
    node.until(|status| status[0].failures == 1).await;
    let limited = node.orders.order_now(&[], fake.time()).unwrap_err().to_string();
    assert!(limited.contains("wants to be left alone"), "{limited}");
}

#[tokio::test(start_paused = true)]
async fn an_account_whose_key_was_removed_is_made_anew_after_a_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new().will([Deed::Fail(Kind::Refused)]);
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    node.until(|status| status[0].failures == 1).await;
    let key = || {
        let files = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.extension().is_some_and(|end| end == "key"))
    };
    std::fs::remove_file(key().unwrap()).unwrap();
    node.orders.order_now(&[], fake.time()).unwrap();
    node.until(|status| status[0].ordered.is_some()).await;
    assert!(key().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_is_forgotten_once_something_newer_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, occupied) = (folder.path().join("acme"), folder.path().join("acme/certificates"));
    let fake = Fake::new().will([Deed::IssueAndOccupy(occupied.clone())]);
    let slow = Node::start(config(&storage, &[&["a.test"]]), &fake);
    slow.until(|status| status[0].failures >= 9).await; // its next attempt is far away
    std::fs::remove_file(&occupied).unwrap();
    let other = Node::start(config(&storage, &[&["a.test"]]), &fake);
    other.orders.order_now(&[], fake.time()).unwrap();
    other.until(|status| status[0].ordered.is_some()).await;
    drop(other);
    let orders = fake.times().len();
    slow.until(|status| status[0].ordered.is_some()).await;
    let first = slow.status()[0].ordered;
    slow.until(|status| status[0].ordered != first).await;
    assert_eq!(fake.times().len(), orders + 1, "the renewal is another one");
    let second = slow.status()[0].ordered.unwrap();
    assert!(second.duration_since(first.unwrap()).as_hours() > 24 * 50, "{first:?} {second}");
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

#[test]
fn a_folder_that_hangs_is_told_of_takes_few_threads_and_is_used_again_when_it_answers() {
    let threads = AT_FOLDER + 1;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).max_blocking_threads(threads).build().unwrap();
    for (part, end) in [("attempts", "json"), ("leases", "1")] {
        let folder = tempfile::tempdir().unwrap();
        durable::make_dirs(&folder.path().join(part)).unwrap();
        let names: Vec<String> = (0..threads).map(|number| format!("{number}.test")).collect();
        // Whoever opens one waits for somebody who writes.
        let hanging: Vec<PathBuf> =
            names.iter().map(|name| folder.path().join(part).join(format!("{name}.{end}"))).collect();
        assert!(std::process::Command::new("mkfifo").args(&hanging).status().unwrap().success());
        runtime.block_on(async {
            let fake = Fake::new();
            let names: Vec<[&str; 1]> = names.iter().map(|name| [name.as_str()]).collect();
            let certificates: Vec<&[&str]> = names.iter().map(|name| &name[..]).collect();
            let node = Node::start(config(folder.path(), &certificates), &fake);
            let is_said = |status: &Status| {
                let said = status.error.as_ref().map_or("", |error| error.reason.as_str());
                said.contains("has not answered for 30 s") && said.contains("tls.acme.storage")
            };
            let began = std::time::Instant::now();
            // Whoever has the ninth's turn to order is told of, not the ninth.
            while node.status().iter().filter(|status| is_said(status)).count() < AT_FOLDER {
                tokio::time::advance(Duration::from_secs(1)).await; // it does not go by itself while a thread hangs
                assert!(began.elapsed() < Duration::from_secs(60), "{part}: {:#?}", node.status());
            }
            assert!(node.metrics.page(crate::telemetry::Exposition::Prometheus).contains("pierhead_acme_failures"));
            assert_eq!(tokio::task::spawn_blocking(|| "a thread for others").await.unwrap(), "a thread for others");
            for file in &hanging {
                let answer = std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
                std::fs::remove_file(file).unwrap();
                drop(answer);
            }
            node.until(|status| status.iter().all(|status| status.ordered.is_some() && status.error.is_none())).await;
            assert_eq!(fake.orders.lock().len(), threads, "one for each");
        });
    }
}
