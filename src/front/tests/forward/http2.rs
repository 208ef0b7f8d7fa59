//! Peers that speak HTTP/2: here another door of ours, whose services are the script.

use std::io::Write as _;

use futures_util::stream;
use reqwest::Body;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A door before another door. The file is the certificate of the other.
fn before_another() -> (Door, Door, tempfile::TempDir) {
    let theirs = Door::open();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::File::create(&ca).unwrap().write_all(theirs.pem.as_bytes()).unwrap();
    let mut upstream = upstream(&[format!("https://localhost:{}", theirs.tls.port())]);
    upstream.http2 = true;
    upstream.host = HostSent::Peer;
    upstream.tls.ca = Some(ca);
    let ours = before_upstream(upstream, |config| config.routes = vec![to_hub("/")]);
    (ours, theirs, folder)
}

#[tokio::test]
async fn requests_and_answers_pass_between_the_protocols() {
    let (ours, theirs, _folder) = before_another();
    let mut wire = ours.clear().await;
    wire.send(ours.request("GET /v2/where?a=%2F", "")).await;
    let reply = wire.reply().await;
    assert_eq!(
        (reply.status, reply.text()),
        (202, format!("https://localhost:{}/v2/where?a=%2F", theirs.tls.port()).as_str())
    );
    let location = format!("http://localhost:{}/v2/x?n=1", ours.clear.port());
    assert_eq!(reply.header("location"), Some(location.as_str()));
    wire.send(ours.request("HEAD /gen?n=1000", "")).await;
    assert_eq!(wire.head().await.header("content-length"), Some("1000"));
    wire.send(ours.request("PUT /echo", "Content-Length: 5\r\n") + "hello").await;
    assert_eq!(wire.reply().await.text(), "hello");
    let client = ours.http2();
    assert_eq!(client.put(ours.url("/echo")).body("hello").send().await.unwrap().text().await.unwrap(), "hello");
    assert_eq!(client.get(ours.url("/gen?n=3000000")).send().await.unwrap().bytes().await.unwrap().len(), 3_000_000);
    assert!(theirs.lines(5).await.iter().all(|line| line["protocol"] == "HTTP/2.0"));
}

#[tokio::test]
async fn permission_to_send_a_body_is_given_here_where_the_peers_would_not_arrive() {
    let (ours, theirs, _folder) = before_another();
    let mut wire = ours.clear().await;
    for _ in 0..2 {
        wire.send(ours.request("PUT /echo", "Content-Length: 5\r\nExpect: 100-continue\r\n")).await;
        assert_eq!(wire.head().await.status, 100);
        wire.send("hello").await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.text(), reply.header("connection")), (200, "hello", Some("keep-alive")));
    }
    assert_eq!(theirs.lines(2).await[0]["protocol"], "HTTP/2.0");
}

#[tokio::test]
async fn long_bodies_go_by_http1_where_the_time_for_an_answer_begins_after_them() {
    let (ours, theirs, _folder) = before_another();
    let body = Body::wrap_stream(stream::iter((0..32).map(|_| Ok::<_, std::io::Error>(vec![0_u8; 64 << 10]))));
    let reply = ours.http2().put(ours.url("/sink")).body(body).send().await.unwrap();
    assert_eq!(reply.text().await.unwrap(), (2 << 20).to_string());
    assert_eq!(theirs.lines(1).await[0]["protocol"], "HTTP/1.1");
    assert_eq!(ours.http2().get(ours.url("/origin")).send().await.unwrap().status().as_u16(), 200);
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let (ours, _theirs, _folder) = before_another();
    let mut wire = ours.clear().await;
    wire.send(ours.request("GET /half", "")).await;
    assert_eq!(wire.head().await.status, 200);
    assert!(wire.rest().await.len() <= 100_000);
    let reply = ours.http2().get(ours.url("/half")).send().await.unwrap();
    assert!(reply.bytes().await.is_err());
}

/// What a peer does with a request.
#[derive(Clone, Copy)]
enum Act {
    Answer,
    /// The stream is refused before anything was done (RFC 9113 8.7).
    Refuse,
    /// The connection ends.
    Die,
}

/// A peer that speaks HTTP/2 by the byte, and does this with the requests that come.
struct Frames {
    origin: String,
    asked: Arc<AtomicU64>,
    ca: tempfile::NamedTempFile,
    _tasks: JoinSet<()>,
}

impl Frames {
    async fn open(acts: &'static [Act]) -> Self {
        let (config, _, pem) = certificate();
        let mut ca = tempfile::NamedTempFile::new().unwrap();
        ca.write_all(pem.as_bytes()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let asked: Arc<AtomicU64> = Arc::default();
        let (acceptor, count) = (TlsAcceptor::from(config), asked.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, count) = (acceptor.clone(), count.clone());
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = talk(stream, acts, &count).await; // the other side may leave
                    }
                });
            }
        });
        Self { origin, asked, ca, _tasks: tasks }
    }

    fn door(&self) -> Door {
        let mut upstream = upstream(std::slice::from_ref(&self.origin));
        (upstream.http2, upstream.attempts) = (true, NonZeroU32::MIN);
        upstream.tls.ca = Some(self.ca.path().to_owned());
        before_upstream(upstream, |_| {})
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn talk(mut stream: impl Both, acts: &[Act], asked: &AtomicU64) -> std::io::Result<()> {
    const SETTINGS: u8 = 4;
    stream.read_exact(&mut [0; 24]).await?; // the preface
    stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [high, middle, low, kind, flags, id @ ..] = head;
        stream.read_exact(&mut vec![0; u32::from_be_bytes([0, high, middle, low]) as usize]).await?;
        if kind == SETTINGS && flags == 0 {
            stream.write_all(&[0, 0, 0, SETTINGS, 1, 0, 0, 0, 0]).await?;
        }
        if kind != 1 {
            continue;
        }
        let act = acts[asked.fetch_add(1, Ordering::Relaxed) as usize];
        let frame = match act {
            Act::Answer => [&[0, 0, 1, 1, 5], &id[..], &[0x88]].concat(), // `:status: 200`, and that is all
            Act::Refuse => [&[0, 0, 4, 3, 0], &id[..], &[0, 0, 0, 7]].concat(),
            Act::Die => return Ok(()),
        };
        stream.write_all(&frame).await?;
        stream.flush().await?;
    }
}

#[tokio::test]
async fn a_stream_that_was_refused_is_begun_anew_whatever_the_method() {
    let theirs = Frames::open(&[Act::Refuse, Act::Answer, Act::Answer, Act::Refuse, Act::Refuse, Act::Answer]).await;
    let door = theirs.door();
    for (method, asked) in [("POST", 2), ("GET", 3), ("DELETE", 6)] {
        let mut wire = door.clear().await;
        wire.send(door.request(&format!("{method} /v2/x"), "Content-Length: 0\r\n")).await;
        assert_eq!((wire.head().await.status, theirs.asked()), (200, asked), "{method}");
    }
}

#[tokio::test]
async fn a_connection_that_died_costs_a_read_nothing_and_a_write_is_not_sent_again() {
    let theirs = Frames::open(&[Act::Answer, Act::Die, Act::Answer, Act::Die]).await;
    let door = theirs.door();
    for (method, status, asked) in [("GET", 200, 1), ("GET", 200, 3), ("POST", 502, 4)] {
        let mut wire = door.clear().await;
        wire.send(door.request(&format!("{method} /v2/x"), "Content-Length: 0\r\n")).await;
        assert_eq!((wire.head().await.status, theirs.asked()), (status, asked), "{method}");
    }
}
