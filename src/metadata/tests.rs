use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::oci::{Algorithm, Digest, RepositoryName};

const THEN: Timestamp = Timestamp::constant(1_700_000_000, 0);

async fn database() -> (TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&Database::path_in(folder.path())).await.unwrap();
    (folder, database)
}

fn account(name: &str, is_admin: bool) -> Account {
    Account { name: name.parse().unwrap(), password: format!("$of-{name}"), is_admin, created_at: THEN }
}

fn project(path: &str) -> Project {
    Project { path: path.parse().unwrap(), visibility: Visibility::Private, created_at: THEN }
}

fn member(path: &str, account: &str, role: Role) -> Member {
    Member { path: path.parse().unwrap(), account: account.parse().unwrap(), role, created_at: THEN }
}

async fn standing(database: &Database, account: &str, repository: &str) -> (Option<String>, Option<Role>) {
    let account: AccountName = account.parse().unwrap();
    let standing = database.standing(Some(&account), &repository.parse().unwrap()).await.unwrap();
    let path = standing.project.as_ref().map(|project| project.path.clone());
    let role = path.as_ref().and_then(|path| standing.role_at(path));
    (path.map(|path| path.to_string()), role)
}

#[tokio::test]
async fn the_database_its_log_and_its_index_are_its_owners_alone() {
    let (folder, database) = database().await;
    database.add_account(&account("alice", false)).await.unwrap();
    let mode = |suffix: &str| {
        let path = folder.path().join(format!("{FILE_NAME}{suffix}"));
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!([mode(""), mode("-wal"), mode("-shm")], [0o600; 3]);
}

#[tokio::test]
async fn a_database_that_others_could_read_is_closed_to_them() {
    let (folder, database) = database().await;
    database.close().await;
    let path = Database::path_in(folder.path());
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    Database::open(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn accounts_come_back_as_they_were_stored_and_names_are_taken_once() {
    let (_folder, database) = database().await;
    assert!(database.add_account(&account("Alice", true)).await.unwrap());
    assert!(!database.add_account(&account("alice", false)).await.unwrap());
    let alice: AccountName = "ALICE".parse().unwrap();
    assert_eq!(
        database.account(&alice).await.unwrap(),
        Some(account("alice", true)).map(|found| Account { password: "$of-Alice".to_owned(), ..found })
    );
    assert!(database.set_password(&alice, "$new").await.unwrap());
    assert_eq!(database.account(&alice).await.unwrap().unwrap().password, "$new");
    assert!(!database.set_password(&"bob".parse().unwrap(), "$new").await.unwrap());
}

#[tokio::test]
async fn the_last_admin_cannot_be_removed_and_others_leave_with_their_memberships() {
    let (_folder, database) = database().await;
    database.add_account(&account("root", true)).await.unwrap();
    database.add_account(&account("bob", false)).await.unwrap();
    assert!(database.set_member(&member("g", "bob", Role::Owner)).await.unwrap());
    let remove = async |name: &str| database.remove_account(&name.parse().unwrap(), Run::Real).await.unwrap();
    assert_eq!(remove("root").await, Removal::LastAdmin);
    assert_eq!(remove("bob").await, Removal::Removed);
    assert_eq!(remove("bob").await, Removal::Unknown);
    assert!(database.members(&"g".parse().unwrap(), None).await.unwrap().is_empty());
    database.add_account(&account("second", true)).await.unwrap();
    assert_eq!(remove("root").await, Removal::Removed);
}

#[tokio::test]
async fn the_first_admin_is_added_only_while_there_is_none() {
    let (_folder, database) = database().await;
    database.add_account(&account("bob", false)).await.unwrap();
    assert!(!database.has_admin().await.unwrap());
    assert!(!database.add_first_admin(&account("bob", true)).await.unwrap());
    assert!(database.add_first_admin(&account("admin", true)).await.unwrap());
    assert!(database.has_admin().await.unwrap());
    assert!(!database.add_first_admin(&account("other", true)).await.unwrap());
}

#[tokio::test]
async fn a_repository_belongs_to_the_longest_project_path_before_it() {
    let (_folder, database) = database().await;
    for path in ["a", "a/b", "a/b/c/d", "a/bc"] {
        assert!(database.add_project(&project(path)).await.unwrap());
    }
    assert!(!database.add_project(&project("a")).await.unwrap());
    for (repository, expected) in
        [("a", "a"), ("a/x", "a"), ("a/b", "a/b"), ("a/b/c", "a/b"), ("a/b/c/d/e", "a/b/c/d"), ("a/bcd", "a")]
    {
        let found = database.project_of(&repository.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(found.path.as_str(), expected, "{repository}");
    }
    assert_eq!(database.project_of(&"b".parse().unwrap()).await.unwrap(), None);
}

#[tokio::test]
async fn a_role_on_a_group_holds_below_it_and_the_highest_counts() {
    let (_folder, database) = database().await;
    database.add_account(&account("bob", false)).await.unwrap();
    for path in ["g/app", "g/sub/app", "other/app"] {
        database.add_project(&project(path)).await.unwrap();
    }
    for (path, role) in [("g", Role::Reporter), ("g/sub", Role::Maintainer), ("g/sub/app", Role::Guest)] {
        assert!(database.set_member(&member(path, "bob", role)).await.unwrap());
    }
    assert_eq!(standing(&database, "bob", "g/app/x").await, (Some("g/app".to_owned()), Some(Role::Reporter)));
    assert_eq!(standing(&database, "bob", "g/sub/app").await, (Some("g/sub/app".to_owned()), Some(Role::Maintainer)));
    assert_eq!(standing(&database, "bob", "other/app").await, (Some("other/app".to_owned()), None));
    assert_eq!(standing(&database, "carol", "g/app").await, (Some("g/app".to_owned()), None));
    database.set_member(&member("g", "bob", Role::Owner)).await.unwrap();
    assert_eq!(standing(&database, "bob", "g/app").await.1, Some(Role::Owner));
    assert!(!database.set_member(&member("g", "nobody", Role::Owner)).await.unwrap());
}

#[tokio::test]
async fn a_membership_below_the_project_does_not_count_for_it() {
    let (_folder, database) = database().await;
    database.add_account(&account("bob", false)).await.unwrap();
    database.add_project(&project("g")).await.unwrap();
    database.set_member(&member("g/app", "bob", Role::Owner)).await.unwrap();
    assert_eq!(standing(&database, "bob", "g/app/x").await, (Some("g".to_owned()), None));
}

#[tokio::test]
async fn a_project_made_again_does_not_inherit_the_members_of_the_removed_one() {
    let (_folder, database) = database().await;
    database.add_account(&account("bob", false)).await.unwrap();
    for path in ["g", "g/app"] {
        database.add_project(&project(path)).await.unwrap();
        database.set_member(&member(path, "bob", Role::Developer)).await.unwrap();
    }
    let members = async |path: &str| database.members(&path.parse().unwrap(), None).await.unwrap().len();
    let remove = async |path: &str| database.remove_project(&path.parse().unwrap(), false, Run::Real).await.unwrap();
    assert_eq!(remove("g").await, ProjectRemoval::Removed(None));
    assert_eq!(members("g").await, 1, "still the group of g/app");
    assert_eq!(remove("g/app").await, ProjectRemoval::Removed(None));
    assert_eq!(members("g/app").await, 1, "only that of the group");
    assert_eq!(remove("g/app").await, ProjectRemoval::Unknown);
}

#[tokio::test]
async fn repositories_of_a_removed_project_fall_to_more_people_only_on_purpose() {
    use Visibility::{Internal, Private, Public};
    for (above, removed) in
        Visibility::ALL.into_iter().flat_map(|above| Visibility::ALL.map(|removed| (above, removed)))
    {
        let (_folder, database) = database().await;
        let [top, heir, nested] = [("pub", Private), ("pub/app", above), ("pub/app/x/secret", removed)]
            .map(|(path, visibility)| Project { visibility, ..project(path) });
        for project in [&top, &heir, &nested] {
            assert!(database.add_project(project).await.unwrap());
        }
        assert_eq!(database.project_above(&nested.path).await.unwrap().as_ref(), Some(&heir));
        assert_eq!(database.project_above(&top.path).await.unwrap(), None);
        let remove = async |may_widen, run| database.remove_project(&nested.path, may_widen, run).await.unwrap();
        let gone = ProjectRemoval::Removed(Some(heir.clone()));
        if matches!((removed, above), (Private, Internal | Public) | (Internal, Public)) {
            for run in [Run::Dry, Run::Real] {
                assert_eq!(remove(false, run).await, ProjectRemoval::Wider(heir.clone()), "{removed} under {above}");
            }
            assert_eq!(remove(true, Run::Dry).await, gone);
        } else {
            assert_eq!(remove(false, Run::Dry).await, gone, "{removed} under {above}");
        }
        assert_eq!(database.project_of(&"pub/app/x/secret/y".parse().unwrap()).await.unwrap(), Some(nested.clone()));
        assert_eq!(remove(true, Run::Real).await, gone);
        assert_eq!(database.project_of(&"pub/app/x/secret/y".parse().unwrap()).await.unwrap(), Some(heir));
    }
}

#[tokio::test]
async fn listings_come_in_order_and_page_by_page() {
    let (_folder, database) = database().await;
    let mut transaction = database.begin().await.unwrap();
    for number in 0..PAGE + 5 {
        sqlx::query("INSERT INTO projects VALUES ($1, 'public', 0)")
            .bind(format!("p{number:05}"))
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    let first = database.projects(None).await.unwrap();
    let second = database.projects(first.last().map(|last| &last.path)).await.unwrap();
    assert_eq!((first.len(), second.len()), (PAGE as usize, 5));
    assert!(first.iter().chain(&second).map(|project| &project.path).is_sorted());
}

#[tokio::test]
async fn members_are_listed_with_those_of_the_groups_above() {
    let (_folder, database) = database().await;
    for name in ["bob", "alice"] {
        database.add_account(&account(name, false)).await.unwrap();
    }
    for (path, name) in [("g", "bob"), ("g", "alice"), ("g/app", "bob"), ("g/apple", "bob")] {
        database.set_member(&member(path, name, Role::Guest)).await.unwrap();
    }
    let path: ProjectPath = "g/app".parse().unwrap();
    let listed = |members: Vec<Member>| -> Vec<String> {
        members.iter().map(|member| format!("{} {}", member.path, member.account)).collect()
    };
    assert_eq!(listed(database.members(&path, None).await.unwrap()), ["g alice", "g bob", "g/app bob"]);
    let after = ("g".parse().unwrap(), "alice".parse().unwrap());
    assert_eq!(listed(database.members(&path, Some(&after)).await.unwrap()), ["g bob", "g/app bob"]);
    assert!(database.remove_member(&path, &"bob".parse().unwrap(), Run::Real).await.unwrap());
    assert!(!database.remove_member(&path, &"bob".parse().unwrap(), Run::Real).await.unwrap());
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let (_folder, database) = database().await;
    let (bob, app): (AccountName, ProjectPath) = ("bob".parse().unwrap(), "g/app".parse().unwrap());
    database.add_account(&account("root", true)).await.unwrap();
    database.add_account(&account("bob", false)).await.unwrap();
    database.add_project(&project("g/app")).await.unwrap();
    database.set_member(&member("g/app", "bob", Role::Owner)).await.unwrap();
    for run in [Run::Dry, Run::Dry, Run::Real] {
        assert!(database.remove_member(&app, &bob, run).await.unwrap());
    }
    for run in [Run::Dry, Run::Dry, Run::Real] {
        assert_eq!(database.remove_project(&app, false, run).await.unwrap(), ProjectRemoval::Removed(None));
        assert_eq!(database.remove_account(&bob, run).await.unwrap(), Removal::Removed);
    }
    assert_eq!(database.remove_account(&bob, Run::Dry).await.unwrap(), Removal::Unknown);
    assert_eq!(database.remove_account(&"root".parse().unwrap(), Run::Dry).await.unwrap(), Removal::LastAdmin);
    assert_eq!(database.remove_project(&app, false, Run::Dry).await.unwrap(), ProjectRemoval::Unknown);
}

#[tokio::test]
async fn groups_are_known_by_the_projects_below_them() {
    let (_folder, database) = database().await;
    database.add_project(&project("g/sub/app")).await.unwrap();
    for (path, expected) in [("g", true), ("g/sub", true), ("g/sub/app", true), ("g/su", false), ("g/sub/app/x", false)]
    {
        assert_eq!(database.is_project_or_group(&path.parse().unwrap()).await.unwrap(), expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_may_open_and_write_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = Database::path_in(folder.path());
    let (one, two) = tokio::join!(Database::open(&path), Database::open(&path));
    let handles = [one.unwrap(), two.unwrap()];
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..60 {
        let database = handles[number % 2].clone();
        tasks.spawn(async move {
            let name = format!("user{number}");
            assert!(database.add_account(&account(&name, true)).await.unwrap());
            assert!(database.account(&name.parse().unwrap()).await.unwrap().is_some());
            if number % 3 == 0 {
                assert_eq!(database.remove_account(&name.parse().unwrap(), Run::Real).await.unwrap(), Removal::Removed);
            }
        });
    }
    tasks.join_all().await;
    for database in &handles {
        assert_eq!(database.accounts(None).await.unwrap().len(), 40);
    }
}

#[tokio::test]
async fn what_one_process_wrote_the_other_reads_at_once() {
    let (folder, server) = database().await;
    let cli = Database::open(&Database::path_in(folder.path())).await.unwrap();
    let bob: AccountName = "bob".parse().unwrap();
    assert_eq!(server.account(&bob).await.unwrap(), None);
    cli.add_account(&account("bob", false)).await.unwrap();
    cli.close().await;
    assert!(server.account(&bob).await.unwrap().is_some());
}

#[tokio::test]
async fn the_state_is_the_same_until_somebody_writes() {
    let (folder, database) = database().await;
    let path = Database::path_in(folder.path());
    let other = Database::open(&path).await.unwrap();
    let state = |of: &Database| of.state().unwrap();
    let alice: AccountName = "alice".parse().unwrap();
    for name in ["alice", "bob"] {
        let before = state(&database);
        assert!(other.add_account(&account(name, false)).await.unwrap());
        assert_ne!(state(&database), before, "another connection wrote");
    }
    let before = state(&database);
    assert!(database.account(&alice).await.unwrap().is_some());
    database.remove_account(&alice, Run::Dry).await.unwrap();
    assert_eq!(state(&database), before, "what was read or taken back");
    assert_eq!(state(&other), before, "it is the same for all");
    database.remove_account(&alice, Run::Real).await.unwrap();
    assert_ne!(state(&database), before, "we wrote");

    let linked = folder.path().join("linked.db");
    std::os::unix::fs::symlink(&path, &linked).unwrap();
    let linked = Database::open(&linked).await.unwrap();
    assert_eq!(linked.state(), database.state(), "by another name");
}

#[tokio::test]
async fn an_index_that_was_removed_tells_no_state() {
    for asked_before in [true, false] {
        let (folder, database) = database().await;
        assert!(!asked_before || database.state().is_some());
        std::fs::remove_file(Database::path_in(folder.path()).with_extension("db-shm")).unwrap();
        assert_eq!(database.state(), None);
    }
}

#[tokio::test]
async fn that_an_index_was_removed_is_said_once_and_at_the_end_of_the_server_not_at_all() {
    let (folder, removed) = database().await;
    let (_other, closed) = database().await;
    let (_guard, said) = crate::heard::heard(tracing::Level::WARN);
    closed.close().await;
    assert_eq!(closed.state(), None);
    assert!(said.lock().is_empty(), "{said:?}");
    std::fs::remove_file(Database::path_in(folder.path()).with_extension("db-shm")).unwrap();
    for _ in 0..3 {
        assert_eq!(removed.state(), None);
    }
    let said = String::from_utf8(said.lock().clone()).unwrap();
    assert_eq!(said.matches("db-shm was removed or replaced").count(), 1, "{said}");
}

#[tokio::test]
async fn an_index_that_only_has_another_name_left_tells_no_state() {
    let (folder, database) = database().await;
    assert!(database.state().is_some());
    let index = Database::path_in(folder.path()).with_extension("db-shm");
    std::fs::hard_link(&index, folder.path().join("backup")).unwrap();
    assert!(database.state().is_some());
    std::fs::remove_file(&index).unwrap();
    assert_eq!(database.state(), None);
}

#[tokio::test]
async fn an_index_that_could_not_be_opened_is_tried_again() {
    let (folder, database) = database().await;
    let index = Database::path_in(folder.path()).with_extension("db-shm");
    let elsewhere = folder.path().join("elsewhere");
    std::fs::hard_link(&index, &elsewhere).unwrap();
    std::fs::remove_file(&index).unwrap();
    assert_eq!(database.state(), None);
    std::fs::hard_link(&elsewhere, &index).unwrap();
    assert!(database.state().is_some());
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let (folder, database) = database().await;
    sqlx::query("INSERT INTO _sqlx_migrations VALUES (9999, 'future', CURRENT_TIMESTAMP, TRUE, X'00', 0)")
        .execute(&database.writer)
        .await
        .unwrap();
    let refused = Database::open(&Database::path_in(folder.path())).await.unwrap_err();
    assert!(matches!(&refused, Error::Open { source, .. } if matches!(**source, Error::Newer(9999))), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = Database::path_in(folder.path());
    let mut file = OpenOptions::new().create_new(true).write(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, &[b'x'; 4096]).unwrap();
    let refused = Database::open(&path).await.unwrap_err();
    assert!(matches!(&refused, Error::Open { source, .. } if matches!(**source, Error::Damaged(_))), "{refused}");
    assert!(refused.to_string().starts_with(&format!("{}: ", path.display())), "{refused}");
}

#[tokio::test]
async fn manifests_are_noted_once_found_by_subject_in_order_and_forgotten_in_parts() {
    let (_folder, database) = database().await;
    let repository: RepositoryName = "g/p".parse().unwrap();
    let digest = |number: usize| Digest::of(Algorithm::Sha256, number.to_string().as_bytes());
    let subject = Digest::of(Algorithm::Sha512, b"subject");
    let known: Vec<KnownManifest> = (0..MANIFESTS_AT_ONCE)
        .map(|number| KnownManifest {
            digest: digest(number),
            subject: number.is_multiple_of(2).then(|| subject.clone()),
            size: number as u64,
            published_at: THEN,
        })
        .collect();
    for _ in 0..2 {
        database.note_manifests(&repository, &known).await.unwrap();
    }
    let more = KnownManifest { digest: digest(MANIFESTS_AT_ONCE), ..known[0].clone() };
    database.note_manifests(&repository, std::slice::from_ref(&more)).await.unwrap();
    database.note_manifests(&repository, &[]).await.unwrap();

    let asked = vec![digest(5000), digest(1), digest(5001)];
    assert_eq!(database.unknown_manifests(&repository, asked).await.unwrap(), [digest(5000), digest(5001)]);
    let elsewhere: RepositoryName = "g/other".parse().unwrap();
    assert_eq!(database.unknown_manifests(&elsewhere, vec![digest(1)]).await.unwrap(), [digest(1)]);

    let mut expected: Vec<Digest> = (0..=MANIFESTS_AT_ONCE).step_by(2).map(digest).collect();
    expected.sort();
    let found = database.referring_manifests(&repository, &subject, None).await.unwrap();
    assert_eq!(found, expected);
    assert_eq!(database.referring_manifests(&repository, &subject, Some(&found[9])).await.unwrap(), expected[10..]);
    assert!(database.referring_manifests(&elsewhere, &subject, None).await.unwrap().is_empty());

    assert_eq!(database.manifests_forgotten().await.unwrap(), 0);
    assert_eq!(
        [database.forget_manifests().await.unwrap(), database.forget_manifests().await.unwrap()],
        [true, true],
        "a thousand, then the last"
    );
    assert!(!database.forget_manifests().await.unwrap());
    assert_eq!(database.manifests_forgotten().await.unwrap(), 3);
    assert!(database.referring_manifests(&repository, &subject, None).await.unwrap().is_empty());
}
