//! Promise: in the place of Distribution's registry, the port is what its `http` says, and the health that of its
//! `health`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose;
use reqwest::blocking::{Client, Response};
use serde_json::Value;

use crate::original::{Original, use_it};
use crate::support::certificates::Certificates;
use crate::support::content::Content;
use crate::support::registry::Registry;
use crate::support::{free_port, wait_for};

/// Writes a file whose `http` is this, with more lines after it.
fn configure(original: &Original, http: &str, more: &str) {
    let root = original.path("tree").display().to_string();
    original.write(&format!(
        "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: \"{root}\" }}, delete: {{ enabled: true }} }}\n\
         http: {{ {http} }}\n{more}\n"
    ));
}

fn address(original: &Original) -> String {
    format!("addr: \"127.0.0.1:{}\"", original.port)
}

fn client(authority: &Certificates, shown: Option<&(String, String)>) -> Client {
    let trusted = reqwest::Certificate::from_pem(authority.pem().as_bytes()).expect("PEM");
    let builder = Client::builder().no_proxy().timeout(Duration::from_secs(60)).tls_certs_only([trusted]);
    let builder = match shown {
        Some((certificate, key)) => builder.identity(
            reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes()).expect("certificate and key"),
        ),
        None => builder,
    };
    builder.build().expect("a client can be made")
}

#[test]
fn the_port_asks_clients_for_certificates() {
    let (ours, foreign) = (Certificates::new(), Certificates::new());
    let original = Original::empty();
    let server = ours.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    for (name, text) in [("tls.crt", &server.0), ("tls.key", &server.1), ("clients.crt", &ours.pem())] {
        fs::write(original.path(name), text).expect("the directory can be written");
    }
    let tls = "tls: { certificate: tls.crt, key: tls.key, clientcas: [clients.crt] }";
    configure(&original, &format!("{}, {tls}", address(&original)), "");
    let _process = original.launch(&[]);

    let origin = format!("https://localhost:{}", original.port);
    let known = ours.issue("someone", ExtendedKeyUsagePurpose::ClientAuth);
    use_it(&Registry::through(client(&ours, Some(&known)), &origin), 202);
    let unknown = foreign.issue("someone", ExtendedKeyUsagePurpose::ClientAuth);
    for shown in [None, Some(&unknown)] {
        let refused = client(&ours, shown).get(format!("{origin}/v2/")).send();
        assert!(refused.is_err(), "{shown:?}: {refused:?}");
    }
}

#[test]
fn the_port_may_be_a_socket_in_the_file_system() {
    let original = Original::empty();
    let socket = original.path("registry.sock");
    configure(&original, &format!("net: unix, addr: \"{}\"", socket.display()), "");
    let mut process = original.launch(&[]);
    let mut stream = UnixStream::connect(&socket).expect("it listens");
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: images\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    process.terminate();
    assert!(process.wait(20).success());
    assert!(!socket.exists(), "nothing is left behind");
}

#[test]
fn everything_lies_below_the_prefix_with_the_headers_of_the_file() {
    let original = Original::empty();
    let http = format!("{}, prefix: /images/, headers: {{ X-Team: [red, blue] }}", address(&original));
    configure(&original, &http, "");
    let _process = original.launch(&[]);
    let get = |path: &str| reqwest::blocking::get(format!("{}{path}", original.origin())).expect("an answer");
    let below = get("/images/v2/");
    assert_eq!(below.status(), 200);
    let teams: Vec<_> = below.headers().get_all("x-team").iter().collect();
    assert_eq!(teams, ["red", "blue"]);
    assert_eq!(get("/v2/").status(), 404);

    let begun = Client::new().post(format!("{}/images/v2/team/app/blobs/uploads/", original.origin())).send();
    let begun = begun.expect("an answer");
    let location = begun.headers()["location"].to_str().expect("locations are text");
    assert!(location.starts_with("/images/v2/team/app/blobs/uploads/"), "{location}");
}

#[test]
fn a_written_host_and_the_prefix_begin_every_location() {
    let original = Original::empty();
    let http = format!("{}, prefix: /images/", address(&original));
    let origin = format!("{}/images", original.origin());
    configure(&original, &format!("{http}, host: \"{}\"", original.origin()), "");
    let _process = original.launch(&[]);
    let repository = Registry::open(&origin).repository("team/app", "pull,push");
    let location = repository.begin().expect("begun");
    assert!(location.starts_with(&format!("{origin}/v2/team/app/blobs/uploads/")), "{location}");
    let digest = repository.push("latest", &[Content::new(51, 4_321)]).expect("pushed");
    assert_eq!(repository.pull("latest").expect("pulled"), digest);
}

/// Behind a proxy that ends TLS, and under a name that no file says.
#[test]
fn a_client_is_led_back_the_way_it_came_whatever_it_calls_us() {
    let original = Original::empty();
    configure(&original, &address(&original), "");
    let _process = original.start(&[]);
    let begin = Client::new().post(format!("{}/v2/team/app/blobs/uploads/", original.origin()));
    let begin = begin.header("Host", "registry.example.com").header("X-Forwarded-Proto", "https");
    let answer = begin.send().expect("an answer");
    let location = answer.headers()["location"].to_str().expect("locations are text");
    assert!(location.starts_with("/v2/team/app/blobs/uploads/"), "{location}");
}

#[test]
fn a_failing_check_takes_the_registry_out_of_service_until_it_passes() {
    let original = Original::empty();
    let port = free_port();
    let http = format!("{}, debug: {{ addr: \"127.0.0.1:{port}\" }}", address(&original));
    configure(&original, &http, "health: { file: [{ file: out-of-service, interval: 100ms }] }");
    let _process = original.start(&[]);
    let get = |url: String| -> Response { reqwest::blocking::get(url).expect("an answer") };
    let api = || get(format!("{}/v2/", original.origin()));
    let debug = |page: &str| get(format!("http://127.0.0.1:{port}/debug/{page}"));
    let failing = || debug("health").json::<Value>().expect("JSON");
    assert_eq!((api().status(), debug("health").status()), (reqwest::StatusCode::OK, reqwest::StatusCode::OK));
    assert_eq!(failing(), serde_json::json!({}));
    assert_eq!(debug("vars").status(), 200);
    assert_eq!(get(format!("http://127.0.0.1:{port}/v2/")).status(), 404, "there is no registry on that port");

    let mark = original.path("out-of-service");
    fs::write(&mark, "").expect("the directory can be written");
    let refused = wait_for("the check to fail", 20, || Some(api()).filter(|answer| answer.status() == 503));
    assert_eq!(refused.headers()["content-type"], "application/json; charset=utf-8");
    assert_eq!(refused.json::<Value>().expect("JSON")["errors"][0]["code"], "UNAVAILABLE");
    assert_eq!(debug("health").status(), 503);
    let listed = failing();
    let names = listed.as_object().expect("names with reasons");
    assert!(names.len() == 1 && names.keys().all(|name| name.contains("out-of-service")), "{listed}");

    fs::remove_file(&mark).expect("the directory can be written");
    wait_for("the check to pass", 20, || (api().status() == 200).then_some(()));
    assert_eq!(debug("health").status(), 200);
}

#[test]
fn a_server_that_does_not_answer_fails_a_check() {
    let original = Original::empty();
    let neighbour = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let health = format!(
        "health: {{ tcp: [{{ addr: \"{}\", interval: 100ms, timeout: 1s }}] }}",
        neighbour.local_addr().expect("bound")
    );
    configure(&original, &address(&original), &health);
    let _process = original.start(&[]);
    let status = || reqwest::blocking::get(format!("{}/v2/", original.origin())).expect("an answer").status().as_u16();
    assert_eq!(status(), 200);
    drop(neighbour);
    wait_for("the check to fail", 20, || (status() == 503).then_some(()));
}

/// Until what answers with `status` changes the mind of the registry, and back.
fn out_of_service_and_back(original: &Original, fails: impl FnOnce(), passes: impl FnOnce()) {
    let status = || reqwest::blocking::get(format!("{}/v2/", original.origin())).expect("an answer").status().as_u16();
    assert_eq!(status(), 200);
    fails();
    wait_for("the check to fail", 20, || (status() == 503).then_some(()));
    passes();
    wait_for("the check to pass", 20, || (status() == 200).then_some(()));
}

#[test]
fn a_server_that_answers_otherwise_than_it_should_fails_a_check() {
    let original = Original::empty();
    let neighbour = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let uri = format!("http://{}/alive", neighbour.local_addr().expect("bound"));
    let answer = Arc::new(AtomicU16::new(204));
    let answered = Arc::clone(&answer);
    std::thread::spawn(move || {
        for mut stream in neighbour.incoming().flatten() {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let right = request[..length].starts_with(b"HEAD /alive HTTP/1.1\r\n");
            let status = if right { answered.load(Ordering::SeqCst) } else { 400 };
            let _ = write!(stream, "HTTP/1.1 {status} So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let check = format!("{{ uri: \"{uri}\", statuscode: 204, interval: 100ms, timeout: 2s }}");
    configure(&original, &address(&original), &format!("health: {{ http: [{check}] }}"));
    let process = original.start(&[]);
    let (fails, passes) = (|| answer.store(500, Ordering::SeqCst), || answer.store(204, Ordering::SeqCst));
    out_of_service_and_back(&original, fails, passes);
    assert!(
        process.stderr().contains("a health check fails") && process.stderr().contains(&uri),
        "{}",
        process.stderr()
    );
}

/// As when a file server is gone: here the tree is a link that leads nowhere but to itself.
#[test]
fn a_storage_that_does_not_answer_fails_a_check() {
    let original = Original::empty();
    let storage = "health: { storagedriver: { enabled: true, interval: 100ms, threshold: 2 } }";
    configure(&original, &address(&original), storage);
    let process = original.start(&[]);
    let repository = Registry::open(&original.origin()).repository("team/app", "pull,push");
    let digest = repository.push("latest", &[Content::new(52, 4_321)]).expect("pushed");
    let (tree, away) = (original.path("tree"), original.path("away"));
    let fails = || {
        fs::rename(&tree, &away).expect("the directory can be written");
        symlink("tree", &tree).expect("the directory can be written");
    };
    let passes = || {
        fs::remove_file(&tree).expect("it is a link");
        fs::rename(&away, &tree).expect("the directory can be written");
    };
    out_of_service_and_back(&original, fails, passes);
    assert!(process.stderr().contains("storagedriver_filesystem"), "{}", process.stderr());
    assert_eq!(repository.pull("latest").expect("it is still there"), digest);
}

#[test]
fn a_drain_is_as_long_as_the_file_says() {
    for (written, ended) in [("1s", false), ("1h", true)] {
        let original = Original::empty();
        configure(&original, &format!("{}, draintimeout: {written}", address(&original)), "");
        let mut process = original.start(&[]);
        let registry = Registry::open(&original.origin());
        let repository = registry.repository("team/app", "pull,push");
        let upload = repository.begin().expect("begun");
        let (mut slow, bytes) = std::io::pipe().map(|(read, write)| (write, read)).expect("a pipe");
        let sending = std::thread::spawn(move || repository.send(&upload, bytes).is_ok());
        // More than all sockets on the way hold, so that the server has begun to read when it is written.
        slow.write_all(&vec![0; 16 << 20]).expect("the client reads");
        process.terminate();
        process.wait_until("be told to stop", 20, |process| process.stderr().contains("stopping"));
        if ended {
            drop(slow);
            assert!(sending.join().expect("the client ends"), "a running request may end");
            assert!(process.wait(20).success());
        } else {
            process.wait(20);
            drop(slow);
            assert!(!sending.join().expect("the client ends"), "its time was over");
        }
    }
}
