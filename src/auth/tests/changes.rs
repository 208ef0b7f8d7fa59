//! What is changed counts in the next token, whoever changes it: this process, or another one as the command line is.

use std::process::Command;

use super::*;

/// Tells a child which change to make to which database.
const CHANGE: &str = "PIERHEAD_TEST_CHANGE";
const DATABASE: &str = "PIERHEAD_TEST_DATABASE";

/// A change, who asks for what, and what that gave before and gives afterwards.
struct Case {
    change: &'static str,
    name: &'static str,
    scope: &'static str,
    before: &'static [&'static str],
    after: &'static [&'static str],
}

const SECRET: &str = "repository:team/secret:pull,push";
const WRONG: &str = "401 Unauthorized";
const CASES: [Case; 5] = [
    Case { change: "password", name: "alice", scope: SECRET, before: &[SECRET], after: &[WRONG] },
    Case { change: "account", name: "alice", scope: SECRET, before: &[SECRET], after: &[WRONG] },
    Case { change: "member", name: "alice", scope: SECRET, before: &[SECRET], after: &[] },
    Case { change: "visibility", name: "bob", scope: SECRET, before: &[], after: &["repository:team/secret:pull"] },
    Case { change: "project", name: "alice", scope: SECRET, before: &[SECRET], after: &[] },
];

async fn make(change: &str, database: &Database) {
    let (alice, team, secret) =
        ("alice".parse().unwrap(), "team".parse().unwrap(), "team/secret".parse::<metadata::ProjectPath>().unwrap());
    match change {
        "password" => {
            let hash = "another horse".parse::<Password>().unwrap().hash().unwrap();
            assert!(database.set_password(&alice, &hash).await.unwrap());
        }
        "account" => {
            let removal = database.remove_account(&alice, metadata::Run::Real).await.unwrap();
            assert_eq!(removal, metadata::Removal::Removed);
        }
        "member" => assert!(database.remove_member(&team, &alice, metadata::Run::Real).await.unwrap()),
        "visibility" => assert!(database.set_visibility(&secret, Visibility::Public).await.unwrap()),
        "project" => {
            let removal = database.remove_project(&secret, true, metadata::Run::Real).await.unwrap();
            assert_eq!(removal, metadata::ProjectRemoval::Removed(None));
        }
        other => panic!("{other}"),
    }
}

/// Asks three times, so that what can be remembered is.
async fn asked(office: &Office, case: &Case) -> Vec<String> {
    for _ in 0..2 {
        office.granted(case.name, case.scope).await;
    }
    office.granted(case.name, case.scope).await
}

#[tokio::test]
async fn what_this_process_changes_counts_in_the_next_token() {
    for case in CASES {
        let office = Office::open().await;
        assert_eq!(asked(&office, &case).await, case.before, "{}", case.change);
        make(case.change, &office.database).await;
        assert_eq!(office.granted(case.name, case.scope).await, case.after, "{}", case.change);
    }
}

#[tokio::test]
async fn what_another_process_changes_counts_in_the_next_token() {
    for case in CASES {
        let office = Office::open().await;
        assert_eq!(asked(&office, &case).await, case.before, "{}", case.change);
        assert!(office.authority.permissions.remembered() > 0, "otherwise this shows nothing");
        let mut child = Command::new(std::env::current_exe().unwrap());
        let child = child.args(["--exact", "auth::tests::changes::another_process_makes_the_change_that_it_is_told"]);
        let child = child.env(CHANGE, case.change).env(DATABASE, Database::path_in(office.folder.path()));
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{}: {said}", case.change);
        assert_eq!(office.granted(case.name, case.scope).await, case.after, "{}", case.change);
    }
}

/// The other process of the test above. Alone it does nothing.
#[tokio::test]
async fn another_process_makes_the_change_that_it_is_told() {
    let (Ok(change), Some(path)) = (std::env::var(CHANGE), std::env::var_os(DATABASE)) else { return };
    let database = Database::open(Path::new(&path)).await.unwrap();
    make(&change, &database).await;
    database.close().await;
}

#[tokio::test]
async fn what_others_write_does_not_cost_a_login_its_memory() {
    let office = Office::open().await;
    for number in 0..3 {
        assert_eq!(office.granted("alice", SECRET).await, [SECRET]);
        let path = format!("team/new{number}").parse().unwrap();
        let project = Project { path, visibility: Visibility::Private, created_at: THEN };
        assert!(office.database.add_project(&project).await.unwrap());
    }
    assert_eq!(office.hashes(), 1);
}

#[tokio::test]
async fn whoever_asks_again_is_answered_without_the_database_while_nobody_writes() {
    let office = Office::open().await;
    let _holds_the_log = Database::open(&Database::path_in(office.folder.path())).await.unwrap();
    let both = "repository:team/secret:pull repository:team/open:pull";
    let first = office.granted("alice", both).await;
    office.database.close().await;
    assert_eq!(office.granted("alice", both).await, first);
    assert_eq!(office.granted("alice", "repository:team/other:pull").await, ["503 Service Unavailable"]);
    assert_eq!(office.granted("bob", both).await, ["503 Service Unavailable"]);
}

#[tokio::test]
async fn what_is_taken_while_the_database_is_waited_for_is_not_remembered_for_the_rest_of_a_request() {
    let office = Office::open().await;
    let _holds_the_log = Database::open(&Database::path_in(office.folder.path())).await.unwrap();
    assert_eq!(office.granted("alice", SECRET).await, [SECRET]);
    let alice = office.database.account(&"alice".parse().unwrap()).await.unwrap().unwrap();
    let before = office.database.state();
    assert!(before.is_some(), "otherwise this shows nothing");
    make("member", &office.database).await;
    let (alice, unknown) = (Identity::Account(alice), "repository:team/other:pull");
    for (scopes, is_told) in [(vec![SECRET], true), (vec![unknown, SECRET], false)] {
        let wanted = crate::oci::scope::parse_all(scopes.iter().copied());
        let granted = office.authority.permissions.grant(&alice, &wanted, THEN, before).await.unwrap();
        assert_eq!(!granted.last().unwrap().actions.is_empty(), is_told, "{scopes:?}");
    }
}

#[tokio::test]
async fn what_a_push_makes_counts_in_the_same_token() {
    let office = Office::with(|config| config.members_may_create_projects = true).await;
    for _ in 0..2 {
        assert_eq!(office.granted("alice", "repository:team/new/b:pull").await, [""; 0], "its absence is remembered");
    }
    let both = ["repository:team/new/a:pull,push", "repository:team/new/b:pull"];
    assert_eq!(office.granted("alice", &both.join(" ")).await, both);
}

#[tokio::test]
async fn a_remembered_account_has_no_stored_hash() {
    let office = Office::open().await;
    for _ in 0..2 {
        assert_eq!(office.login("alice", PASSWORD, "192.0.2.1", Instant::now()).await.unwrap().password, "");
    }
}

#[tokio::test]
async fn nobody_in_particular_and_wrong_passwords_are_not_remembered() {
    let office = Office::open().await;
    for number in 0..3 {
        let query = format!("service=container_registry&scope=repository:team/open/{number}:pull");
        assert_eq!(office.get("", &query).await.status, StatusCode::OK);
        assert_eq!(office.get("alice:wrong horse", &query).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!((office.authority.permissions.remembered(), office.authority.accounts.remembered()), (0, 0));
    office.granted("alice", SECRET).await;
    assert_eq!((office.authority.permissions.remembered(), office.authority.accounts.remembered()), (1, 1));
}
