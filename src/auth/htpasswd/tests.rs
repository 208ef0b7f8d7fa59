//! Names and passwords in a file, before requests from memory.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bcrypt::Version;
use bytes::Bytes;
use http::{Request, StatusCode, header};

use super::*;
use crate::exchange::Exchange;
use crate::exchange::memory::Recorded;
use crate::oci::scope::parse_all;
use crate::storage::durable;

fn line(name: &str, password: &str, version: Version) -> String {
    format!("{name}:{}\n", bcrypt::hash_with_result(password, MIN_COST).unwrap().format_for_version(version))
}

struct Desk {
    folder: tempfile::TempDir,
    htpasswd: Htpasswd,
    now: Instant,
    through_a_proxy: bool,
}

fn open(folder: &tempfile::TempDir, text: &str) -> Result<Htpasswd, Error> {
    let path = folder.path().join("htpasswd");
    durable::write(&path, text.as_bytes(), 0o600).unwrap();
    Htpasswd::open("Our \"images\"", &path, NonZeroU32::new(3).unwrap())
}

impl Desk {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let htpasswd = open(&folder, text).unwrap();
        Self { folder, htpasswd, now: Instant::now(), through_a_proxy: false }
    }

    async fn ask(&self, credentials: &str) -> Result<Grant, Box<Answer>> {
        let mut request = Request::get("/v2/");
        if !credentials.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(credentials)));
        }
        let mut exchange = Recorded::new(request.body(Bytes::new()).unwrap());
        if self.through_a_proxy {
            exchange = exchange.through_a_proxy();
        }
        let demand = Demand { needed: parse_all(["repository:a/b:pull,push,delete"]), useful: None };
        self.htpasswd.authorize(exchange.head(), exchange.caller(), &demand, self.now).await.map_err(Box::new)
    }

    async fn status(&self, credentials: &str) -> StatusCode {
        self.ask(credentials).await.map_or_else(|answer| answer.status, |_| StatusCode::OK)
    }
}

#[tokio::test]
async fn whoever_is_in_the_file_may_do_everything_and_others_are_asked_who_they_are() {
    let lines =
        [line("alice", "one:two", Version::TwoA), line("Bob B", "x", Version::TwoB), line("carol", "y", Version::TwoY)];
    let desk = Desk::new(&format!("# who\n\n{}", lines.concat()));
    for credentials in ["alice:one:two", "Bob B:x", "carol:y", "alice:one:two"] {
        let grant = desk.ask(credentials).await.ok().unwrap();
        assert_eq!(grant.subject.as_deref(), credentials.split(':').next());
        assert!(grant.may_pull(&"any/thing".parse().unwrap()));
    }
    for credentials in ["", "alice:one", "nobody:x"] {
        let answer = desk.ask(credentials).await.err().unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Basic realm=\"Our \\\"images\\\"\"");
    }
}

#[tokio::test]
async fn guessing_has_a_limit_and_who_is_known_from_there_meets_it_not() {
    let desk = Desk::new(&(line("alice", "right", Version::TwoY) + &line("bob", "right", Version::TwoY)));
    assert_eq!(desk.status("alice:right").await, StatusCode::OK);
    for name in ["bob", "nobody", "bob"] {
        assert_eq!(desk.status(&format!("{name}:wrong")).await, StatusCode::UNAUTHORIZED);
    }
    for name in ["bob", "nobody"] {
        let answer = desk.ask(&format!("{name}:right")).await.err().unwrap();
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers[header::RETRY_AFTER], "20");
    }
    assert_eq!(desk.status("alice:right").await, StatusCode::OK);
}

#[tokio::test]
async fn behind_a_proxy_that_names_nobody_a_guesser_does_not_lock_the_others_out() {
    let mut desk = Desk::new(&(line("alice", "right", Version::TwoY) + &line("bob", "right", Version::TwoY)));
    desk.through_a_proxy = true;
    for guess in 0..10 {
        assert_eq!(desk.status(&format!("guess{guess}:wrong")).await, StatusCode::UNAUTHORIZED);
    }
    for _ in 0..3 {
        assert_eq!(desk.status("bob:wrong").await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(desk.status("bob:right").await, StatusCode::TOO_MANY_REQUESTS, "the guessed name alone");
    assert_eq!(desk.status("alice:right").await, StatusCode::OK);
}

#[tokio::test]
async fn names_of_any_length_have_limits_of_their_own_and_cost_the_same_to_count() {
    let mut desk = Desk::new(&line("alice", "right", Version::TwoY));
    desk.through_a_proxy = true;
    let [one, other] = ["1", "2"].map(|last| "n".repeat(39_999) + last);
    for _ in 0..3 {
        assert_eq!(desk.status(&format!("{one}:wrong")).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(desk.status(&format!("{one}:wrong")).await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(desk.status(&format!("{other}:wrong")).await, StatusCode::UNAUTHORIZED);
    assert_eq!(desk.htpasswd.forgive_name(&one), 2, "of the name, and of it at the proxy");
    assert_eq!(desk.status(&format!("{one}:wrong")).await, StatusCode::UNAUTHORIZED);
    assert_eq!(desk.htpasswd.forgive_name("nobody tried this"), 0);
    assert_eq!(size_of_names(&desk.htpasswd.attempts), 32);
}

fn size_of_names<N: crate::auth::attempts::Name>(_: &Attempts<N>) -> usize {
    size_of::<N>()
}

#[tokio::test]
async fn what_fails_takes_as_long_as_with_the_dearest_line_whoevers_it_is() {
    let dear = bcrypt::hash_with_result("right", 10).unwrap().format_for_version(Version::TwoY);
    let mut desk = Desk::new(&format!("{}bob:{dear}\n", line("alice", "right", Version::TwoY)));
    desk.through_a_proxy = true;
    let mut least = Vec::new();
    for name in ["alice", "bob", "nobody"] {
        let mut times = Vec::new();
        for _ in 0..3 {
            let begun = Instant::now();
            assert_eq!(desk.status(&format!("{name}:wrong")).await, StatusCode::UNAUTHORIZED);
            times.push(begun.elapsed());
        }
        least.extend(times.into_iter().min());
    }
    // A hash of the lowest cost takes a 64th of the dear one.
    let (shortest, longest) = (least.iter().min().unwrap(), least.iter().max().unwrap());
    assert!(*longest < *shortest * 4, "{least:?}");
}

#[tokio::test]
async fn a_changed_line_counts_after_a_second_and_what_was_remembered_does_not() {
    let mut desk = Desk::new(&line("alice", "old", Version::TwoY));
    assert_eq!(desk.status("alice:old").await, StatusCode::OK);
    let path = desk.folder.path().join("htpasswd");
    durable::write(&path, line("alice", "new", Version::TwoY).as_bytes(), 0o600).unwrap();
    desk.now += Duration::from_secs(2);
    assert_eq!(desk.status("alice:old").await, StatusCode::UNAUTHORIZED);
    assert_eq!(desk.status("alice:new").await, StatusCode::OK);
}

#[tokio::test]
async fn a_verified_login_is_not_hashed_again() {
    let desk = Desk::new(&line("alice", "right", Version::TwoY));
    assert_eq!(desk.status("alice:right").await, StatusCode::OK);
    desk.htpasswd.verified.run_pending_tasks();
    assert_eq!(desk.htpasswd.verified.entry_count(), 1);
    // Both lanes are full: whoever needed a seat would be refused.
    let mut held = Vec::new();
    for regular in [true, false] {
        held.push(desk.htpasswd.lanes.seat(regular).await.ok().unwrap());
    }
    assert_eq!(desk.status("alice:right").await, StatusCode::OK);
}

#[test]
fn what_distribution_could_not_use_is_refused_by_line_without_saying_it() {
    let folder = tempfile::tempdir().unwrap();
    let good = line("alice", "x", Version::TwoY);
    let dear = good.replace("$04$", "$31$");
    for (text, line, said) in [
        ("alice:$apr1$abc$defsecret", 1, "htpasswd -B"),
        ("# c\nalice:{SHA}secret", 2, "bcrypt"),
        ("alice:$2x$04$secret", 1, "bcrypt"),
        ("alice:$2y$04$secret", 1, "whole"),
        ("secret", 1, "name:bcrypt"),
        (dear.as_str(), 1, "cost 31"),
    ] {
        let problem = open(&folder, text).err().unwrap().to_string();
        assert!(problem.contains(&format!("line {line}: ")) && problem.contains(said), "{problem}");
        assert!(!problem.contains("secret"), "{problem}");
    }
    assert!(open(&folder, "# nobody\n").err().unwrap().to_string().contains("nobody could log in"));
    let missing = Htpasswd::open("r", &folder.path().join("none"), NonZeroU32::MIN).err().unwrap().to_string();
    assert!(missing.contains("htpasswd -Bc"), "{missing}");
}
