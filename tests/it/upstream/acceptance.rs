//! What a front door owes clients and a registry, one by one, with Debian's docker-registry behind it.
//!
//! Not here because they hold for every door: plain HTTP on the TLS port, PROXY protocol and probes on one port
//! (`peers`), new certificates under load and bad ones (`change`, `upgrade`), what counts as a failed login (`limits`).

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{IF_NONE_MATCH, LINK, LOCATION, RANGE};

use crate::support::balancers::misleading_nginx;
use crate::support::certificates::Certificates;
use crate::support::content::Content;
use crate::support::distribution::Distribution;
use crate::support::pierhead::{Pierhead, Site};
use crate::support::registry::{Registry, Repository};
use crate::support::wire::{ask, connect};
use crate::support::{free_port, wait_for};

/// A site on localhost whose `/v2/` goes to these upstreams, by the beginning of the repository's name.
fn before(site: &Site, upstreams: &[(String, String)], further: &[&str]) -> Pierhead {
    let routes: Vec<String> =
        upstreams.iter().map(|(name, _)| format!("{{ path: /v2/{name}/, to: {{ upstream: {name} }} }}")).collect();
    let described: Vec<String> = upstreams.iter().map(|(name, settings)| format!("{name}: {{ {settings} }}")).collect();
    let upstreams = format!("upstreams: {{ {} }}", described.join(", "));
    let routes = format!("routes: [{}]", routes.join(", "));
    site.configure(&[&["registry: false", &upstreams, &routes], further].concat());
    site.start()
}

/// The same with one upstream, which takes everything.
fn before_one(site: &Site, origin: &str, more: &str, further: &[&str]) -> Pierhead {
    let upstreams = format!("upstreams: {{ registry: {{ peers: [\"{origin}\"], {more} }} }}");
    site.configure(&[&["registry: false", &upstreams], further].concat());
    site.start()
}

fn registry_of(site: &Site) -> Registry {
    site.registry(None).unguarded()
}

fn folder(site: &Site, name: &str) -> std::path::PathBuf {
    let folder = site.directory().join(name);
    fs::create_dir_all(&folder).expect("the site can be written");
    folder
}

/// A row: its number, what the registry is told, and the origin that it makes of that.
type Row = (u8, Vec<(&'static str, String)>, String);

/// What becomes of each header that Distribution reads, where `authority` is what clients know.
fn rows(authority: &str, registry: &Distribution) -> Vec<Row> {
    let peer = registry.origin().trim_start_matches("http://").to_owned();
    let told = |host: &str, more: &[(&'static str, &str)]| {
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        std::iter::once(("Host", host.to_owned())).chain(more).collect::<Vec<_>>()
    };
    const SECURE: (&str, &str) = ("X-Forwarded-Proto", "https");
    vec![
        (1, told(authority, &[SECURE]), format!("https://{authority}")),
        (2, told(authority, &[]), format!("http://{authority}")),
        (3, told(authority, &[("X-Forwarded-Proto", "http")]), format!("http://{authority}")),
        (4, told("localhost", &[SECURE]), "https://localhost".to_owned()),
        (5, told(&peer, &[SECURE]), format!("https://{peer}")),
        (6, told(authority, &[SECURE, ("Forwarded", "for=1.2.3.4")]), format!("http://{authority}")),
        (8, told(authority, &[SECURE, ("X-Forwarded-Host", "localhost")]), "https://localhost".to_owned()),
        (9, told("localhost", &[SECURE, ("X-Forwarded-Port", "5050")]), "https://localhost".to_owned()),
    ]
}

#[test]
fn whatever_a_registry_is_told_a_push_ends_where_it_began() {
    let site = Site::new();
    let registry = Distribution::open(&folder(&site, "registry"), &site.tree());
    let rows = rows(&site.authority(), &registry);
    for (row, told, origin) in &rows {
        let told: Vec<String> = told.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        let port = registry.origin().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let headers = [told.as_slice(), &["Content-Length: 0"]].concat();
        let answer = ask(connect(port), b"", "POST /v2/a/blobs/uploads/", &headers).expect("an answer");
        let led = answer.header("location").expect("a Location");
        assert!(led.starts_with(&format!("{origin}/v2/")), "row {row}: {led}");
    }
    let misled: Vec<_> = rows.iter().map(|(_, told, _)| (free_port(), told.as_slice())).collect();
    let _nginx = misleading_nginx(&folder(&site, "nginx"), &misled, &registry.origin());
    let forms = ["absolute", "preserve", "relative"];
    let settings = |port: u16, form: &str| {
        let known_as = registry.origin();
        format!("peers: [\"http://127.0.0.1:{port}\"], health: off, location: {form}, known_as: [\"{known_as}\"]")
    };
    let upstreams: Vec<_> = rows
        .iter()
        .zip(&misled)
        .flat_map(|((row, ..), (port, _))| forms.map(|form| (format!("row-{row}-{form}"), settings(*port, form))))
        .collect();
    let _server = before(&site, &upstreams, &[]);
    for (number, (name, _)) in (0..).zip(&upstreams) {
        let repository = registry_of(&site).repository(&format!("{name}/app"), "pull,push");
        let begins = if name.ends_with("relative") { "/v2/".to_owned() } else { format!("{}/v2/", site.origin()) };
        holds_a_push(&repository, &begins, number);
    }
}

/// A push by a client that goes where it is told, each time below `begins`.
fn holds_a_push(repository: &Repository, begins: &str, seed: u64) {
    let upload = repository.begin().expect("a beginning");
    assert!(upload.starts_with(begins), "{upload}");
    let content = Content::new(seed, 10_000);
    let sent = repository.send(&upload, content.reader()).expect("the content");
    assert!(sent.starts_with(begins), "{sent}");
    let separator = if sent.contains('?') { '&' } else { '?' };
    let whole = format!("{sent}{separator}digest={}", content.digest());
    let ended = repository.request(Method::PUT, &whole).send().expect("an answer");
    let led = ended.headers().get(LOCATION).expect("a Location").to_str().expect("text");
    assert_eq!(ended.status(), 201);
    assert!(led.starts_with(begins), "{led}");
}

#[test]
fn a_registry_with_tls_of_its_own_a_host_of_its_own_or_paths_leads_back_too() {
    let site = Site::new();
    let authority = Certificates::new();
    let shown = authority.write_server(&folder(&site, "shown"), "localhost");
    fs::write(shown.join("ca.crt"), authority.pem()).expect("the site can be written");
    let tls = format!("tls: {{ certificate: {0}/server.crt, key: {0}/server.key }}", shown.display());
    let row_11 = Distribution::with_http(&folder(&site, "row-11"), &tls);
    let row_12 = Distribution::with_http(&folder(&site, "row-12"), "host: \"http://registry.internal:5000\"");
    let row_13 = Distribution::with_http(&folder(&site, "row-13"), "relativeurls: true");
    let secure = row_11.origin().replace("http://127.0.0.1", "https://localhost");
    let upstreams = [
        ("row-11", format!("peers: [\"{secure}\"], tls: {{ ca: {}/ca.crt }}", shown.display())),
        ("row-12", format!("peers: [\"{}\"], known_as: [\"http://registry.internal:5000\"]", row_12.origin())),
        ("row-13", format!("peers: [\"{}\"]", row_13.origin())),
    ]
    .map(|(name, settings)| (name.to_owned(), settings));
    let alias = format!("https://other.test:{}", site.port());
    let _server = before(&site, &upstreams, &[&format!("aliases: [\"{alias}\"]")]);
    for (number, (name, _)) in (100..).zip(&upstreams) {
        let repository = registry_of(&site).repository(&format!("{name}/app"), "pull,push");
        holds_a_push(&repository, &format!("{}/v2/", site.origin()), number);
        let by_alias = repository.request(Method::POST, "blobs/uploads/").header("Host", &alias["https://".len()..]);
        let answer = by_alias.send().expect("an answer");
        let led = answer.headers()[LOCATION].to_str().expect("text").to_owned();
        assert!(led.starts_with(&format!("{alias}/v2/")), "{name}: {led}");
    }
}

/// A server that says one thing to everybody, and reports what it was asked.
fn sayer(answer: String) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    let (heard, hears) = mpsc::channel();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let asked = head(&mut client);
            let _ = client.write_all(answer.as_bytes()); // who left needs no answer
            if heard.send(asked).is_err() {
                return;
            }
        }
    });
    (origin, hears)
}

fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("headers here are text")
}

#[test]
fn a_redirect_to_storage_arrives_byte_by_byte() {
    let signed = "https://Bucket.s3.amazonaws.com:443/docker/registry/v2/blobs/sha256/ab/ab/data?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F20260101%2Feu&X-Amz-SignedHeaders=host&X-Amz-Signature=00ff%2f~+a%20b";
    let (origin, asked) = sayer(format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: {signed}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ));
    let site = Site::new();
    let _server = before_one(&site, &origin, "health: off", &[]);
    let target = "/v2/a/blobs/sha256%3Aab?_state=q%3D%3D&&x=%zz";
    let http = reqwest::blocking::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(site.certificate_authority().as_bytes()).expect("PEM")])
        .build()
        .expect("a client can be made");
    let answer = http.get(format!("{}{target}", site.origin())).send().expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.headers()[LOCATION].to_str().expect("text")), (307, signed));
    let asked = asked.recv_timeout(Duration::from_secs(10)).expect("it was asked");
    assert!(asked.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{asked}");
}

#[test]
fn what_a_trusted_balancer_says_of_its_client_reaches_the_registry_and_what_others_say_does_not() {
    let site = Site::new();
    let registry = Distribution::open(&folder(&site, "registry"), &site.tree());
    let port = free_port();
    let listeners = format!(
        "listeners: [{{ address: \"127.0.0.1:{}\" }}, {{ address: \"127.0.0.1:{port}\", tls: false }}]",
        site.port()
    );
    let host = format!("Host: {}", site.authority());
    let told = ["X-Forwarded-For: 6.6.6.6, 203.0.113.9", "X-Forwarded-Proto: https", "X-Forwarded-Port: 443"];
    for (trusted, client) in [("trusted_proxies: [127.0.0.0/8]", "203.0.113.9"), ("trusted_proxies: []", "127.0.0.1")] {
        let server = before_one(&site, &registry.origin(), "health: off", &[&listeners, trusted]);
        let headers = [
            &host,
            "Content-Length: 0",
            told[0],
            told[1],
            told[2],
            "X-Forwarded-Host: evil.test",
            "Forwarded: for=6.6.6.6",
        ];
        let answer =
            ask(connect(port), b"", &format!("POST /v2/from-{client}/blobs/uploads/"), &headers).expect("an answer");
        let led = answer.header("location").expect("a Location");
        assert!(led.starts_with(&format!("{}/v2/", site.origin())), "{led}");
        wait_for("the registry to tell whose request it was", 10, || {
            let log = registry.log();
            let mut lines = log.lines().filter(|line| line.contains("response completed"));
            let line = lines.find(|line| line.contains(&format!("/v2/from-{client}/")))?.to_owned();
            assert!(line.contains(&format!("http.request.remoteaddr={client} ")), "{line}");
            Some(())
        });
        server.stop();
    }
}

/// A body of several pieces, each of which comes when it is called for.
struct Pieces {
    pieces: mpsc::Receiver<Vec<u8>>,
    rest: Vec<u8>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.pieces.recv().unwrap_or_default();
        }
        let count = self.rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest[..count]);
        self.rest.drain(..count);
        Ok(count)
    }
}

#[test]
fn the_first_bytes_of_an_upload_are_at_the_registry_before_the_last_are_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    let site = Site::new();
    let _server = before_one(&site, &origin, "health: off", &[]);
    let (piece, pieces) = mpsc::channel();
    let repository = registry_of(&site).repository("a", "pull,push");
    let client = thread::spawn(move || repository.send("blobs/uploads/1", Pieces { pieces, rest: Vec::new() }));
    piece.send(b"the first".to_vec()).expect("the client reads");
    let (mut upstream, _) = listener.accept().expect("a connection");
    let asked = head(&mut upstream);
    assert!(asked.to_lowercase().contains("transfer-encoding: chunked"), "{asked}");
    let mut came = Vec::new();
    while !came.ends_with(b"the first\r\n") {
        let mut buffer = [0; 64];
        let count = upstream.read(&mut buffer).expect("bytes");
        assert!(count > 0, "it ended: {came:?}");
        came.extend_from_slice(&buffer[..count]);
    }
    piece.send(b"the last".to_vec()).expect("the client reads");
    drop(piece);
    while !came.ends_with(b"\r\n0\r\n\r\n") {
        let mut buffer = [0; 64];
        let count = upstream.read(&mut buffer).expect("bytes");
        assert!(count > 0, "it ended: {came:?}");
        came.extend_from_slice(&buffer[..count]);
    }
    let answer = "HTTP/1.1 202 Accepted\r\nLocation: /v2/a/blobs/uploads/1\r\nContent-Length: 0\r\n\r\n";
    upstream.write_all(answer.as_bytes()).expect("it is heard");
    let led = client.join().expect("no panic").expect("the upload goes on");
    assert_eq!(led, format!("{}/v2/a/blobs/uploads/1", site.origin()));
}

#[test]
fn an_upload_that_comes_slowly_survives_and_one_that_stands_still_does_not() {
    let site = Site::new();
    let registry = Distribution::open(&folder(&site, "registry"), &site.tree());
    // Both times end at once: the client is told all the same.
    let server =
        before_one(&site, &registry.origin(), "timeouts: { read: 2s, write: 2s }", &["timeouts: { stall: 2s }"]);
    let repository = registry_of(&site).repository("a", "pull,push");
    let upload = repository.begin().expect("a beginning");
    let (piece, pieces) = mpsc::channel();
    thread::spawn(move || {
        for _ in 0..25 {
            // The slowness is the input: six seconds in all, three times what a silence may be.
            thread::sleep(Duration::from_millis(250));
            if piece.send(vec![0x5a; 12_800]).is_err() {
                return;
            }
        }
    });
    let upload = repository.send(&upload, Pieces { pieces, rest: Vec::new() }).expect("it arrives");
    let (piece, pieces) = mpsc::channel();
    piece.send(vec![0x5a; 100]).expect("it is read");
    let client = thread::spawn(move || repository.send(&upload, Pieces { pieces, rest: Vec::new() }));
    server.wait_for_access("the end of the one that stands still", |log| {
        let line = log.iter().find(|line| line["method"] == "PATCH" && line["status"] != 202)?;
        assert_eq!(line["status"], 408, "{line}");
        Some(())
    });
    drop(piece);
    let stopped = client.join().expect("no panic");
    assert!(stopped.as_ref().is_err_and(|failed| failed.status == Some(408) || failed.status.is_none()), "{stopped:?}");
}

#[test]
fn a_registry_that_is_down_is_said_to_be_in_words_that_clients_print() {
    let site = Site::new();
    let registry = Distribution::open(&folder(&site, "registry"), &site.tree());
    let health = "health: { interval: 200ms, timeout: 200ms, unhealthy: 1, healthy: 1 }";
    let _server = before_one(&site, &registry.origin(), health, &[]);
    let ask = || registry_of(&site).request(Method::GET, "/v2/").send().expect("an answer");
    wait_for("the registry to be well", 20, || (ask().status() == 200).then_some(()));
    drop(registry);
    let answer = wait_for("its end to be noticed", 20, || Some(ask()).filter(|answer| answer.status() == 503));
    let headers = answer.headers();
    assert_eq!(headers["docker-distribution-api-version"], "registry/2.0");
    assert!(headers.contains_key("retry-after") && headers.contains_key("x-request-id"));
    let said = answer.text().expect("text");
    assert!(said.contains("\"UNAVAILABLE\""), "{said}");
}

#[test]
fn maintenance_lets_a_push_to_an_upstream_end_and_no_other_begin() {
    let site = Site::new();
    let registry = Distribution::open(&folder(&site, "registry"), &site.tree());
    let _server = before_one(&site, &registry.origin(), "health: off", &[]);
    let repository = registry_of(&site).repository("a", "pull,push");
    let pulled = repository.push("before", &[Content::new(1, 1000)]).expect("pushed");
    let content = Content::new(2, 1000);
    let upload = repository.begin().expect("a beginning");
    site.run(&["maintenance", "on"]).ok();
    let refused = repository.begin().expect_err("no push begins");
    assert_eq!(refused.status, Some(405));
    assert!(refused.body.contains("UNSUPPORTED"), "{}", refused.body);
    let upload = repository.send(&upload, content.reader()).expect("what was begun goes on");
    repository.finish(&upload, &content.digest()).expect("and ends");
    assert_eq!(repository.pull("before").expect("everything can be pulled"), pulled);
    site.run(&["maintenance", "off"]).ok();
    repository.push("after", &[Content::new(3, 1000)]).expect("everything goes again");
}

#[test]
fn lengths_of_head_ranges_and_conditions_are_the_registrys() {
    let site = Site::new();
    let registry = Distribution::open(&folder(&site, "registry"), &site.tree());
    let _server = before_one(&site, &registry.origin(), "health: off", &[]);
    let content = Content::new(9, 100_000);
    let mut bytes = Vec::new();
    content.reader().read_to_end(&mut bytes).expect("memory does not fail");
    for at in [registry_of(&site), Registry::open(&registry.origin())] {
        let repository = at.repository("a", "pull,push");
        let blob = format!("blobs/{}", repository.push_blob(content).expect("pushed"));
        let answer = repository.request(Method::HEAD, &blob).send().expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-length"]),
            (200, &"100000".parse().expect("a value"))
        );
        let etag = answer.headers()["etag"].clone();
        let part = repository.request(Method::GET, &blob).header(RANGE, "bytes=500-999").send().expect("an answer");
        assert_eq!(
            (part.status().as_u16(), &part.headers()["content-range"]),
            (206, &"bytes 500-999/100000".parse().expect("a value"))
        );
        assert_eq!(part.bytes().expect("a body"), bytes[500..1000]);
        let same = repository.request(Method::GET, &blob).header(IF_NONE_MATCH, etag).send().expect("an answer");
        assert_eq!(same.status(), 304);
        assert!(same.bytes().expect("a body").is_empty());
    }
}

#[test]
fn the_next_page_of_a_list_is_where_the_client_asked() {
    let site = Site::new();
    let registry = Distribution::open(&folder(&site, "registry"), &site.tree());
    let _server = before_one(&site, &registry.origin(), "health: off", &[]);
    for (seed, name) in (1..).zip(["a", "b/c"]) {
        registry_of(&site).repository(name, "pull,push").push("1", &[Content::new(seed, 100)]).expect("pushed");
    }
    let ask = |path: &str| registry_of(&site).request(Method::GET, path).send().expect("an answer");
    let first = ask("/v2/_catalog?n=1");
    let next = first.headers()[LINK].to_str().expect("text").to_owned();
    assert!(first.text().expect("text").contains("\"a\""));
    let next = next.strip_prefix('<').and_then(|next| next.strip_suffix(">; rel=\"next\"")).expect("a link");
    assert!(next.starts_with("/v2/_catalog?"), "{next}");
    assert!(ask(next).text().expect("text").contains("\"b/c\""));
}

#[test]
fn where_an_answer_leads_elsewhere_the_operator_is_told_and_with_strict_the_client_is_not_led() {
    let elsewhere = "https://evil.test/v2/a/blobs/uploads/1?secret=1";
    let answer =
        format!("HTTP/1.1 202 Accepted\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let site = Site::new();
    for strict in [false, true] {
        let (origin, _asked) = sayer(answer.clone());
        let listed = "realms: [\"https://gitlab.test/jwt/auth\"]"; // `strict` asks for it
        let server = before_one(&site, &origin, &format!("health: off, strict: {strict}, {listed}"), &[]);
        let answer = registry_of(&site).request(Method::POST, "/v2/a/blobs/uploads/").send().expect("an answer");
        let id = answer.headers()["x-request-id"].to_str().expect("text").to_owned();
        let (status, led) = (answer.status().as_u16(), answer.headers().get(LOCATION).cloned());
        let said = answer.text().expect("text");
        match strict {
            false => assert_eq!((status, led), (202, Some(elsewhere.parse().expect("a value")))),
            true => assert_eq!((status, led), (502, None)),
        }
        assert!(!said.contains("evil.test"), "{said}");
        assert!(!strict || said.contains("\"errors\""), "{said}");
        let told = wait_for("the operator to be told", 10, || {
            let log = server.process.stderr();
            log.lines().find(|line| line.contains(&id) && line.contains("https://evil.test")).map(str::to_owned)
        });
        assert!(!told.contains("secret"), "{told}");
        server.stop();
    }
}

#[test]
fn clients_are_sent_for_tokens_where_the_operator_says_and_where_they_can_go() {
    let site = Site::new();
    let says = |realm: &str| {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"container_registry\",scope=\"repository:a:pull\"");
        let said = format!(
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        sayer(said).0
    };
    let hears = || {
        let answer = registry_of(&site).request(Method::GET, "/v2/").send().expect("an answer");
        assert_eq!(answer.status(), 401);
        let challenge = answer.headers()["www-authenticate"].to_str().expect("text").to_owned();
        let realm = challenge.strip_prefix("Bearer realm=\"").and_then(|rest| rest.split_once('"')).expect("a realm");
        assert_eq!(realm.1, ",service=\"container_registry\",scope=\"repository:a:pull\"");
        realm.0.to_owned()
    };
    const GITLAB: &str = "https://gitlab.example.com/jwt/auth";
    for said in ["http://registry:5000/jwt/auth", "http://gitlab.example.com/jwt/auth", GITLAB] {
        let listed = format!("health: off, known_as: [\"http://registry:5000\"], realms: [\"{GITLAB}\"], strict: true");
        let server = before_one(&site, &says(said), &listed, &[]);
        assert_eq!(hears(), GITLAB, "{said}");
        server.stop();
    }
    // With GitLab's own endpoint by us, on the name and the port that the client knows.
    let (gitlab, asked) = sayer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}".to_owned());
    let registry = says("https://localhost/jwt/auth");
    let upstreams = format!(
        "upstreams: {{ registry: {{ peers: [\"{registry}\"], health: off }}, gitlab: {{ peers: [\"{gitlab}\"], health: off }} }}"
    );
    site.configure(&["registry: false", &upstreams, "token: { upstream: gitlab }"]);
    let _server = site.start();
    assert_eq!(hears(), format!("{}/jwt/auth", site.origin()));
    let target = "/jwt/auth?service=container_registry&scope=repository%3Aa%3Apull";
    assert_eq!(registry_of(&site).request(Method::GET, target).send().expect("an answer").text().expect("text"), "{}");
    let asked = asked.recv_timeout(Duration::from_secs(10)).expect("it was asked");
    assert!(asked.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{asked}");
}

/// Nobody may do by a header what a route or maintenance keeps from a method.
#[test]
fn a_method_in_a_header_is_not_the_method() {
    let (origin, asked) = sayer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned());
    let site = Site::new();
    let _server = before_one(&site, &origin, "health: off", &[]);
    let request = registry_of(&site).request(Method::POST, "/v2/a/blobs/uploads/");
    request
        .header("X-HTTP-Method-Override", "DELETE")
        .header("Connection", "x-secret")
        .header("X-Secret", "1")
        .send()
        .expect("an answer");
    let asked = asked.recv_timeout(Duration::from_secs(10)).expect("it was asked").to_lowercase();
    assert!(!asked.contains("override") && !asked.contains("x-secret"), "{asked}");
    assert!(asked.contains(&format!("\r\nhost: {}\r\n", site.authority())), "{asked}");
}
