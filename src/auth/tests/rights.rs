//! What a token allows.

use super::*;

#[tokio::test]
async fn a_token_has_what_was_asked_for_and_is_allowed() {
    let office = Office::open().await;
    let everything = "repository:team/open:* repository:team/open:pull,push,delete repository:team/inside/x:pull,push \
                      repository:team/secret:pull,push registry:catalog:* repository:unclaimed:pull";
    let table: [(&str, &[&str]); 3] = [
        ("", &["repository:team/open:pull"]),
        ("bob", &["repository:team/open:pull", "repository:team/inside/x:pull"]),
        (
            "alice",
            &[
                "repository:team/open:pull,push",
                "repository:team/inside/x:pull,push",
                "repository:team/secret:pull,push",
            ],
        ),
    ];
    for (name, expected) in table {
        assert_eq!(office.granted(name, everything).await, expected, "{name}");
    }
    let all = office.granted("root", everything).await;
    assert_eq!(all[0], "repository:team/open:pull,push,delete,*");
    assert_eq!(all[3..], ["registry:catalog:*", "repository:unclaimed:pull"]);
    assert_eq!(office.granted("root", "registry:catalog:pull").await, [""; 0], "the catalog only as a whole");
}

#[tokio::test]
async fn what_was_asked_for_and_refused_is_named_without_an_action() {
    let office = Office::open().await;
    let scopes =
        "repository:team/open:pull repository:team/secret:pull,push repository:no/such:pull registry:catalog:*";
    let query = format!("service=container_registry&scope={}", scopes.replace(' ', "&scope="));
    let heard = office.get(&format!("bob:{PASSWORD}"), &query).await;
    let entry = |name: &str, actions: &[&str]| json!({ "type": "repository", "name": name, "actions": actions });
    let expected = json!([entry("team/open", &["pull"]), entry("team/secret", &[]), entry("no/such", &[])]);
    assert_eq!(part(heard.token(), 1)["access"], expected, "the catalog is the admins' and no repository");
    let grant = office.authority.verifier.verify(heard.token(), Timestamp::now()).unwrap();
    let secret = "team/secret".parse().unwrap();
    assert!(!grant.may_pull(&secret) && grant.readable().all(|name| *name != secret));
}

#[tokio::test]
async fn maintainers_may_delete_and_have_everything() {
    let office = Office::open().await;
    let member = Member {
        path: "team/secret".parse().unwrap(),
        account: "bob".parse().unwrap(),
        role: Role::Maintainer,
        created_at: THEN,
    };
    office.database.set_member(&member).await.unwrap();
    let asked = "repository:team/secret:delete,* repository:team/inside:delete,*";
    assert_eq!(office.granted("bob", asked).await, ["repository:team/secret:delete,*"]);
    assert_eq!(office.granted("alice", asked).await, [""; 0]);
}

#[tokio::test]
async fn an_admins_push_makes_the_project_and_a_pull_does_not() {
    let office = Office::open().await;
    let claimed = async |name: &str| {
        let project = office.database.project_of(&name.parse().unwrap()).await.unwrap();
        project.map(|project| (project.path.to_string(), project.visibility))
    };
    assert_eq!(office.granted("root", "repository:a/b/c:pull").await, ["repository:a/b/c:pull"]);
    assert_eq!(claimed("a/b/c").await, None);
    for deletion in ["repository:a/b/c:*", "repository:a/b/c:pull,delete,*"] {
        assert_eq!(office.granted("root", deletion).await, [deletion]);
        assert_eq!(claimed("a/b/c").await, None, "{deletion}: clients ask for that to delete");
    }
    assert_eq!(office.granted("root", "repository:a/b/c:pull,push").await, ["repository:a/b/c:pull,push"]);
    assert_eq!(claimed("a/b/c").await, Some(("a/b".to_owned(), Visibility::Private)));
    office.granted("root", "repository:single:push").await;
    assert_eq!(claimed("single").await, Some(("single".to_owned(), Visibility::Private)));
    office.granted("root", "repository:single/below/it:push").await;
    assert_eq!(claimed("single/below/it").await.unwrap().0, "single", "a project that is there is enough");
}

#[tokio::test]
async fn developers_of_a_group_make_projects_in_it_only_where_the_operator_allows_that() {
    let push = "repository:team/new/image:pull,push";
    let office = Office::open().await;
    assert_eq!(office.granted("alice", push).await, [""; 0]);

    let office = Office::with(|config| config.members_may_create_projects = true).await;
    for (path, name, role) in
        [("deep/er", "alice", Role::Owner), ("team", "bob", Role::Reporter), ("alone", "bob", Role::Owner)]
    {
        let member = Member { path: path.parse().unwrap(), account: name.parse().unwrap(), role, created_at: THEN };
        office.database.set_member(&member).await.unwrap();
    }
    assert_eq!(office.granted("bob", push).await, [""; 0], "a reporter");
    assert_eq!(office.granted("", push).await, ["403 Forbidden"]);
    assert_eq!(office.granted("alice", push).await, [push]);
    assert_eq!(office.granted("alice", "repository:deep/er/x/y:push").await, ["repository:deep/er/x/y:push"]);
    assert_eq!(office.granted("bob", "repository:alone:push").await, [""; 0], "a group's own name is not in it");
    assert_eq!(office.granted("alice", "repository:other/x:push").await, [""; 0]);
    let projects = office.database.projects(None).await.unwrap();
    let paths: Vec<&str> = projects.iter().map(|project| project.path.as_str()).collect();
    assert_eq!(paths, ["deep/er/x", "team/inside", "team/new", "team/open", "team/secret"]);
}
