//! Promise: Pierhead serves what it was told to and nothing else: without the embedded registry, without its token
//! endpoint, or without both, before registries that others run; and it says where requests go.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::Value;

use crate::support::clients::{Client, Skopeo};
use crate::support::command::Output;
use crate::support::content::Content;
use crate::support::distribution::Distribution;
use crate::support::image::{Image, Layout};
use crate::support::machine::{self, on_a_fresh_machine};
use crate::support::pierhead::{ADMIN_PASSWORD, PIERHEAD, Site, pierhead};
use crate::support::process::Process;
use crate::support::registry::Registry;
use crate::support::{free_port, wait_for};

const LAYERS: [Content; 2] = [Content { seed: 81, size: 3 << 20 }, Content { seed: 82, size: 12_345 }];
/// The exit code for a configuration that cannot be used.
const BAD_CONFIGURATION: Option<i32> = Some(78);

/// The front door before one registry of somebody else's, and nothing else.
fn before(peer: &str) -> [String; 2] {
    ["registry: false".to_owned(), format!("upstreams: {{ theirs: {{ peers: [\"{peer}\"] }} }}")]
}

fn configure(site: &Site, settings: &[String], more: &[&str]) {
    let settings: Vec<&str> = settings.iter().map(String::as_str).chain(more.iter().copied()).collect();
    site.configure(&settings);
}

/// Debian's docker-registry, for everybody, on a tree of its own.
fn theirs(site: &Site) -> Distribution {
    let root = site.directory().join("their-tree");
    fs::create_dir(&root).expect("the site can be written");
    Distribution::open(site.directory(), &root)
}

/// Whoever comes through the front door with no token at all.
fn anybody(site: &Site) -> Registry {
    site.registry(None).unguarded()
}

#[test]
fn before_a_registry_alone_nothing_of_ours_is_made_or_served() {
    let site = Site::new();
    let peer = theirs(&site);
    configure(&site, &before(&peer.origin()), &[]);
    let shown = site.run(&["check"]).ok();
    let way = format!("{}/v2/ -> theirs ({})", site.authority(), peer.origin());
    for said in ["registry: false", "token: false", &way] {
        assert!(shown.stdout.contains(said), "{said}: {shown}");
    }
    let server = site.start();
    assert!(server.process.stderr().contains(&way), "{}", server.process.stderr());
    let said = server.process.stderr();
    assert!(!said.contains("\n  password") && said.contains("password has no effect"), "{said}");

    let repository = anybody(&site).repository("team/app", "");
    let digest = repository.push("latest", &LAYERS).expect("pushed through us");
    assert_eq!(repository.pull("latest").expect("pulled through us"), digest);
    let token = anybody(&site).request(Method::GET, "/jwt/auth?service=container_registry").send().expect("an answer");
    assert_eq!(token.status(), 404, "nobody gives out tokens");
    assert!(TcpStream::connect(("127.0.0.1", site.internal_port())).is_err(), "there is no internal port");
    let mut kept: Vec<String> = fs::read_dir(site.directory().join("state"))
        .expect("the state directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    kept.retain(|name| name != "control.sock");
    assert_eq!(kept, Vec::<String>::new(), "no accounts, no keys");
    assert!(!site.tree().exists());
    assert!(server.stop().success());
}

#[test]
fn commands_for_services_that_are_off_say_so() {
    let site = Site::new();
    configure(&site, &before("http://127.0.0.1:1"), &[]);
    for command in [&["user", "list"][..], &["project", "list"], &["token", "certificate"], &["reindex"]] {
        let output = site.run(command);
        assert_eq!(output.code(), BAD_CONFIGURATION, "{output}");
        assert!(output.stderr.contains("pierhead.yml") && output.stderr.contains("off"), "{output}");
    }
    configure(&site, &before("http://127.0.0.1:1"), &["token: { upstream: theirs }"]);
    let output = site.run(&["user", "list"]);
    assert_eq!(output.code(), BAD_CONFIGURATION);
    assert!(output.stderr.contains("theirs's"), "{output}");
}

#[test]
fn what_no_route_takes_is_not_found_in_the_words_of_registries() {
    let site = Site::new();
    site.configure(&["registry: false", "routes: [{ path: /ui/, to: { answer: 403 } }]"]);
    let _server = site.start();
    for path in ["/v2/", "/v2/team/app/manifests/latest"] {
        let answer = anybody(&site).request(Method::GET, path).send().expect("an answer");
        assert_eq!(answer.status(), 404, "{path}");
        let errors: Value = answer.json().expect("JSON");
        assert_eq!(errors["errors"][0]["code"], "NAME_UNKNOWN", "{errors}");
    }
    assert_eq!(anybody(&site).request(Method::GET, "/ui/x").send().expect("an answer").status(), 403);
}

/// A registry that trusts our certificate, behind us; the front door and the token service are ours.
fn guarded(site: &Site) -> Distribution {
    site.configure(&["registry: false", "token: true"]);
    let root = site.directory().join("their-tree");
    fs::create_dir(&root).expect("the site can be written");
    let peer = Distribution::guarded_by(site, site.directory(), &root, "container_registry");
    configure(site, &before(&peer.origin()), &["token: true"]);
    peer
}

#[test]
fn our_tokens_guard_a_registry_that_somebody_else_runs() {
    let site = Site::new();
    let _peer = guarded(&site);
    let _server = site.start();
    site.add_user("rita", "rita-reads-images");
    site.add_project("team/app", "public");
    let digest = site.admin().repository("team/app", "pull,push").push("latest", &LAYERS).expect("pushed");
    let rita = site.registry(Some(("rita", "rita-reads-images"))).repository("team/app", "pull,push");
    assert_eq!(rita.pull("latest").expect("pulled"), digest);
    let refused = rita.push("other", &LAYERS).expect_err("a token says no more than we allow");
    assert_eq!(refused.status, Some(401), "{refused:?}");
    assert_eq!(anybody(&site).request(Method::GET, "/v2/").send().expect("an answer").status(), 401);
    let unclaimed = site.run(&["project", "list", "--unclaimed"]);
    assert_eq!(unclaimed.code(), BAD_CONFIGURATION, "whose tree it is we do not know: {unclaimed}");
}

#[test]
fn skopeo_logs_in_pushes_and_pulls_with_our_tokens_at_a_registry_that_somebody_else_runs() {
    on_a_fresh_machine(|machine| {
        let site = Site::named(machine::NAME);
        let _peer = guarded(&site);
        let _server = site.start();
        site.trust_on_this_machine();
        let mut skopeo = Skopeo::new(machine);
        skopeo.login(&site.authority(), "admin", "wrong").refused(&["unauthorized", "invalid username/password"]);
        skopeo.login(&site.authority(), "admin", ADMIN_PASSWORD).ok();
        let image = Image::small(83);
        let layout = Layout::of_image(&machine.join("image"), &image);
        let name = format!("{}/team/app:latest", site.authority());
        skopeo.push(&image, &layout, &name).ok();
        let pulled = skopeo.pull(&name).unwrap_or_else(|output| panic!("{output}"));
        assert_eq!(pulled.id, image.id());
    });
}

#[test]
fn maintenance_holds_for_registries_behind_us_and_after_a_restart() {
    let site = Site::new();
    let peer = theirs(&site);
    configure(&site, &before(&peer.origin()), &[]);
    let server = site.start();
    let repository = anybody(&site).repository("team/app", "");
    let digest = repository.push("latest", &LAYERS).expect("pushed");
    site.run(&["maintenance", "on", "--grace", "0s"]).ok();
    assert_eq!(repository.push("next", &LAYERS).expect_err("maintenance").status, Some(405));
    assert_eq!(repository.pull("latest").expect("pulled meanwhile"), digest);
    assert!(server.stop().success());

    let _server = site.start();
    assert_eq!(repository.push("next", &LAYERS).expect_err("still on").status, Some(405));
    site.run(&["maintenance", "off"]).ok();
    repository.push("next", &LAYERS).expect("pushed again");
}

#[test]
fn a_reload_changes_routes_and_upstreams_and_names_what_needs_a_restart() {
    let site = Site::new();
    let peer = theirs(&site);
    let nobody = format!("http://127.0.0.1:{}", free_port());
    configure(&site, &before(&peer.origin()), &[]);
    let _server = site.start();
    let repository = anybody(&site).repository("team/app", "");
    let digest = repository.push("latest", &LAYERS).expect("pushed");

    configure(&site, &before(&nobody), &[]);
    site.run(&["reload"]).ok();
    let status = repository.get("manifests/latest").status().as_u16();
    assert!([502, 503].contains(&status), "{status}");
    configure(
        &site,
        &before(&peer.origin()),
        &["routes: [{ path: /v2/, methods: [PUT], to: { answer: 403 } }, { path: /v2/, to: { upstream: theirs } }]"],
    );
    site.run(&["reload"]).ok();
    assert_eq!(repository.pull("latest").expect("pulled"), digest);
    assert_eq!(repository.push_manifest("next", b"{}").expect_err("a route answers").status, Some(403));

    for (key, settings) in [("registry", vec!["registry: true"]), ("token", vec!["token: true"])] {
        let routes = "routes: [{ path: /v2/a/, to: { upstream: theirs } }]";
        configure(
            &site,
            &before(&peer.origin())[if key == "registry" { 1 } else { 0 }..],
            &[settings, vec![routes]].concat(),
        );
        let refused = site.run(&["reload"]);
        assert_eq!(refused.code(), BAD_CONFIGURATION, "{refused}");
        assert!(refused.stderr.contains("restart") && refused.stderr.contains(key), "{refused}");
    }
    assert_eq!(repository.pull("latest").expect("nothing changed"), digest);
}
#[test]
fn an_upstream_that_is_down_at_the_start_is_named_and_taken_when_it_comes() {
    let site = Site::new();
    let root = site.directory().join("their-tree");
    fs::create_dir(&root).expect("the site can be written");
    let port = free_port();
    let peer = format!("http://127.0.0.1:{port}");
    let settings =
        format!("upstreams: {{ theirs: {{ peers: [\"{peer}\"], health: {{ interval: 100ms, timeout: 100ms }} }} }}");
    site.configure(&["registry: false", &settings]);
    let server = site.start_unready();
    wait_for("the peer to be named", 20, || {
        server.process.stderr().contains(&peer.replace("http://", "")).then_some(())
    });
    let status = |path: &str| anybody(&site).request(Method::GET, path).send().expect("an answer").status().as_u16();
    wait_for("not to be ready", 20, || (status("/-/ready") == 503).then_some(()));
    assert_eq!(status("/-/healthy"), 200);
    assert!([502, 503].contains(&status("/v2/")));
    let _peer = Distribution::at(port, site.directory(), &root);
    wait_for("to be ready", 20, || (status("/-/ready") == 200).then_some(()));
    anybody(&site).repository("team/app", "").push("latest", &LAYERS).expect("pushed");
}

#[test]
fn started_as_root_we_become_whose_the_state_is_where_there_is_no_tree() {
    on_a_fresh_machine(|machine| {
        const OWNER: u32 = 4321;
        let site = Site::new();
        for path in [machine, site.directory()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("the machine is ours");
        }
        let state = site.directory().join("state");
        fs::create_dir(&state).expect("the site can be written");
        std::os::unix::fs::chown(&state, Some(OWNER), Some(OWNER)).expect("we are root");
        configure(&site, &before("http://127.0.0.1:1"), &["tls: { local: state/tls }"]);
        std::os::unix::fs::symlink("state/tls", site.directory().join("certs")).expect("the site can be written");
        let server = site.start_unready();
        let status = fs::read_to_string(format!("/proc/{}/status", server.process.id())).expect("the server runs");
        let ids = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::split_whitespace);
        for name in ["Uid:", "Gid:"] {
            assert!(ids(name).expect("Linux says so").all(|id| id == OWNER.to_string()), "{status}");
        }
    });
}

/// The commands by which the README takes NGINX's place, but for those of GitLab's and systemd's programs.
fn hand_over() -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("it is there");
    let section = readme.split("### Take NGINX's place").nth(1).expect("the README has the section");
    let commands = section.split("```").nth(1).expect("the section has commands");
    let elsewhere = ["systemctl", "gitlab-ctl", "tee -a", "/usr/local/bin"];
    let ours = commands.lines().filter(|line| !elsewhere.iter().any(|other| line.contains(other)));
    ours.map(|line| line.replace("sudo ", "") + "\n").collect()
}

#[test]
fn the_readmes_hand_over_leaves_a_server_that_is_not_root_and_reloads() {
    on_a_fresh_machine(|machine| {
        let run = |script: &str| {
            let path = format!("{}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin", machine.display());
            Output::of(Command::new("sh").args(["-euc", script]).env("PATH", path)).ok()
        };
        // As GitLab and its NGINX leave it: everything is root's.
        run("mount -t tmpfs -o mode=0755 tmpfs /var/lib; install -d -m 0755 /etc/gitlab /etc/gitlab/ssl");
        symlink(PIERHEAD, machine.join("pierhead")).expect("the scratch directory can be written");
        let pair = rcgen::generate_simple_self_signed(vec!["gitlab.example.com".to_owned()]).expect("a certificate");
        let ssl = Path::new("/etc/gitlab/ssl");
        let key = ssl.join("gitlab.example.com.key");
        fs::write(ssl.join("gitlab.example.com.crt"), pair.cert.pem()).expect("/etc is ours");
        fs::write(&key, pair.signing_key.serialize_pem()).expect("/etc is ours");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("/etc is ours");
        let gitlab = "external_url 'https://gitlab.example.com'\n\
                      registry_external_url 'https://gitlab.example.com:5050'\n";
        fs::write("/etc/gitlab/gitlab.rb", gitlab).expect("/etc is ours");
        run(&format!("umask 077\n{}", hand_over()));

        let config = "/etc/pierhead/pierhead.yml";
        let mut server = Process::start("server", machine, Command::new(PIERHEAD).args(["serve", "-c", config]));
        server.wait_until("serve", 30, |server| server.stderr().contains(" serves https"));
        let status = fs::read_to_string(format!("/proc/{}/status", server.id())).expect("it runs");
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("Linux tells");
        let id = run("id -u pierhead").stdout.trim().to_owned();
        assert!(uid.split_whitespace().all(|one| one == id), "{uid} is not {id}: {}", server.stderr());

        Output::of(pierhead().args(["-c", config, "reload"])).ok();
        run(&format!("chown root:root {config}; chmod 600 {config}"));
        let refused = Output::of(pierhead().args(["-c", config, "reload"]));
        assert!(!refused.is_ok() && refused.stderr.contains("ermission"), "what chown and chmod are for: {refused}");
    });
}
