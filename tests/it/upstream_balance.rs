//! Promise: what belongs together goes to one node: the requests of an upload, or all of a repository. Here the nodes share
//! nothing, so that whatever goes to another fails.

use std::fs;

use crate::support::content::Content;
use crate::support::distribution::Distribution;
use crate::support::pierhead::{Pierhead, Site};
use crate::support::registry::Registry;

/// Three nodes, each with a tree of its own, behind a server with this balance.
fn open(balance: &str) -> (Site, Vec<Distribution>, Pierhead) {
    let site = Site::new();
    let start = |name: &str| {
        let directory = site.directory().join(name);
        fs::create_dir_all(&directory).expect("the site can be written");
        Distribution::open(&directory, &directory.join("tree"))
    };
    let nodes = ["one", "two", "three"].map(start);
    let peers = nodes.each_ref().map(|node| format!("\"{}\"", node.origin())).join(", ");
    let upstreams = format!("upstreams: {{ nodes: {{ peers: [{peers}], balance: {balance} }} }}");
    site.configure(&["registry: false", &upstreams]);
    let server = site.start();
    (site, nodes.into(), server)
}

fn registry(site: &Site) -> Registry {
    site.registry(None).unguarded()
}

#[test]
fn an_upload_stays_with_the_node_that_began_it_and_over_a_reload() {
    let (site, nodes, _server) = open("upload");
    let repository = registry(&site).repository("balance", "pull,push");
    for seed in 0..9 {
        repository.push_blob(Content::new(seed, 10_000)).expect("every step finds what the one before left");
    }
    let begun: Vec<_> = (10..16).map(|seed| (seed, repository.begin().expect("an upload"))).collect();
    site.run(&["reload"]).ok();
    for (seed, upload) in begun {
        let blob = Content::new(seed, 10_000);
        let upload = repository.send(&upload, blob.reader()).expect("it is where it began");
        repository.finish(&upload, &blob.digest()).expect("and ends there");
    }
    for node in &nodes {
        let begun = node.requests("balance").iter().filter(|(method, _)| method == "POST").count();
        assert_eq!(begun, 5, "beginnings take turns");
    }
}

#[test]
fn a_repository_has_one_node_before_and_after_a_restart() {
    let (site, nodes, server) = open("repository");
    let names: Vec<_> = (0..12).map(|number| format!("group/app-{number}")).collect();
    let push = |name: &String| {
        let repository = registry(&site).repository(name, "pull,push");
        repository.push("latest", &[Content::new(1, 10_000)]).expect("all of it is in one place")
    };
    let pushed: Vec<_> = names.iter().map(push).collect();
    server.kill();
    let _server = site.start();
    for (name, digest) in names.iter().zip(pushed) {
        let repository = registry(&site).repository(name, "pull,push");
        assert_eq!(repository.pull("latest").expect("it is where it was"), digest);
        let homes = nodes.iter().filter(|node| !node.requests(name).is_empty()).count();
        assert_eq!(homes, 1, "{name}");
    }
    assert!(nodes.iter().filter(|node| !node.requests("group").is_empty()).count() > 1, "they are spread");
}
