//! The storage folder that cannot be written, that hangs, or that lacks something.

use super::*;
use crate::telemetry::Exposition;

#[tokio::test(start_paused = true)]
async fn a_folder_that_cannot_be_written_costs_no_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("acme");
    durable::write(&storage, b"no folder", durable::SECRET).unwrap();
    let fake = Fake::new();
    let node = Node::start(config(&storage, &[&["a.test"]]), &fake);
    node.until(|status| status[0].failures > 2).await;
    let said = node.status()[0].error.clone().unwrap().reason;
    assert!(said.contains("tls.acme.storage"), "{said}");
    assert_eq!(fake.times().len(), 0);
    std::fs::remove_file(&storage).unwrap();
    node.until(|status| status[0].ordered.is_some() && status[0].error.is_none()).await;
    assert_eq!(fake.times().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_issued_and_cannot_be_written_is_written_later_and_not_ordered_again() {
    let folder = tempfile::tempdir().unwrap();
    let occupied = folder.path().join("certificates");
    let fake = Fake::new().will([Deed::IssueAndOccupy(occupied.clone())]);
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    node.until(|status| status[0].error.is_some()).await;
    assert!(node.status()[0].error.as_ref().unwrap().reason.contains("a.test.pem"));
    let kept = std::fs::read_to_string(folder.path().join("attempts/a.test.json")).unwrap();
    let kept: crate::tls::acme::history::History = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept.issued.len(), 1, "it counts before it is there: whoever crashes now has had it");
    std::fs::remove_file(&occupied).unwrap();
    node.until(|status| status[0].ordered.is_some() && status[0].error.is_none()).await;
    assert_eq!(fake.times().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_crashes_left_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let answers = folder.path().join("challenges/http-01");
    durable::make_dirs(&answers).unwrap();
    for name in ["old", "new"] {
        durable::write(&answers.join(name), b"answer", durable::SECRET).unwrap();
    }
    let age = |name: &str, at: SystemTime| {
        let file = std::fs::File::options().write(true).open(answers.join(name)).unwrap();
        file.set_modified(at).unwrap();
    };
    age("old", SystemTime::now() - 2 * DAY);
    age("new", SystemTime::now() - HOUR);
    let settings = config(folder.path(), &[&["a.test"]]);
    let proofs = proofs::proofs(&settings);
    let node = Node::with(settings, &Fake::new(), proofs);
    node.until(|status| status[0].ordered.is_some()).await;
    node.until(|_| !answers.join("old").exists()).await;
    assert!(answers.join("new").exists());
}

/// What is written of attempts for `a.test`.
fn tried(folder: &Path) -> crate::tls::acme::history::History {
    serde_json::from_str(&std::fs::read_to_string(folder.join("attempts/a.test.json")).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_came_to_no_end_counts_also_when_the_next_cannot_begin() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let begun = crate::tls::local::seconds(fake.time()) - 60;
    let file = folder.path().join("attempts/a.test.json");
    durable::make_dirs(file.parent().unwrap()).unwrap();
    durable::write(&file, format!("{{ \"begun\": {begun} }}").as_bytes(), durable::SECRET).unwrap();
    let leases = folder.path().join("leases");
    durable::write(&leases, b"no folder", durable::SECRET).unwrap();
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    node.until(|status| status[0].failures > 3).await;
    let said = node.status()[0].error.clone().unwrap().reason;
    assert!(said.contains("take the lease") && fake.orders.lock().is_empty(), "{said}");
    assert_eq!(tried(folder.path()).begun, Some(begun), "it is not forgotten");
    std::fs::remove_file(&leases).unwrap();
    node.until(|status| status[0].ordered.is_some() && status[0].error.is_none()).await;
    assert_eq!(tried(folder.path()).failed_proofs.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_cannot_take_the_lease_counts_nothing_against_the_node_that_is_at_it() {
    let folder = tempfile::tempdir().unwrap();
    let pause = Duration::from_secs(120);
    let fake = Fake::new().will([Deed::IssueAfter(pause)]);
    let one = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    one.until_orders(1).await;
    let began = tried(folder.path());
    // The number that is the lease now cannot be read as one, while the first goes on with its own.
    let occupied = folder.path().join("leases/a.test.99");
    std::fs::create_dir(&occupied).unwrap();
    let other = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    other.until(|status| status[0].failures > 2).await;
    assert!(began.begun.is_some() && fake.start.elapsed() < pause);
    assert_eq!(tried(folder.path()), began, "what the first tried is as it wrote it");
    one.until(|status| status[0].ordered.is_some()).await;
    let done = tried(folder.path());
    assert!(done.failed_proofs.is_empty() && done.begun.is_none() && done.issued.len() == 1, "{done:?}");
    other.until(|status| status[0].ordered.is_some() && status[0].error.is_none()).await;
    assert_eq!(fake.orders.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_taken_is_told_of_between_the_rounds_too() {
    let folder = tempfile::tempdir().unwrap();
    let occupied = folder.path().join("leases/a.test.1");
    durable::make_dirs(&occupied).unwrap();
    let fake = Fake::new();
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    node.until(|status| status[0].failures > 1).await;
    let shown = |node: &Node| {
        let status = node.status().remove(0);
        let is_counted = !node.metrics.page(Exposition::Prometheus).contains("failures{certificate=\"a.test\"} 0");
        (status.error.map(|error| error.reason), status.failures, is_counted)
    };
    let before = shown(&node);
    assert!(before.0.as_ref().is_some_and(|said| said.contains("take the lease")) && before.2, "{before:?}");
    // The next round gets no further than to the wait for its turn.
    let turns = node.orders.0.turns.acquire_many(AT_A_TIME.try_into().unwrap()).await.unwrap();
    tokio::time::sleep(HOUR).await;
    assert_eq!(shown(&node), before);
    drop(turns);
    node.until(|status| status[0].failures > 2).await;
    // As soon as there is a lease that is over.
    std::fs::remove_dir(&occupied).unwrap();
    fake.always(Deed::Hang);
    node.until_orders(1).await;
    assert_eq!(shown(&node), (None, 0, false));
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_answers_again_is_told_of_no_more_where_nothing_is_to_be_ordered() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new();
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    node.until(|status| status[0].ordered.is_some()).await;
    let file = folder.path().join("attempts/a.test.json");
    let tried = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    node.until(|status| status[0].failures > 1 && status[0].error.is_some()).await;
    std::fs::remove_dir(&file).unwrap();
    durable::write(&file, &tried, durable::SECRET).unwrap();
    node.until(|status| status[0].failures == 0 && status[0].error.is_none()).await;
    assert_eq!(fake.times().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_account_whose_key_was_removed_is_made_anew_after_a_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new().will([Deed::Fail(Kind::Refused)]);
    let node = Node::start(config(folder.path(), &[&["a.test"]]), &fake);
    node.until(|status| status[0].failures == 1).await;
    let key = || {
        let files = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.extension().is_some_and(|end| end == "key"))
    };
    std::fs::remove_file(key().unwrap()).unwrap();
    node.orders.order_now(&[], fake.time()).unwrap();
    node.until(|status| status[0].ordered.is_some()).await;
    assert!(key().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_is_forgotten_once_something_newer_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, occupied) = (folder.path().join("acme"), folder.path().join("acme/certificates"));
    let fake = Fake::new().will([Deed::IssueAndOccupy(occupied.clone())]);
    let slow = Node::start(config(&storage, &[&["a.test"]]), &fake);
    slow.until(|status| status[0].failures >= 9).await; // its next attempt is far away
    std::fs::remove_file(&occupied).unwrap();
    let other = Node::start(config(&storage, &[&["a.test"]]), &fake);
    other.orders.order_now(&[], fake.time()).unwrap();
    other.until(|status| status[0].ordered.is_some()).await;
    drop(other);
    let orders = fake.times().len();
    slow.until(|status| status[0].ordered.is_some()).await;
    let first = slow.status()[0].ordered;
    slow.until(|status| status[0].ordered != first).await;
    assert_eq!(fake.times().len(), orders + 1, "the renewal is another one");
    let second = slow.status()[0].ordered.unwrap();
    assert!(second.duration_since(first.unwrap()).as_hours() > 24 * 50, "{first:?} {second}");
}

#[test]
fn a_folder_that_hangs_is_told_of_takes_few_threads_and_is_used_again_when_it_answers() {
    let threads = AT_FOLDER + 1;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).max_blocking_threads(threads).build().unwrap();
    for (part, end) in [("attempts", "json"), ("leases", "1")] {
        let folder = tempfile::tempdir().unwrap();
        durable::make_dirs(&folder.path().join(part)).unwrap();
        let names: Vec<String> = (0..threads).map(|number| format!("{number}.test")).collect();
        // Whoever opens one waits for somebody who writes.
        let hanging: Vec<PathBuf> =
            names.iter().map(|name| folder.path().join(part).join(format!("{name}.{end}"))).collect();
        assert!(std::process::Command::new("mkfifo").args(&hanging).status().unwrap().success());
        runtime.block_on(async {
            let fake = Fake::new();
            let names: Vec<[&str; 1]> = names.iter().map(|name| [name.as_str()]).collect();
            let certificates: Vec<&[&str]> = names.iter().map(|name| &name[..]).collect();
            let node = Node::start(config(folder.path(), &certificates), &fake);
            let is_said = |status: &Status| {
                let said = status.error.as_ref().map_or("", |error| error.reason.as_str());
                said.contains("has not answered for 30 s") && said.contains("tls.acme.storage")
            };
            let began = std::time::Instant::now();
            // Whoever has the ninth's turn to order is told of, not the ninth.
            while node.status().iter().filter(|status| is_said(status)).count() < AT_FOLDER {
                tokio::time::advance(Duration::from_secs(1)).await; // it does not go by itself while a thread hangs
                assert!(began.elapsed() < Duration::from_secs(60), "{part}: {:#?}", node.status());
            }
            assert!(node.metrics.page(Exposition::Prometheus).contains("pierhead_acme_failures"));
            assert_eq!(tokio::task::spawn_blocking(|| "a thread for others").await.unwrap(), "a thread for others");
            for file in &hanging {
                let answer = std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
                std::fs::remove_file(file).unwrap();
                drop(answer);
            }
            node.until(|status| status.iter().all(|status| status.ordered.is_some() && status.error.is_none())).await;
            assert_eq!(fake.orders.lock().len(), threads, "one for each");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn proofs_that_hang_at_a_folder_are_told_of_and_not_blamed_on_the_authority() {
    struct Hanging;

    #[async_trait]
    impl Proofs for Hanging {
        async fn present(&self, _proof: &Proof) -> Result<(), Failure> {
            std::future::pending().await
        }

        async fn withdraw(&self, _proof: &Proof) {}
    }

    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::new().will([Deed::PresentAndHang]);
    let node = Node::with(config(folder.path(), &[&["a.test"]]), &fake, Arc::new(Hanging));
    let said = |status: &[Status], begins: &str| {
        let said = status[0].error.as_ref().map_or("", |error| error.reason.as_str());
        said.starts_with(begins) && said.contains("tls.acme.storage")
    };
    node.until(|status| said(status, "the proof that a.test is ours cannot be shown by tls-alpn-01")).await;
    assert!(fake.start.elapsed() < Duration::from_secs(90), "while the order goes on: {:?}", fake.start.elapsed());
    node.until(|status| said(status, "it was given up after 900 s: the proof that a.test is ours")).await;
    let page = node.metrics.page(Exposition::Prometheus);
    assert!(page.contains("pierhead_acme_orders_total{outcome=\"ours\"} 1"), "{page}");
    node.until(|status| status[0].ordered.is_some() && status[0].error.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn an_account_key_that_hangs_is_waited_for_and_not_blamed_on_the_authority() {
    let folder = tempfile::tempdir().unwrap();
    let settings = config(folder.path(), &[&["a.test"]]);
    let key = folder.path().join(format!("account-{}.key", crate::tls::acme::place::digest(&settings.directory)));
    // Whoever opens it waits for somebody who writes.
    assert!(std::process::Command::new("mkfifo").arg(&key).status().unwrap().success());
    let fake = Fake::new();
    let node = Node::start(settings, &fake);
    let is_said = || {
        let error = node.status()[0].error.clone();
        error.is_some_and(|error| error.reason.contains("the folder has not answered for 30 s (tls.acme.storage)"))
    };
    let began = std::time::Instant::now();
    while node.status()[0].since.is_none() {
        tokio::task::yield_now().await; // no time goes by: whatever else is done at the folder comes to its end
        assert!(began.elapsed() < Duration::from_secs(60), "{:#?}", node.status());
    }
    let mut told_after = 0;
    while told_after < 120 && !is_said() {
        tokio::time::advance(Duration::from_secs(1)).await; // it does not go by itself while a thread hangs
        told_after += 1;
    }
    let answer = std::fs::OpenOptions::new().read(true).write(true).open(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    drop(answer);
    assert!((30..60).contains(&told_after), "{told_after} s: {:#?}", node.status());
    node.until(|status| status[0].ordered.is_some() && status[0].error.is_none()).await;
    let page = node.metrics.page(Exposition::Prometheus);
    assert!(!page.contains("outcome=\"unreachable\"} 1"), "{page}");
}
