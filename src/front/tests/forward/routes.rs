//! Which requests go where.

use super::*;

#[tokio::test]
async fn what_a_route_names_goes_to_the_upstream_and_the_rest_is_ours() {
    let theirs = Theirs::open().await;
    let door = before(&[&theirs]);
    let mut wire = door.clear().await;
    for path in ["/v2/echo", "/v2/", "/v2"] {
        wire.send(door.request(&format!("GET {path}"), "")).await;
        assert!([200, 201].contains(&wire.reply().await.status), "{path}");
        assert!(theirs.all().contains(&format!("GET {path} HTTP/1.1\r\n")));
    }
    wire.send(door.request("GET /origin", "")).await;
    assert_eq!(wire.reply().await.text(), format!("http://localhost:{}", door.clear.port()));
    assert!(!theirs.all().contains("/origin"));
    assert_eq!(theirs.seen().len(), 1, "a connection is used again");
}

#[tokio::test]
async fn the_internal_listener_and_probes_are_ours_whatever_the_routes() {
    let theirs = Theirs::open().await;
    let door = before_upstream(upstream(&[theirs.origin()]), |config| config.routes = vec![to_hub("/")]);
    let mut wire = Wire::new(TcpStream::connect(door.internal).await.unwrap());
    wire.send(format!("GET /v2/where HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", door.internal.port())).await;
    assert_eq!(wire.reply().await.status, 202);
    let mut wire = door.clear().await;
    wire.send(door.request("GET /-/ready", "")).await;
    assert_eq!(wire.reply().await.status, 404, "the script knows no probes");
    assert_eq!(theirs.all(), "");
}

#[tokio::test]
async fn redirects_and_fixed_answers_are_given_here_and_dressed() {
    let redirect = Redirect { to: "https://new.test/".to_owned(), status: StatusCode::TEMPORARY_REDIRECT };
    let fixed = |status, body: Option<&str>| Fixed {
        status,
        body: body.map(str::to_owned),
        content_type: "text/plain".parse().unwrap(),
    };
    let door = Door::built(|config, _| {
        config.routes = vec![
            route("/old/", Target::Redirect(redirect)),
            route("/no", Target::Answer(fixed(StatusCode::FORBIDDEN, None))),
            route("/text", Target::Answer(fixed(StatusCode::GONE, Some("gone")))),
        ];
    });
    let mut wire = door.clear().await;
    wire.send(door.request("GET /old/a%2Fb?c=d", "")).await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.header("location")), (307, Some("https://new.test/old/a%2Fb?c=d")));
    assert!(reply.header("x-request-id").is_some() && reply.header("x-content-type-options").is_some());
    wire.send(door.request("PUT /no", "Content-Length: 0\r\n")).await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.message().contains("forbidden")), (403, true));
    wire.send(door.request("GET /text", "")).await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.header("content-type"), reply.text()), (410, Some("text/plain"), "gone"));
}

#[tokio::test]
async fn a_path_with_two_readings_reaches_nobody() {
    let theirs = Theirs::open().await;
    let answer = Fixed { status: StatusCode::FORBIDDEN, body: None, content_type: "text/plain".parse().unwrap() };
    let secret = route("/secret/", Target::Answer(answer));
    let door = before_upstream(upstream(&[theirs.origin()]), |config| config.routes = vec![secret, to_hub("/")]);
    for path in [
        "/v2/../x",
        "/v2/%2e%2e/x",
        "/v2/a/./b",
        "/a%5cb",
        "/%762/a",
        "//v2/a",
        "/v2/a%00",
        "/v2;a/x/manifests/plain",
        "/v2/..;/echo",
        "/v2/x/manifest%73/tag",
        "/v2/x/blobs//uploads/tag",
        "/s%65cret/echo",
        "/secret%2Fecho",
        "//secret/echo",
        "/secret;a/echo",
    ] {
        let mut wire = door.clear().await;
        wire.send(door.request(&format!("GET {path}"), "")).await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.message().contains("more than one way")), (400, true), "{path}");
    }
    assert_eq!(theirs.all(), "");
    let mut wire = door.clear().await;
    for path in ["/api/v4/projects/group%2Fname", "/v2/x/blobs/sha256%3A0?a=%2F//;x%41"] {
        wire.send(door.request(&format!("GET {path}"), "")).await;
        assert_eq!(wire.reply().await.status, 201);
        assert!(theirs.all().contains(&format!("GET {path} HTTP/1.1\r\n")));
    }
}

#[tokio::test]
async fn what_was_begun_ends_by_the_routes_that_it_began_by() {
    let (one, other) = (Theirs::open().await, Theirs::open().await);
    let mut door = before(&[&one]);
    let mut wire = door.clear().await;
    wire.send(door.request("GET /v2/hang", "")).await;
    eventually(|| one.all().contains("/v2/hang")).await;
    let config = Config { upstreams: vec![upstream(&[other.origin()])], ..door.config.clone() };
    let tls = Tls { upstreams: Credentials::load(&config.upstreams).unwrap(), ..door.certificates.clone() };
    door.running.change(config, door.script.clone(), &tls, Vec::new()).unwrap();
    one.state.gate.add_permits(1);
    assert_eq!(wire.reply().await.status, 201);
    wire.send(door.request("GET /v2/206", "")).await;
    assert_eq!(wire.reply().await.status, 206);
    assert!(other.all().contains("/v2/206") && !one.all().contains("/v2/206"));
}

#[tokio::test]
async fn an_upload_stays_with_the_peer_that_began_it() {
    let (one, other) = (Theirs::open().await, Theirs::open().await);
    let mut upstream = upstream(&[one.origin(), other.origin()]);
    upstream.balance = Balance::Upload;
    let door = before_upstream(upstream, |_| {});
    let count = |theirs: &Theirs, line: &str| theirs.all().matches(line).count();
    for _ in 0..8 {
        let before = count(&one, "POST ");
        let mut wire = door.clear().await;
        wire.send(door.request("POST /v2/a/blobs/uploads/where", "Content-Length: 0\r\n")).await;
        assert_eq!(wire.reply().await.status, 202);
        let (owner, patches) = if count(&one, "POST ") > before { (&one, "one") } else { (&other, "other") };
        let before = count(owner, "PATCH ");
        wire.send(door.request("PATCH /v2/a/blobs/uploads/x", "Content-Length: 5\r\n") + "hello").await;
        assert_eq!(wire.reply().await.text(), "5");
        assert_eq!(count(owner, "PATCH "), before + 1, "{patches}");
    }
}

#[tokio::test]
async fn a_gate_is_before_the_upstream_too() {
    let theirs = Theirs::open().await;
    let door = Door::built(|config, sockets| {
        config.routes = vec![to_hub("/v2/")];
        config.upstreams = vec![upstream(&[theirs.origin()])];
        let gate = Gate {
            deny: Directions { push: ["127.0.0.0/8".parse().unwrap()].into_iter().collect(), ..Directions::default() },
            ..Gate::default()
        };
        sockets[1].1.gate = gate.clone();
        config.listeners[1].gate = gate;
    });
    let mut wire = door.clear().await;
    wire.send(door.request("PUT /v2/x", "Content-Length: 0\r\n")).await;
    assert_eq!(wire.reply().await.status, 403);
    assert_eq!(theirs.all(), "");
    wire.send(door.request("GET /v2/206", "")).await;
    assert_eq!(wire.reply().await.status, 206);
}
