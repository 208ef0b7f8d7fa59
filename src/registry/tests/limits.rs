//! How much may be pushed.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::uploads::Held;
use super::*;
use crate::registry::Limits;

/// A registry that takes blobs of at most 1000 bytes.
fn small() -> Fixture {
    Fixture::configured(|config| config.limits.blob = Some(1000))
}

fn bytes(length: usize) -> Bytes {
    vec![7; length].into()
}

impl Fixture {
    fn uploads(&self, name: &str) -> usize {
        std::fs::read_dir(self.path(&format!("repositories/{name}/_uploads"))).map_or(0, Iterator::count)
    }
}

#[tokio::test]
async fn a_blob_of_the_largest_size_is_taken_however_it_comes() {
    let fixture = small();
    fixture.push_blob("a", bytes(1000)).await;
    let location = fixture.start("a").await;
    let next = fixture.send(&format!("PATCH {location}"), &[], bytes(600)).await.expect(202);
    let next = fixture.send(&format!("PATCH {}", next.header("location")), &[], bytes(400)).await.expect(202);
    let digest = sha256(&bytes(1000));
    fixture.ask(&format!("PUT {}?digest={digest}", next.header("location"))).await.expect(201);
    let at_once = format!("POST /v2/b/blobs/uploads/?digest={digest}");
    fixture.send(&at_once, &[("content-length", "1000")], bytes(1000)).await.expect(201);
}

#[tokio::test]
async fn what_is_announced_to_be_too_large_is_refused_before_it_is_read() {
    let fixture = small();
    let unread = || vec![Err(BodyError::Gone)]; // reading it would be another error
    let location = fixture.start("a").await;
    let length = [("content-length", "1001")];
    fixture.send_pieces(&format!("PATCH {location}"), &length, unread()).await.expect_error(413, "SIZE_INVALID");
    let range = [("content-range", "0-1000")];
    fixture.send_pieces(&format!("PATCH {location}"), &range, unread()).await.expect_error(413, "SIZE_INVALID");
    let put = format!("PUT {location}?digest={}", sha256(b"x"));
    fixture.send_pieces(&put, &length, unread()).await.expect_error(413, "SIZE_INVALID");
    let post = format!("POST /v2/a/blobs/uploads/?digest={}", sha256(b"x"));
    fixture.send_pieces(&post, &length, unread()).await.expect_error(413, "SIZE_INVALID");
    fixture.send(&format!("PATCH {location}"), &[], bytes(10)).await.expect(202);
}

#[tokio::test]
async fn several_requests_cannot_bring_more_than_one_may() {
    let fixture = small();
    let location = fixture.start("a").await;
    let next = fixture.send(&format!("PATCH {location}"), &[], bytes(999)).await.expect(202);
    let next = next.header("location");
    let length = [("content-length", "2")];
    fixture.send(&format!("PATCH {next}"), &length, bytes(2)).await.expect_error(413, "SIZE_INVALID");
    fixture.send(&format!("PATCH {next}"), &[("content-length", "1")], bytes(1)).await.expect(202);
}

#[tokio::test]
async fn what_turns_out_to_be_too_large_is_given_up() {
    let fixture = small();
    let location = fixture.start("a").await;
    let pieces = vec![Ok(bytes(600)), Ok(bytes(600)), Err(BodyError::Gone)];
    let refused = fixture.send_pieces(&format!("PATCH {location}"), &[], pieces).await;
    refused.expect_error(413, "SIZE_INVALID");
    fixture.ask(&format!("GET {location}")).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    let put = format!("PUT {}?digest={}", fixture.start("a").await, sha256(&bytes(1001)));
    fixture.send(&put, &[], bytes(1001)).await.expect_error(413, "SIZE_INVALID");
    let post = format!("POST /v2/a/blobs/uploads/?digest={}", sha256(&bytes(1001)));
    fixture.send(&post, &[], bytes(1001)).await.expect_error(413, "SIZE_INVALID");
    assert_eq!(fixture.uploads("a"), 0);
}

#[tokio::test]
async fn one_account_has_so_many_uploads_at_once_and_hears_when_to_try_again() {
    let fixture = Fixture::configured(|config| config.limits.uploads = 1);
    let fixture = Fixture { grant: Grant::everything(Some("alice".to_owned())), ..fixture };
    let location = fixture.start("a").await;
    let held = fixture.registry.writers.enter(&fixture.grant, Recorded::new(Request::default()).caller(), 1).unwrap();
    let append = format!("PATCH {location}");
    let commit = format!("PUT {location}?digest={}", sha256(b"x"));
    for request in [append.as_str(), commit.as_str(), "POST /v2/a/blobs/uploads/"] {
        let refused = fixture.send(request, &[], "x").await.expect_error(429, "TOOMANYREQUESTS");
        assert_eq!(refused.header("retry-after"), "5");
    }
    fixture.ask(&format!("GET {location}")).await.expect(204);
    let bob =
        Fixture { grant: Grant::everything(Some("bob".to_owned())), registry: fixture.registry.clone(), ..small() };
    bob.push_blob("a", "x").await;
    drop(held);
    fixture.send(&append, &[], "x").await.expect(202);
}

#[tokio::test]
async fn new_limits_hold_for_the_next_request() {
    let fixture = Fixture::new();
    let location = fixture.start("a").await;
    let next = fixture.send(&format!("PATCH {location}"), &[], bytes(2000)).await.expect(202);
    let limits = Limits { blob: Some(1000), manifest: 10, uploads: 1 };
    let small = Config { limits, ..Config::new(fixture.dir.path().to_owned()) };
    let small = Fixture { registry: Arc::new(fixture.registry.reconfigured(small)), ..fixture.as_reader_of(&[]) };
    let put = format!("PUT {}?digest={}", next.header("location"), sha256(&bytes(2000)));
    small.ask(&put).await.expect_error(413, "SIZE_INVALID");
    small.push_manifest("a", "t", &json!({ "schemaVersion": 2 })).await.expect_error(413, "MANIFEST_INVALID");
    let caller = Recorded::new(Request::default());
    let held = fixture.registry.writers.enter(&small.grant, caller.caller(), 2).unwrap();
    small.ask(&put).await.expect_error(429, "TOOMANYREQUESTS");
    drop(held);
    fixture.ask(&put).await.expect(201);
}

/// Requests that begin a large manifest and do not end it, one for each of these accounts, as long as they are kept; and
/// what each was told, `None` where more is waited for.
fn begin_manifests(registry: &Arc<Registry>, accounts: &[&str]) -> (Vec<BoxFuture<'static, u16>>, Vec<Option<u16>>) {
    let path = "/v2/a/manifests/large";
    let answers = accounts.iter().map(|account| {
        let (registry, grant) = (registry.clone(), Grant::everything(Some((*account).to_owned())));
        let request = Request::builder().method("PUT").uri(path).body(()).unwrap();
        let endpoint = Endpoint::parse(request.method(), path, None).unwrap();
        let mut exchange = Held::after(request, "{");
        async move { registry.answer(endpoint, &grant, &mut exchange).await.status.as_u16() }.boxed()
    });
    let mut answers: Vec<_> = answers.collect();
    let told = answers.iter_mut().map(|answer| answer.now_or_never()).collect();
    (answers, told)
}

impl Fixture {
    /// The same registry for an account that may do everything.
    fn as_account(&self, account: &str) -> Self {
        let grant = Grant::everything(Some(account.to_owned()));
        Self { dir: self.dir.clone(), registry: self.registry.clone(), grant }
    }

    /// Pushes a manifest of an image that is there, with its length or without: then it may be a large one.
    async fn push_of_length(&self, announced: bool) -> Response {
        let document = image(&sha256(b"config of x"), &[&sha256(b"layer of x")]).to_string();
        let length = document.len().to_string();
        let headers = [("content-type", OCI_MANIFEST), ("content-length", length.as_str())];
        let headers = if announced { &headers[..] } else { &headers[..1] };
        self.send("PUT /v2/a/manifests/small", headers, document).await
    }
}

#[tokio::test]
async fn large_manifests_that_do_not_end_leave_room_for_small_ones_and_for_others() {
    let fixture = Fixture::new();
    fixture.push_image("a", "v1", "x").await;
    let accounts: Vec<&str> = std::iter::repeat_n("alice", 9).chain(["bob"]).collect();
    let (begun, told) = begin_manifests(&fixture.registry, &accounts);
    assert_eq!(told, [vec![None; 8], vec![Some(429), None]].concat());
    let alice = fixture.as_account("alice");
    alice.push_of_length(true).await.expect(201);
    alice.push_of_length(false).await.expect_error(429, "TOOMANYREQUESTS");
    drop(begun);
    alice.push_of_length(false).await.expect(201);
}

#[tokio::test]
async fn so_many_large_manifests_come_in_at_once_whosever_they_are() {
    let fixture = Fixture::new();
    fixture.push_image("a", "v1", "x").await;
    let accounts: Vec<String> = (0..65).map(|number| format!("account-{number}")).collect();
    let accounts: Vec<&str> = accounts.iter().map(String::as_str).collect();
    let (mut begun, told) = begin_manifests(&fixture.registry, &accounts);
    assert_eq!(told, [vec![None; 64], vec![Some(429)]].concat());
    let other = fixture.as_account("somebody else");
    other.push_of_length(true).await.expect(201);
    let refused = other.push_of_length(false).await.expect_error(429, "TOOMANYREQUESTS");
    assert_eq!(refused.header("retry-after"), "5");
    drop(begun.swap_remove(0));
    other.push_of_length(false).await.expect(201);
}
