//! The debug pages on a real socket.

use std::time::Duration;

use super::*;
use crate::registry::health::{self, Checks};
use crate::telemetry::Metrics;

/// A door on a free port, to the checks of a registry that must not find a file.
async fn door(file: std::path::PathBuf, root: &std::path::Path) -> (String, Arc<Checks>, Metrics, Running<Debug>) {
    tls::install_provider();
    let pace = health::Pace { interval: Duration::from_millis(5), threshold: 1 };
    let health = health::Config { files: vec![health::File { path: file, pace }], ..health::Config::default() };
    let config = registry::Config { health, ..registry::Config::new(root.to_owned()) };
    let registry = Registry::new(config, Arc::new(Filesystem::new(root)), Index::none());
    let (checks, metrics) = (registry.checks(), Metrics::default());
    let guardian = Guardian::open(&unguarded(root), None).unwrap();
    let embedded = Arc::new(Embedded::new(registry, guardian, None, metrics.clone()));
    let usual = front::Config {
        listeners: Vec::new(),
        external_url: "https://registry.test".parse().unwrap(),
        aliases: Vec::new(),
        routes: Vec::new(),
        upstreams: Vec::new(),
        token: None,
        trusted_proxies: front::Networks::default(),
        timeouts: front::Timeouts::default(),
        limits: front::Limits::default(),
        headers: Vec::new(),
        hsts: None,
        internal: front::Internal::default(),
        debug: None,
    };
    let debug = front::Debug { address: ([127, 0, 0, 1], 0).into(), metrics: Some("/metrics".to_owned()) };
    let door = DebugDoor::bind(&usual, &debug, &mut Handed::default()).unwrap();
    let address = listen::actual_addresses(&door.sockets).remove(0).address;
    (format!("http://{address}"), checks, metrics, door.open(embedded).unwrap())
}

/// What Distribution's file means where it says nothing about who may come.
fn unguarded(folder: &std::path::Path) -> auth::Config {
    let file = folder.join("config.yml");
    crate::storage::durable::write(&file, b"version: 0.1\nstorage: filesystem\nhttp: { addr: ':5000' }\n", 0o644)
        .unwrap();
    crate::config::load_registry(&file, [], &crate::config::Machine::here(false).unwrap()).unwrap().auth
}

#[tokio::test]
async fn the_debug_pages_name_what_fails_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("maintenance");
    let (url, checks, metrics, _running) = door(file.clone(), folder.path()).await;
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let checks = checks.clone();
        async move { checks.keep_checking().await }
    });
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
    let ask = async |path: &str| {
        let answer = client.get(format!("{url}{path}")).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ask("/debug/health").await, (200, "{}\n".to_owned()));
    assert!(ask("/debug/vars").await.1.contains(env!("CARGO_PKG_VERSION")));
    assert_eq!((ask("/-/healthy").await.0, ask("/-/ready").await.0), (200, 200));
    assert_eq!((ask("/debug/pprof/").await.0, ask("/v2/").await.0), (404, 404));
    metrics.handshake(crate::telemetry::Handshake::Done);
    let counted = ask("/metrics").await;
    assert_eq!(counted.0, 200);
    assert!(counted.1.contains("pierhead_tls_handshakes_total{outcome=\"done\"} 1"), "{}", counted.1);
    let open =
        client.get(format!("{url}/metrics")).header("Accept", "application/openmetrics-text").send().await.unwrap();
    assert_eq!(open.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!(client.post(format!("{url}/debug/health")).send().await.unwrap().status(), 405);

    crate::storage::durable::write(&file, b"", 0o644).unwrap();
    let failing = async {
        while checks.failing().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), failing).await.expect("the check comes to it");
    let expected = format!("{{\"{}\":\"file exists\"}}\n", file.display());
    assert_eq!(ask("/debug/health").await, (503, expected));
}
