//! What goes on in the background: checks, and names that move.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::super::super::PathPrefix;
use super::super::resolve::Lookup;
use super::peers::{Answering, Authority};
use super::*;
use crate::telemetry::{Exposition, Metrics};

const SOON: Duration = Duration::from_millis(20);

fn checked(upstream: Upstream) -> Upstream {
    let health = Health {
        path: PathPrefix::new("/v2/").unwrap(),
        interval: SOON,
        timeout: 10 * SOON,
        unhealthy: some(2),
        healthy: some(2),
        status: vec![StatusCode::OK, StatusCode::UNAUTHORIZED],
    };
    Upstream { health: Some(health), ..upstream }
}

/// Waits until it is so.
async fn until(what: &str, so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(SOON / 4).await;
        }
    };
    assert!(tokio::time::timeout(60 * SECOND, waiting).await.is_ok(), "{what}");
}

fn ready(upstreams: &Upstreams) -> bool {
    upstreams.unready(&["registry".into()]).is_none()
}

#[tokio::test]
async fn a_peer_that_answers_badly_or_not_at_all_is_not_well_until_it_answers_again() {
    crate::tls::install_provider();
    let peer = Answering::default();
    let port = peer.serve(None).await;
    let upstreams = upstreams(&checked(upstream(&[&format!("http://127.0.0.1:{port}")])), None);
    let unready = || upstreams.unready(&["registry".into()]).unwrap();
    assert_eq!(unready(), "upstream registry: no peer has answered yet");
    assert!(upstreams.unready(&[]).is_none(), "nobody needs it");
    upstreams.tend();
    until("checks", || peer.requests.load(Ordering::Relaxed) > 3).await;
    until("401 is a healthy registry", || ready(&upstreams)).await;
    peer.status.store(503, Ordering::Relaxed);
    until("503", || !ready(&upstreams)).await;
    assert_eq!(unready(), "upstream registry: no peer is well");
    assert!(upstreams.get("registry").unwrap().pick(None, &[]).await.is_some(), "better a bad peer than none");
    peer.status.store(200, Ordering::Relaxed);
    until("200", || ready(&upstreams)).await;
    peer.hung.store(true, Ordering::Relaxed);
    until("hung", || !ready(&upstreams)).await;
    peer.hung.store(false, Ordering::Relaxed);
    until("again", || ready(&upstreams)).await;
}

#[tokio::test]
async fn checks_verify_whom_they_ask() {
    crate::tls::install_provider();
    let (ours, strange) = (Authority::new(), Authority::new());
    let port = Answering::default().serve(Some(ours.server("127.0.0.1", None))).await;
    let of = |authority: &Authority| {
        let tls = UpstreamTls { ca: Some(authority.certificate()), ..UpstreamTls::default() };
        let upstream = Upstream { tls, ..upstream(&[&format!("https://127.0.0.1:{port}")]) };
        let made = upstreams(&checked(upstream), None);
        made.tend();
        made
    };
    let (good, bad) = (of(&ours), of(&strange));
    until("one of ours", || ready(&good)).await;
    let unready = || bad.unready(&["registry".into()]).unwrap_or_default();
    until("a stranger", || unready().ends_with("no peer is well")).await;
}

#[tokio::test]
async fn checks_call_a_peer_what_clients_call_it() {
    crate::tls::install_provider();
    let peer = Answering::default();
    let port = peer.serve(None).await;
    for (host, name) in [(HostSent::Client, "hub.test:5050".to_owned()), (HostSent::Peer, format!("127.0.0.1:{port}"))]
    {
        let upstream = Upstream { host, ..upstream(&[&format!("http://127.0.0.1:{port}")]) };
        let upstreams = upstreams(&checked(upstream), None);
        upstreams.tend();
        let said = |line: &str| peer.head.lock().lines().any(|said| said == line);
        until(&name, || said(&format!("Host: {name}"))).await;
        assert!(said("GET /v2/ HTTP/1.1") && said("X-Forwarded-Proto: https"), "{:?}", peer.head);
    }
}

#[tokio::test]
async fn checks_end_with_whoever_has_the_pool() {
    crate::tls::install_provider();
    let peer = Answering::default();
    let port = peer.serve(None).await;
    let upstreams = upstreams(&checked(upstream(&[&format!("http://127.0.0.1:{port}")])), None);
    upstreams.tend();
    upstreams.tend();
    let pool = upstreams.get("registry").unwrap();
    let (running, pool) = (pool.pick(None, &[]).await.unwrap(), Arc::downgrade(pool));
    drop(upstreams);
    drop(running);
    until("gone", || pool.strong_count() == 0).await;
}

#[tokio::test]
async fn what_monitoring_sees() {
    crate::tls::install_provider();
    let peer = Answering::default();
    let port = peer.serve(None).await;
    let upstream = checked(upstream(&[&format!("http://127.0.0.1:{port}"), "http://127.0.0.1:1"]));
    let (upstreams, metrics) = (upstreams(&upstream, None), Metrics::default());
    upstreams.report_to(&metrics);
    upstreams.tend();
    let running = upstreams.get("registry").unwrap().pick(None, &[]).await.unwrap();
    let good = format!("{{upstream=\"registry\",peer=\"http://127.0.0.1:{port}\",address=\"127.0.0.1:{port}\"}}");
    let bad = "{upstream=\"registry\",peer=\"http://127.0.0.1:1\",address=\"127.0.0.1:1\"}";
    let has = |line: String| metrics.page(Exposition::Prometheus).lines().any(|written| written == line);
    until("a peer that is not well", || has(format!("pierhead_upstream_peer_up{bad} 0"))).await;
    assert!(has(format!("pierhead_upstream_peer_up{good} 1")));
    assert!(has(format!("pierhead_upstream_requests_running{good} 1")));
    assert!(has(format!("pierhead_upstream_ejections_total{good} 0")));
    assert!(has(format!("pierhead_upstream_checks_passed_total{bad} 0")));
    assert!(!has(format!("pierhead_upstream_checks_failed_total{bad} 0")));
    drop(running);
    drop(upstreams);
    until("nothing of them", || !metrics.page(Exposition::Prometheus).contains("pierhead_upstream")).await;
}

/// A resolver of the test's own.
#[derive(Debug, Default)]
struct Names {
    known: Mutex<BTreeMap<String, Vec<SocketAddr>>>,
    asked: AtomicUsize,
    /// How often for this machine.
    here: AtomicUsize,
}

impl Lookup for Names {
    fn addresses<'l>(&'l self, host: &'l str, _: u16) -> BoxFuture<'l, io::Result<Vec<SocketAddr>>> {
        let asked = if host == "localhost" { &self.here } else { &self.asked };
        asked.fetch_add(1, Ordering::Relaxed);
        let found = self.known.lock().get(host).cloned();
        async move { found.ok_or_else(|| io::Error::other("no such name")) }.boxed()
    }
}

fn named(names: &Arc<Names>) -> Arc<Pool> {
    let upstream = upstream(&["http://registry.test:5000", "http://10.0.0.9:5000"]);
    let loaded = Credentials::load(std::slice::from_ref(&upstream)).unwrap().of(&upstream).unwrap();
    Arc::new(Pool::with(upstream, loaded, names.clone(), SOON))
}

fn owners(pool: &Arc<Pool>) -> Vec<u8> {
    let mut owners: Vec<_> = (0..6).map(|_| owner(pool, None, Instant::now())).collect();
    owners.sort_unstable();
    owners.dedup();
    owners
}

#[tokio::test]
async fn a_name_may_have_several_addresses_and_move() {
    let names = Arc::new(Names::default());
    let set = |numbers: &[u8]| {
        let addresses = numbers.iter().map(|number| address(*number)).collect();
        names.known.lock().insert("registry.test".to_owned(), addresses);
    };
    set(&[2, 1, 2]);
    let pool = named(&names);
    pool.tend(None);
    assert!(pool.pick(None, &[]).await.is_some());
    assert_eq!(owners(&pool), [1, 2, 9]);
    let first = pool.choose(None, &[address(2), address(9)], Instant::now()).unwrap();
    (0..2).for_each(|_| first.failed(Instant::now()));
    set(&[1, 3]);
    until("the name moves", || owners(&pool) == [3, 9]).await;
    let known =
        |number| pool.states(Instant::now()).into_iter().find(|state| state.address == address(number).to_string());
    assert_eq!(known(1).map(|state| (state.well, state.ejections)), Some((false, 1)), "who stays is known as before");
    assert_eq!(known(2), None);
    set(&[4]);
    until("and again", || owners(&pool) == [4, 9]).await;
    first.answered(StatusCode::OK, Instant::now()); // of one that is gone: nothing happens
}

#[tokio::test]
async fn this_machine_is_looked_for_again_only_after_a_failure() {
    let names = Arc::new(Names::default());
    names.known.lock().insert("localhost".to_owned(), vec![address(1)]);
    let upstream = upstream(&["http://localhost:5000", "http://registry.test:5000"]);
    let loaded = Credentials::load(std::slice::from_ref(&upstream)).unwrap().of(&upstream).unwrap();
    let pool = Arc::new(Pool::with(upstream, loaded, names.clone(), SOON));
    pool.tend(None);
    until("others are asked for", || names.asked.load(Ordering::Relaxed) > 9).await;
    assert_eq!(names.here.load(Ordering::Relaxed), 1);
    pool.pick(None, &[]).await.unwrap().failed(Instant::now());
    until("and this one", || names.here.load(Ordering::Relaxed) > 1).await;
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_keeps_what_it_had() {
    let names = Arc::new(Names::default());
    let pool = named(&names);
    pool.tend(None);
    assert_eq!(pool.pick(None, &[]).await.unwrap().address(), address(9), "before it was ever known");
    names.known.lock().insert("registry.test".to_owned(), vec![address(1)]);
    until("it is known", || owners(&pool) == [1, 9]).await;
    for lost in [None, Some(Vec::new())] {
        match lost {
            None => names.known.lock().remove("registry.test"),
            Some(none) => names.known.lock().insert("registry.test".to_owned(), none),
        };
        let asked = names.asked.load(Ordering::Relaxed);
        until("it is asked for again", || names.asked.load(Ordering::Relaxed) > asked + 1).await;
        assert_eq!(owners(&pool), [1, 9]);
    }
}
