//! Promise: one line for each request, with what an operator looks for, and never a secret.

use std::collections::HashSet;

use base64::Engine as _;
use reqwest::Method;
use serde_json::Value;

use crate::support::content::Content;
use crate::support::pierhead::{ADMIN_PASSWORD, Site};

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
