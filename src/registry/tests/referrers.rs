//! Claims about what is found through the index: as much as by reading everything, whoever wrote it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::*;
use crate::metadata::Database;
use crate::storage::durable;
use crate::storage::fault::FaultDriver;

/// A registry with an index, and another one without on the same tree: another program.
struct Indexed {
    ours: Fixture,
    other: Fixture,
    database: Database,
    driver: Arc<FaultDriver>,
}

impl Indexed {
    async fn new() -> Self {
        let other = Fixture::large();
        let database = Database::open(&Database::path_in(other.dir.path())).await.unwrap();
        let driver = Arc::new(FaultDriver::counting(Arc::new(Filesystem::new(other.dir.path()))));
        let index = Index::in_database(database.clone());
        let ours = Fixture::with_index(other.dir.clone(), driver.clone(), true, index);
        Self { ours, other, database, driver }
    }

    /// Asks both and claims that they say the same.
    async fn listed(&self, subject: &Digest) -> Vec<String> {
        let question = format!("GET /v2/a/referrers/{subject}");
        let answer = self.ours.ask(&question).await.expect(200);
        assert_eq!(answer.body, self.other.ask(&question).await.expect(200).body);
        digests_of(&answer)
    }

    /// Asks until the tree was left alone for so long that a question reads nothing but what it lists.
    async fn settle(&self, subject: &Digest) {
        let started = Instant::now();
        loop {
            let before = self.driver.calls();
            let listed = self.listed(subject).await.len();
            // Two marks for each of two looks, and a link and a blob of each referrer.
            if self.driver.calls() - before == 4 + 2 * listed {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "questions stay expensive");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn digests_of(answer: &Response) -> Vec<String> {
    let listed = answer.json()["manifests"].as_array().unwrap().clone();
    listed.iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
}

/// Pushes a manifest about a subject.
async fn push_referrer(fixture: &Fixture, subject: &Digest, word: &str) -> Digest {
    let config = fixture.push_blob("a", "{}").await;
    let mut document = image(&config, &[]);
    document["subject"] = descriptor(OCI_MANIFEST, subject);
    document["artifactType"] = json!("a/signature");
    document["annotations"] = json!({ "word": word });
    let digest = sha256(document.to_string().as_bytes());
    fixture.push_manifest("a", &digest.to_string(), &document).await.expect(201);
    digest
}

fn link_of(fixture: &Fixture, digest: &Digest) -> PathBuf {
    fixture.path(&format!("repositories/a/_manifests/revisions/sha256/{}/link", digest.hex()))
}

#[tokio::test]
async fn what_we_and_what_others_write_and_take_away_is_seen_at_once() {
    let both = Indexed::new().await;
    let subject = both.ours.push_image("a", "v1", "x").await;
    let mut expected = Vec::new();
    for number in 0..4 {
        let writer = if number % 2 == 0 { &both.ours } else { &both.other };
        expected.push(push_referrer(writer, &subject, &number.to_string()).await.to_string());
        expected.sort();
        assert_eq!(both.listed(&subject).await, expected);
    }
    assert!(both.listed(&sha256(b"nobody speaks of it")).await.is_empty());
    for deleter in [&both.ours, &both.other] {
        deleter.ask(&format!("DELETE /v2/a/manifests/{}", expected.remove(0))).await.expect(202);
        assert_eq!(both.listed(&subject).await, expected);
    }
}

#[tokio::test]
async fn a_question_costs_what_it_lists_and_still_sees_everything_new() {
    let both = Indexed::new().await;
    let subject = both.ours.push_image("a", "v1", "x").await;
    for word in ["b", "c", "d"] {
        both.ours.push_image("a", word, word).await;
    }
    let first = push_referrer(&both.ours, &subject, "first").await;
    // Another program made the folder and not yet the link.
    let second = push_referrer(&both.other, &subject, "second").await;
    let link = link_of(&both.other, &second);
    std::fs::remove_file(&link).unwrap();
    let before = both.driver.calls();
    assert_eq!(both.listed(&subject).await, [first.to_string()]);
    assert!(both.driver.calls() - before > 20, "the first question reads all there is");

    // It stays expensive by the one that cannot be read, and by no more.
    let started = Instant::now();
    loop {
        let before = both.driver.calls();
        both.listed(&subject).await;
        if both.driver.calls() - before == 4 + 2 + 2 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "questions stay expensive");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    durable::write(&link, second.to_string().as_bytes(), 0o644).unwrap();
    let mut expected = vec![first.to_string(), second.to_string()];
    expected.sort();
    assert_eq!(both.listed(&subject).await, expected);

    both.settle(&subject).await;
    // Taken away and put back as Distribution does it: the folder stays.
    std::fs::remove_file(&link).unwrap();
    assert_eq!(both.listed(&subject).await, [first.to_string()]);
    durable::write(&link, second.to_string().as_bytes(), 0o644).unwrap();
    assert_eq!(both.listed(&subject).await, expected);
    expected.push(push_referrer(&both.other, &subject, "third").await.to_string());
    expected.sort();
    assert_eq!(both.listed(&subject).await, expected);
}

#[tokio::test]
async fn damaged_content_is_not_listed_until_it_is_repaired() {
    let both = Indexed::new().await;
    let subject = sha256(b"not there");
    let digest = push_referrer(&both.other, &subject, "x").await;
    let hex = digest.hex();
    let blob = both.ours.path(&format!("blobs/sha256/{}/{hex}/data", &hex[..2]));
    let content = std::fs::read(&blob).unwrap();
    durable::write(&blob, b"torn", 0o644).unwrap();
    assert!(both.listed(&subject).await.is_empty());
    both.listed(&subject).await;
    durable::write(&blob, &content, 0o644).unwrap();
    assert_eq!(both.listed(&subject).await, [digest.to_string()]);
    durable::write(&blob, b"torn again", 0o644).unwrap();
    assert!(both.listed(&subject).await.is_empty());
}

#[tokio::test]
async fn rows_that_were_taken_out_are_missed_by_nobody() {
    let both = Indexed::new().await;
    let subject = both.ours.push_image("a", "v1", "x").await;
    let mut expected = Vec::new();
    for word in ["b", "c", "d"] {
        expected.push(push_referrer(&both.ours, &subject, word).await.to_string());
    }
    expected.sort();
    both.settle(&subject).await;
    assert!(both.database.forget_manifests().await.unwrap());
    assert_eq!(both.listed(&subject).await, expected);

    let registry = Registry::new(
        Config::new(both.ours.dir.path().to_owned()),
        Arc::new(Filesystem::new(both.ours.dir.path())),
        Index::in_database(both.database.clone()),
    );
    let counts = Counts::default();
    let rebuilding = async {
        for _ in 0..20 {
            registry.reindex(&counts).await.unwrap();
        }
    };
    let asking = async {
        for _ in 0..20 {
            assert_eq!(both.listed(&subject).await, expected);
        }
    };
    tokio::join!(rebuilding, asking);
    assert_eq!(counts.repositories.load(Ordering::Relaxed), 20);
    // Those that a question read first were not read a second time.
    assert!(counts.manifests.load(Ordering::Relaxed) <= 20 * 4);
}

#[tokio::test]
async fn without_the_database_there_are_pushes_and_pulls_and_no_short_lists() {
    let both = Indexed::new().await;
    let subject = sha256(b"not there");
    push_referrer(&both.ours, &subject, "x").await;
    both.listed(&subject).await;
    both.database.close().await;
    push_referrer(&both.ours, &subject, "y").await;
    both.ours.ask(&format!("GET /v2/a/referrers/{subject}")).await.expect_error(503, "UNAVAILABLE");
}

#[tokio::test]
async fn where_the_database_takes_nothing_new_a_list_is_whole_and_in_order_all_the_same() {
    let both = Indexed::new().await;
    let subject = sha256(b"not there");
    let mut expected = Vec::new();
    for number in 0..8 {
        // Some have rows, some were never read: in the order of digests both are everywhere.
        if number == 4 {
            both.listed(&subject).await;
            both.database.refuse_writes(true).await;
        }
        expected.push(push_referrer(&both.ours, &subject, &number.to_string()).await.to_string());
        push_referrer(&both.ours, &sha256(b"of another"), &number.to_string()).await;
    }
    expected.sort();
    for _ in 0..3 {
        assert_eq!(both.listed(&subject).await, expected);
    }
    let rest = both.ours.ask(&format!("GET /v2/a/referrers/{subject}?last={}", expected[2])).await.expect(200);
    assert_eq!(digests_of(&rest), expected[3..]);
    let noted = both.database.referring_manifests(&"a".parse().unwrap(), &subject, None).await.unwrap();
    assert_eq!(noted.len(), 4, "nothing was noted");

    both.database.refuse_writes(false).await;
    both.settle(&subject).await;
    assert_eq!(both.listed(&subject).await, expected);
    let noted = both.database.referring_manifests(&"a".parse().unwrap(), &subject, None).await.unwrap();
    assert_eq!(noted.len(), 8);
}

/// Once all is remembered, but for what could not be noted, a question reads that and no more.
#[tokio::test]
async fn what_could_not_be_noted_is_all_that_is_read_again() {
    let both = Indexed::new().await;
    let subject = sha256(b"not there");
    for number in 0..4 {
        push_referrer(&both.ours, &sha256(b"of another"), &number.to_string()).await;
    }
    both.listed(&subject).await;
    both.database.refuse_writes(true).await;
    push_referrer(&both.ours, &subject, "unnoted").await;
    let started = Instant::now();
    loop {
        let before = both.driver.calls();
        assert_eq!(both.listed(&subject).await.len(), 1);
        // For each of two looks two marks, and a link, a blob and an age to learn; a link and a blob to list.
        if both.driver.calls() - before == 2 * (2 + 3) + 2 {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "questions stay expensive");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn filters_and_pages_are_the_same_with_an_index() {
    let both = Indexed::new().await;
    let subject = sha256(b"not there");
    for number in 0..5 {
        push_referrer(&both.ours, &subject, &number.to_string()).await;
    }
    let middle = format!("?last=sha256:8{}&n=2", "0".repeat(63));
    for query in ["?n=2", "?artifactType=a%2Fsignature&n=3", "?artifactType=other", "?n=0", &middle] {
        let mut next = format!("/v2/a/referrers/{subject}{query}");
        loop {
            let (ours, theirs) =
                (both.ours.ask(&format!("GET {next}")).await, both.other.ask(&format!("GET {next}")).await);
            let (ours, theirs) = (ours.expect(200), theirs.expect(200));
            assert_eq!((&ours.body, &ours.headers), (&theirs.body, &theirs.headers));
            let Some(link) = ours.header("link").strip_suffix(">; rel=\"next\"") else { break };
            next = link[1..].to_owned();
        }
    }
    // Which would begin the list anew, again and again.
    for no_digest in ["v1", "sha256:8", "7"] {
        let request = format!("GET /v2/a/referrers/{subject}?last={no_digest}");
        both.ours.ask(&request).await.expect_error(400, "DIGEST_INVALID");
    }
}

/// What clients leave on a registry without a list of referrers: the artifacts, and an index of them under a tag made of
/// the subject's digest (OCI distribution-spec, "Referrers Tag Schema").
#[tokio::test]
async fn what_clients_listed_under_a_fallback_tag_is_found_if_it_names_the_subject() {
    let both = Indexed::new().await;
    let subject = both.other.push_image("a", "v1", "x").await;
    let signature = push_referrer(&both.other, &subject, "signature").await;
    let elsewhere = push_referrer(&both.other, &sha256(b"another subject"), "elsewhere").await;
    let unspoken = both.other.push_image("a", "plain", "of nobody").await;
    let mut index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] });
    for listed in [&signature, &signature, &elsewhere, &unspoken] {
        let mut entry = descriptor(OCI_MANIFEST, listed);
        entry["artifactType"] = json!("a/signature");
        index["manifests"].as_array_mut().unwrap().push(entry);
    }
    let tag = subject.to_string().replace(':', "-");
    both.other.push_manifest("a", &tag, &index).await.expect(201);
    assert_eq!(both.listed(&subject).await, [signature.to_string()], "once, and not what is about something else");
    // The list is still there for those who read it.
    assert_eq!(both.ours.ask(&format!("GET /v2/a/manifests/{tag}")).await.expect(200).json(), index);
}
