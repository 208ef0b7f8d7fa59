//! Promise: one line for each request, with what an operator looks for, and never a secret.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use reqwest::Method;
use serde_json::Value;

use crate::support::content::Content;
use crate::support::pierhead::{ADMIN_PASSWORD, Site};
use crate::support::wait_for;

#[test]
fn every_request_has_one_access_line_with_the_promised_fields() {
    let site = Site::new();
    let server = site.start();
    let registry = site.admin();
    let repository = registry.repository("logs/app", "pull,push");
    let blob = Content::new(1, 100_000);
    let digest = repository.push_blob(blob).expect("pushed");
    repository.push("latest", &[blob]).expect("pushed");

    let ids: Vec<String> = [
        registry.request(Method::GET, "/v2/"),
        repository.request(Method::GET, &format!("blobs/{digest}")),
        repository.request(Method::HEAD, "manifests/latest").header("Accept", "*/*"),
        repository.request(Method::GET, "manifests/missing"),
        registry.request(Method::GET, "/nothing/here"),
    ]
    .into_iter()
    .map(|request| {
        let answer = request.send().expect("an answer");
        let id = answer.headers().get("x-request-id").expect("every answer names its request");
        let id = id.to_str().expect("ids are text").to_owned();
        answer.bytes().expect("the answer is whole");
        id
    })
    .collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "every request has a name of its own: {ids:?}");

    let lines: Vec<Value> = server.wait_for_access("the lines", |log| {
        let line = |id: &String| log.iter().find(|line| line["request_id"] == id.as_str()).cloned();
        ids.iter().map(line).collect()
    });
    for id in &ids {
        let count = server.access_log().iter().filter(|line| line["request_id"] == id.as_str()).count();
        assert_eq!(count, 1, "one line for each request");
    }
    for line in &lines {
        assert_eq!(line["client"], "127.0.0.1", "{line}");
        assert!(line["method"].is_string() && line["path"].is_string(), "{line}");
        assert!(line["bytes_in"].is_u64() && line["bytes_out"].is_u64() && line["duration_ms"].is_number(), "{line}");
    }
    let statuses: Vec<u64> = lines.iter().filter_map(|line| line["status"].as_u64()).collect();
    assert_eq!(statuses, [401, 200, 200, 404, 404]);
    let (blob_line, head_line) = (&lines[1], &lines[2]);
    assert_eq!(blob_line["subject"], "admin");
    assert_eq!(blob_line["repository"], "logs/app");
    assert_eq!(blob_line["digest"], digest.as_str());
    assert_eq!(blob_line["bytes_out"], blob.size);
    assert_eq!(head_line["reference"], "latest");

    let sent: u64 = server.access_log().iter().filter_map(|line| line["bytes_in"].as_u64()).sum();
    assert!(sent >= 2 * blob.size, "bytes that came in are counted: {sent}");
}

#[test]
fn no_secret_is_ever_logged() {
    let site = Site::new();
    site.configure(&["log: { level: trace, format: json, access: stdout }"]);
    let server = site.start();
    let admin = site.admin();
    let answer: Value = admin.ask_token("repository:logs/app:pull,push").json().expect("JSON");
    let token = answer["token"].as_str().expect("a token").to_owned();
    admin.repository("logs/app", "pull,push").push("latest", &[Content::new(2, 5000)]).expect("pushed");
    let wrong = site.registry(Some(("admin", "wrong-but-close-to-secret")));
    assert_eq!(wrong.ask_token("repository:logs/app:pull").status(), 401);
    let in_query =
        admin.request(Method::GET, "/jwt/auth?password=query-secret&account=admin").send().expect("an answer");
    let id = in_query.headers()["x-request-id"].to_str().expect("text").to_owned();
    let form = [("grant_type", "password"), ("username", "admin"), ("password", ADMIN_PASSWORD)];
    let form = form.map(|(key, value)| format!("{key}={value}")).join("&");
    let form = format!("{form}&service=container_registry&client_id=test&scope=repository%3Alogs%2Fapp%3Apull");
    let post = admin.request(Method::POST, "/jwt/auth").header("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(post.body(form).send().expect("an answer").status(), 200);
    server.wait_for_access("the last lines", |log| {
        log.iter().any(|line| line["request_id"] == id.as_str()).then_some(())
    });

    let said = format!("{}{}", server.process.stdout(), server.process.stderr());
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("admin:{ADMIN_PASSWORD}"));
    let signature = token.rsplit('.').next().expect("tokens have three parts");
    for secret in [ADMIN_PASSWORD, "wrong-but-close-to-secret", "query-secret", &basic, signature, "PRIVATE KEY"] {
        let line = said.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the log");
    }
}

/// The lines of a file that hold JSON, so far.
fn lines_of(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn the_audit_log_tells_each_operation_once_with_who_and_what_and_how_it_ended() {
    let site = Site::new();
    site.configure(&["log: { format: json, access: stdout, audit: ./audit.log }"]);
    let server = site.start();
    let file = site.directory().join("audit.log");
    let admin = site.admin();
    let repository = admin.repository("audit/app", "pull,push,delete");
    let blob = Content::new(3, 70_000);
    let digest = repository.push_blob(blob).expect("pushed");
    let manifest = repository.push("latest", &[blob]).expect("pushed");
    let ask = |method, path: &str| repository.request(method, path).header("Accept", "*/*").send().expect("an answer");
    assert_eq!(ask(Method::GET, &format!("blobs/{digest}")).bytes().expect("whole").len(), 70_000);
    assert_eq!(ask(Method::HEAD, "manifests/latest").status(), 200);
    assert_eq!(ask(Method::DELETE, "manifests/latest").status(), 202);
    let nobody = admin.request(Method::PUT, "/v2/audit/app/manifests/latest").send().expect("an answer");
    assert_eq!(nobody.status(), 401);
    site.add_user("rita", "rita-reads-only-images");
    let rita = site.registry(Some(("rita", "rita-reads-only-images")));
    let denied = rita.repository("audit/app", "pull,push").request(Method::DELETE, "manifests/latest").send();
    assert_eq!(denied.expect("an answer").status(), 401);

    let found = |lines: &[Value], operation: &str, outcome: &str| -> Vec<Value> {
        let fits = |line: &&Value| line["audit"] == operation && line["outcome"] == outcome;
        lines.iter().filter(fits).cloned().collect()
    };
    let lines = wait_for("the last operation", 10, || {
        let lines = lines_of(&file);
        (!found(&lines, "delete", "denied").is_empty()).then_some(lines)
    });
    let pushed = found(&lines, "push", "done");
    let sent = pushed.iter().find(|line| line["digest"] == digest.as_str()).expect("the blob was pushed");
    assert_eq!((&sent["bytes"], &sent["kind"], &sent["subject"]), (&70_000.into(), &"blob".into(), &"admin".into()));
    assert_eq!((&sent["repository"], &sent["client"]), (&"audit/app".into(), &"127.0.0.1".into()));
    assert!(sent["request_id"].is_string() && sent["time"].is_string(), "{sent}");
    let tagged: Vec<&Value> = pushed.iter().filter(|line| line["reference"] == "latest").collect();
    assert_eq!(tagged.len(), 1, "one line for each operation");
    assert_eq!((&tagged[0]["kind"], &tagged[0]["digest"]), (&"manifest".into(), &manifest.as_str().into()));
    let pulled = found(&lines, "pull", "done");
    assert_eq!(pulled.len(), 1, "asking whether it is there is no pull: {pulled:?}");
    assert_eq!(pulled[0]["bytes"], 70_000);
    assert_eq!(found(&lines, "delete", "done").len(), 1);
    assert!(found(&lines, "push", "denied").is_empty(), "asking where to log in is no operation");
    assert!(!found(&lines, "login", "done").is_empty());
    let mode = fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o137, 0, "not for everybody: {mode:o}");
    assert!(server.access_log().iter().all(|line| line.get("audit").is_none()), "each log has its own place");
}

#[test]
fn a_login_with_a_password_that_the_registry_looks_at_itself_is_in_the_audit_log() {
    let site = Site::new();
    let hash = bcrypt::hash("alices-own-password", 4).expect("a hash");
    fs::write(site.directory().join("htpasswd"), format!("alice:{hash}\n")).expect("written");
    let registry = format!(
        "registry: {{ storage: {{ filesystem: {{ rootdirectory: tree }} }}, http: {{ addr: \"127.0.0.1:{}\" }}, \
         auth: {{ htpasswd: {{ realm: ours, path: htpasswd }} }} }}",
        site.internal_port()
    );
    site.configure(&["log: { format: json, access: stdout, audit: ./audit.log }", &registry]);
    let _server = site.start();
    let ask = |login: Option<&str>| {
        let request = site.registry(None).request(Method::GET, "/v2/");
        let request = match login {
            Some(password) => request.basic_auth("alice", Some(password)),
            None => request,
        };
        request.send().expect("an answer").status().as_u16()
    };
    assert_eq!([ask(None), ask(Some("wrong")), ask(Some("alices-own-password"))], [401, 401, 200]);
    let lines = wait_for("the login", 10, || {
        let lines = lines_of(&site.directory().join("audit.log"));
        lines.iter().any(|line| line["outcome"] == "done").then_some(lines)
    });
    let told: Vec<(&str, &str, Option<&str>)> = lines
        .iter()
        .map(|line| {
            assert_eq!(line["client"], "127.0.0.1", "{line}");
            let text = |name: &str| line[name].as_str();
            (text("audit").unwrap_or_default(), text("outcome").unwrap_or_default(), text("subject"))
        })
        .collect();
    assert_eq!(told, [("login", "denied", None), ("login", "done", Some("alice"))], "asking how is no login");
}

#[test]
fn logs_that_were_moved_away_go_on_in_new_files_after_sigusr1_and_no_line_is_lost() {
    let site = Site::new();
    let ids_of_ours = "trusted_proxies: [127.0.0.1]";
    site.configure(&["log: { format: json, access: ./access.log, audit: ./audit.log }", ids_of_ours]);
    let server = site.start();
    let path = |name: &str| site.directory().join(name);
    let registry = site.admin();
    let ask = |number: usize| {
        let request = registry.request(Method::GET, "/v2/").header("X-Request-Id", format!("turn-{number}"));
        assert_eq!(request.send().expect("an answer").status(), 401);
    };
    let turns = |name: &str| -> HashSet<String> {
        let id = |line: &Value| line["request_id"].as_str().filter(|id| id.starts_with("turn-")).map(str::to_owned);
        lines_of(&path(name)).iter().filter_map(id).collect()
    };
    (0..10).for_each(ask);
    wait_for("the lines", 10, || turns("access.log").contains("turn-9").then_some(()));
    for name in ["access.log", "audit.log"] {
        fs::rename(path(name), path(&format!("{name}.1"))).expect("logrotate may");
    }
    (10..20).for_each(ask);
    server.process.signal("USR1");
    wait_for("the new files", 10, || (path("access.log").exists() && path("audit.log").exists()).then_some(()));
    (20..30).for_each(ask);
    wait_for("the last line", 10, || turns("access.log").contains("turn-29").then_some(()));
    let (old, new) = (turns("access.log.1"), turns("access.log"));
    assert!(old.contains("turn-0"), "{old:?}");
    assert!((20..30).all(|turn| new.contains(&format!("turn-{turn}"))), "{new:?}");
    assert_eq!(old.union(&new).count(), 30, "no line is lost");
    assert!(old.is_disjoint(&new), "and none is told twice");
}
