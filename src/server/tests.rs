//! The debug pages on a real socket.

use std::time::Duration;

use super::*;
use crate::registry::health;

/// A door on a free port, to the checks of a registry that must not find a file.
async fn door(file: std::path::PathBuf, root: &std::path::Path) -> (String, Arc<Checks>, Running<Debug>) {
    tls::install_provider();
    let pace = health::Pace { interval: Duration::from_millis(5), threshold: 1 };
    let health = health::Config { files: vec![health::File { path: file, pace }], ..health::Config::default() };
    let config = registry::Config { health, ..registry::Config::new(root.to_owned()) };
    let checks = Registry::new(config, Arc::new(Filesystem::new(root)), Index::none()).checks();
    let usual = front::Config {
        listeners: Vec::new(),
        external_url: "https://registry.test".parse().unwrap(),
        aliases: Vec::new(),
        trusted_proxies: front::Networks::default(),
        timeouts: front::Timeouts::default(),
        limits: front::Limits::default(),
        headers: Vec::new(),
        internal: front::Internal::default(),
        debug: None,
    };
    let door =
        DebugDoor::bind(usual.for_debug(front::Debug { address: ([127, 0, 0, 1], 0).into() }), &mut Handed::default())
            .unwrap();
    let address = listen::actual_addresses(&door.sockets).remove(0).address;
    (format!("http://{address}"), checks.clone(), door.open(checks).unwrap())
}

#[tokio::test]
async fn the_debug_pages_name_what_fails_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("maintenance");
    let (url, checks, _running) = door(file.clone(), folder.path()).await;
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
    assert_eq!((ask("/debug/pprof/").await.0, ask("/v2/").await.0, ask("/metrics").await.0), (404, 404, 404));
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
