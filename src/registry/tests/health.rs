//! Requests are refused while a check fails, and no longer.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::*;
use crate::registry::health::{self, File, Http, Pace, Tcp};
use crate::storage::ErrorKind;
use crate::storage::fault::{Failure, FaultDriver};

const OFTEN: Pace = Pace { interval: Duration::from_millis(5), threshold: 3 };

/// A registry that is checked as long as the task lives.
fn checked(health: health::Config) -> (Fixture, tokio::task::JoinSet<()>) {
    checked_on(health, |disk| disk)
}

fn checked_on(
    health: health::Config,
    wrap: impl FnOnce(Arc<dyn Driver>) -> Arc<dyn Driver>,
) -> (Fixture, tokio::task::JoinSet<()>) {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let root = dir.path().to_owned();
    let driver = wrap(Arc::new(Filesystem::new(&root)));
    let registry = Arc::new(Registry::new(Config { health, ..Config::new(root) }, driver, Index::none()));
    let checks = registry.checks();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { checks.keep_checking().await });
    (Fixture { dir, registry, grant: Grant::default() }, tasks)
}

impl Fixture {
    async fn until(&self, failing: usize) -> Vec<(String, String)> {
        let wait = async {
            while self.registry.checks().failing().len() != failing {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the checks come to it");
        self.registry.checks().failing().into_iter().collect()
    }
}

/// Answers every connection with these bytes.
async fn server(answer: &'static [u8]) -> (std::net::SocketAddr, tokio::task::JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(answer).await; // whoever asked may have left
        }
    });
    (address, tasks)
}

fn http(address: std::net::SocketAddr) -> Http {
    let origin = format!("http://{address}").parse().unwrap();
    Http { pace: OFTEN, timeout: Duration::from_secs(20), ..Http::new(origin, "/up".parse().unwrap()) }
}

#[tokio::test]
async fn a_file_takes_the_registry_out_of_service_until_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("maintenance");
    let file = File { path: path.clone(), pace: OFTEN };
    let (fixture, _tasks) = checked(health::Config { files: vec![file], ..health::Config::default() });
    assert!(fixture.registry.unavailable().is_none());
    crate::storage::durable::write(&path, b"", 0o644).unwrap();
    assert_eq!(fixture.until(1).await, [(path.display().to_string(), "file exists".to_owned())]);
    let answer = fixture.registry.unavailable().unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers.contains_key("retry-after"));
    let crate::exchange::Body::Bytes(body) = answer.body else { panic!("no body") };
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["errors"][0]["code"], "UNAVAILABLE");
    assert!(fixture.registry.ready().await.is_err());
    std::fs::remove_file(&path).unwrap();
    fixture.until(0).await;
    assert!(fixture.registry.unavailable().is_none() && fixture.registry.ready().await.is_ok());
}

#[tokio::test]
async fn storage_that_does_not_answer_refuses_requests() {
    let config = health::Config { storage: Some(OFTEN), ..health::Config::default() };
    let (fixture, _tasks) =
        checked_on(config, |disk| Arc::new(FaultDriver::failing(disk, 5, Failure::Before, ErrorKind::Other)));
    let failing = fixture.until(1).await;
    assert_eq!(failing[0].0, "storagedriver_filesystem");
}

#[tokio::test]
async fn a_server_must_answer_with_its_status_and_a_port_must_be_open() {
    let (good, _good) = server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let (bad, _bad) = server(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n").await;
    let (strange, _strange) = server(b"220 mail.test ESMTP\r\n").await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let port = |address: std::net::SocketAddr| Tcp {
        address: address.to_string(),
        timeout: Duration::from_secs(20),
        pace: OFTEN,
    };
    let config = health::Config {
        http: vec![http(good), http(bad), http(strange), Http { status: StatusCode::FOUND, ..http(bad) }],
        tcp: vec![port(good), port(closed)],
        ..health::Config::default()
    };
    let mut config = config;
    config.http[3].path = "/found".parse().unwrap();
    let (fixture, _tasks) = checked(config);
    let failing = fixture.until(3).await;
    let reason = |name: String| failing.iter().find(|(failed, _)| *failed == name).map(|(_, reason)| reason.as_str());
    assert_eq!(reason(format!("http://{bad}/up")), Some("answered 302 where 200 is expected"));
    assert_eq!(reason(format!("http://{strange}/up")), Some("the answer is not HTTP/1"));
    assert!(reason(closed.to_string()).unwrap().starts_with("connection failed"));
}

#[tokio::test]
async fn a_server_that_says_nothing_fails_when_its_time_is_over() {
    let (silent, _tasks) = server(b"").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap(); // accepts by its backlog, never answers
    let silent_too = Http { timeout: Duration::from_millis(20), ..http(listener.local_addr().unwrap()) };
    let config = health::Config { http: vec![http(silent), silent_too], ..health::Config::default() };
    let (fixture, _checked) = checked(config);
    let reasons: Vec<String> = fixture.until(2).await.into_iter().map(|(_, reason)| reason).collect();
    assert!(reasons.contains(&"no answer in time".to_owned()), "{reasons:?}");
}
