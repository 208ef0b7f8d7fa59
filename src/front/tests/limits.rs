//! What happens to whoever wants more than there is.

use super::*;
use crate::front::Limits;

fn limited(limits: Limits) -> Door {
    Door::built(|config, _| config.limits = limits)
}

impl Door {
    /// What a new connection hears, and that it is the last thing it hears.
    async fn hears(&self, mut wire: Wire) -> Reply {
        wire.send(self.request("GET /origin", "")).await;
        let reply = wire.reply().await;
        assert_eq!(reply.header("connection"), Some("close"));
        assert!(wire.rest().await.is_empty());
        reply
    }

    /// Waits until a request on a new connection is served.
    async fn serves(&self) {
        within(async {
            loop {
                let mut wire = self.tls("http/1.1").await;
                wire.send(self.request("GET /origin", "")).await;
                if wire.reply().await.status == 200 {
                    return;
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_clients_connection_too_many_is_told_so_and_one_that_ends_makes_room() {
    let door = limited(Limits { connections_per_client: 1, ..Limits::default() });
    let mut first = door.tls("http/1.1").await;
    let reply = door.hears(door.tls("http/1.1").await).await;
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("5")));
    assert!(reply.text().contains("TOOMANYREQUESTS"), "{}", reply.text());
    assert_eq!(door.lines(1).await[0]["status"], 429);
    first.send(door.request("GET /origin", "")).await;
    assert_eq!(first.reply().await.status, 200, "who was there already notices nothing");
    drop(first);
    door.serves().await;
}

#[tokio::test]
async fn who_is_turned_away_is_offered_the_protocol_in_which_one_answer_ends_it() {
    let door = limited(Limits { connections_per_client: 1, ..Limits::default() });
    let _first = door.tls("http/1.1").await;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(door.client_config(&["h2", "http/1.1"])));
    let stream = TcpStream::connect(door.tls).await.unwrap();
    let stream = within(connector.connect(ServerName::try_from("localhost").unwrap(), stream)).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(door.hears(Wire::new(stream)).await.status, 429);
}

#[tokio::test]
async fn the_limit_of_all_holds_for_everybody_and_a_proxy_on_this_machine_has_no_other() {
    let door = limited(Limits { connections: 3, connections_per_client: 1, ..Limits::default() });
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut wire = door.clear().await;
        wire.send(door.request("GET /origin", "")).await;
        assert_eq!(wire.reply().await.status, 200);
        held.push(wire);
    }
    for wire in [door.clear().await, door.tls("http/1.1").await] {
        let reply = door.hears(wire).await;
        assert_eq!((reply.status, reply.header("retry-after")), (429, Some("5")));
        assert!(reply.message().contains("no room"));
    }
    assert!(door.running.connections() >= 3, "a drain counts them all");
}

#[tokio::test]
async fn where_a_proxy_may_stand_before_us_unsaid_no_address_has_a_limit() {
    let door = limited(Limits { connections_per_client: 1, by_address: false, ..Limits::default() });
    let _first = door.tls("http/1.1").await;
    door.serves().await;
}

#[tokio::test]
async fn above_a_number_a_second_nobody_hears_why() {
    let door = limited(Limits { connections_per_client: 1, ..Limits::default() });
    let _first = door.tls("http/1.1").await;
    let name = || ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(door.client_config(&["http/1.1"])));
    within(async {
        loop {
            let streams = futures_util::future::join_all((0..100).map(|_| TcpStream::connect(door.tls))).await;
            let shakes = streams.into_iter().flatten().map(|stream| connector.connect(name(), stream));
            if futures_util::future::join_all(shakes).await.iter().any(Result::is_err) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_header_may_be_is_configured() {
    let limits = Limits { header: 8 << 10, fields: 20, target: 1 << 10, ..Limits::default() };
    let door = limited(limits);
    let fields: String = (0..20).map(|n| format!("X-{n}: y\r\n")).collect();
    let cases = [
        (door.request("GET /origin", &format!("X: {}\r\n", "y".repeat(9 << 10))), 431, "8192 bytes"),
        (door.request("GET /origin", &fields), 431, "20 header fields"),
        (door.request(&format!("GET /{}", "y".repeat(1 << 10)), ""), 414, "1024 bytes"),
    ];
    for (request, status, words) in cases {
        let mut wire = door.clear().await;
        wire.send(request).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status, status);
        assert!(reply.message().contains(words), "{}", reply.text());
    }
    let client = door.http2();
    let over = |name: &'static str, size: usize| client.get(door.url("/origin")).header(name, "y".repeat(size));
    assert_eq!(over("x", 9 << 10).send().await.unwrap().status(), 431);
    assert_eq!(over("x", 1 << 10).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn http2_is_told_how_many_streams_there_may_be() {
    const MAX_CONCURRENT_STREAMS: u16 = 3; // RFC 9113 6.5.2
    let door = limited(Limits { streams: 7, ..Limits::default() });
    let mut wire = door.tls("h2").await;
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    while wire.buffer.len() < 9 || wire.buffer.len() < 9 + usize::from(wire.buffer[2]) {
        assert!(wire.more().await);
    }
    let length = usize::from(wire.buffer[2]);
    let settings = wire.buffer[9..9 + length].chunks(6).map(|setting| {
        let [a, b, value @ ..] = setting else { panic!("six bytes each") };
        (u16::from_be_bytes([*a, *b]), value.to_vec())
    });
    let streams: Vec<_> = settings.filter(|(id, _)| *id == MAX_CONCURRENT_STREAMS).collect();
    assert_eq!(streams, [(MAX_CONCURRENT_STREAMS, vec![0, 0, 0, 7])]);
}

/// An HTTP/2 client at this address that repeats nothing by itself, on one connection.
async fn client_at(door: &Door, address: &str) -> reqwest::Client {
    let builder = reqwest::Client::builder().tls_backend_preconfigured(door.client_config(&["h2"])).no_proxy();
    let address: std::net::IpAddr = address.parse().unwrap();
    let client = builder.timeout(FOREVER).retry(reqwest::retry::never()).local_address(address).build().unwrap();
    assert_eq!(within(client.get(door.url("/origin")).send()).await.unwrap().status(), 200);
    client
}

/// A request that is held up once it is served, repeated until it is.
async fn held_up(door: &Door, client: &reqwest::Client) -> u16 {
    loop {
        if let Ok(reply) = client.get(door.url("/task")).send().await {
            return reply.status().as_u16();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Two connections, each with many requests that do not end: `further` is how many of both may run beyond the first four of
/// each.
async fn has_a_bound(door: Door, further: u64, hit: &str) {
    const EACH: usize = 10;
    let most = 2 * 4 + further;
    let clients = [client_at(&door, "127.0.0.1").await, client_at(&door, "127.0.0.1").await];
    // Whether it brings a body or takes one.
    let gets = (0..EACH).map(|_| tokio::spawn(clients[0].get(door.url("/task")).send()));
    let posts = (0..EACH).map(|_| tokio::spawn(clients[1].post(door.url("/task")).body("x").send()));
    let (mut served, mut refused) = (0, 0);
    let requests: Vec<_> = gets.chain(posts).collect();
    eventually(|| door.script.read.load(Ordering::Relaxed) >= most).await;
    assert_eq!(settled(&door.script.read).await, most);

    let other = client_at(&door, "127.0.0.2").await; // which has sent one more
    for _ in 0..3 {
        assert_eq!(within(other.get(door.url("/origin")).send()).await.unwrap().status(), 200);
    }
    door.script.gate.add_permits(usize::try_from(most).unwrap());
    for request in requests {
        match within(request).await.unwrap() {
            Ok(reply) => {
                assert_eq!(reply.status(), 200);
                served += 1;
            }
            Err(error) => {
                assert!(format!("{error:?}").contains("REFUSED_STREAM"), "{error:?}");
                refused += 1;
            }
        }
    }
    assert_eq!((served, refused), (most, 2 * EACH as u64 - most));
    let page = door.reports.metrics.page(crate::telemetry::Exposition::Prometheus);
    assert!(page.contains(&format!("pierhead_limit_hits_total{{limit=\"{hit}\"}} {refused}\n")), "{page}");
    let lines = door.lines(usize::try_from(most).unwrap() + 6).await;
    assert!(lines.iter().all(|line| line["status"] == 200), "what was refused is nobody's request");

    // The places are free again, as many as there were.
    let all = (0..most).map(|n| held_up(&door, &clients[usize::from(n >= 4)]));
    let served_again = async {
        eventually(|| door.script.read.load(Ordering::Relaxed) >= 2 * most).await;
        door.script.gate.add_permits(usize::try_from(most).unwrap());
    };
    let (statuses, ()) = within(futures_util::future::join(futures_util::future::join_all(all), served_again)).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

#[tokio::test]
async fn a_clients_requests_beyond_the_first_of_each_connection_have_a_bound_whoever_answers() {
    let limits = Limits { further_streams: 3, ..Limits::default() };
    has_a_bound(limited(limits), 3, "connections_per_client").await;
    let known = |config: &mut Config, _: &mut _| {
        config.limits = limits;
        config.routes = vec![forward::to_hub("/theirs/")];
        config.upstreams = vec![forward::upstream(&[forward::nobody()])];
    };
    has_a_bound(Door::built(known), 3, "connections_per_client").await;
}

#[tokio::test]
async fn where_no_address_has_a_limit_all_together_have_one() {
    let limits = Limits {
        connections: 3,
        connections_per_client: 1,
        further_streams: 1,
        by_address: false,
        ..Limits::default()
    };
    has_a_bound(limited(limits), 3, "connections").await;
}

#[tokio::test]
async fn a_few_requests_at_once_find_place_on_any_connection() {
    let door = limited(Limits { further_streams: 0, ..Limits::default() });
    for _ in 0..3 {
        let client = client_at(&door, "127.0.0.1").await;
        let before = door.script.read.load(Ordering::Relaxed);
        let all = futures_util::future::join_all((0..4).map(|_| held_up(&door, &client)));
        let at_once = async {
            eventually(|| door.script.read.load(Ordering::Relaxed) == before + 4).await;
            let error = client.get(door.url("/origin")).send().await.unwrap_err();
            assert!(format!("{error:?}").contains("REFUSED_STREAM"), "{error:?}");
            door.script.gate.add_permits(4);
        };
        let (statuses, ()) = within(futures_util::future::join(all, at_once)).await;
        assert_eq!(statuses, [200; 4]);
    }
}

#[tokio::test]
async fn new_limits_hold_at_once_and_those_who_are_there_stay() {
    let mut door = Door::open();
    let mut first = door.tls("http/1.1").await;
    let change = |door: &mut Door, limits| {
        let config = Config { limits, ..door.config.clone() };
        door.running.change(config, door.script.clone(), &door.certificates, Vec::new()).unwrap();
    };
    change(&mut door, Limits { connections_per_client: 1, target: 1 << 10, ..Limits::default() });
    assert_eq!(door.hears(door.tls("http/1.1").await).await.status, 429);
    for (path, status) in [("/origin".to_owned(), 200), (format!("/{}", "y".repeat(1 << 10)), 414)] {
        first.send(door.request(&format!("GET {path}"), "")).await;
        assert_eq!(first.reply().await.status, status);
    }
    change(&mut door, Limits { connections_per_client: 2, ..Limits::default() });
    door.serves().await;
}
