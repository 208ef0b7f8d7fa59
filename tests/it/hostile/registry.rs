//! Names, encodings and manifests that want to be something else.

use super::Fort;
use super::wire::{statuses, text};

/// Method, what comes after `/v2/`, a body, and the status that is right. The client may push to `hostile/app`.
struct Case(&'static str, &'static str, &'static str, String, u16);

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

fn get(name: &'static str, path: &'static str, status: u16) -> Case {
    Case(name, "GET", path, String::new(), status)
}

fn manifest(name: &'static str, body: impl Into<String>) -> Case {
    Case(name, "PUT", "hostile/app/manifests/x", body.into(), 400)
}

fn cases() -> Vec<Case> {
    vec![
        get("a way up", "../../../etc/passwd", 404),
        get("a way up in the name", "hostile/../../etc/manifests/x", 400),
        get("an encoded way up", "hostile/%2e%2e/%2e%2e/etc/manifests/x", 400),
        get("an encoded slash", "hostile%2f..%2fapp/manifests/x", 400),
        get("a backslash", "hostile\\..\\app/manifests/x", 400),
        get("an encoded NUL", "hostile/app%00/manifests/x", 400),
        get("an encoded line break", "hostile/app/manifests/x%0d%0aX:%20y", 400),
        get("bytes that are no UTF-8", "hostile/%ff%fe/manifests/x", 400),
        get("an overlong slash", "hostile/%c0%af/manifests/x", 400),
        get("capitals", "Hostile/App/manifests/x", 400),
        get("empty parts", "hostile//app/manifests/x", 400),
        get("a percent sign alone", "hostile/app/manifests/%", 400),
        get("a digest that leads up", "hostile/app/blobs/sha256:../../../../etc/passwd", 404),
        get("a digest too short", "hostile/app/blobs/sha256:00", 400),
        get("a digest in capitals", "hostile/app/blobs/SHA256:AA", 400),
        get("an upload that is none", "hostile/app/blobs/uploads/../../x", 404),
        get(
            "an upload of somebody's making",
            "hostile/app/blobs/uploads/00000000-0000-0000-0000-000000000000?_state=x",
            404,
        ),
        get("a page of minus one", "hostile/app/tags/list?n=-1", 400),
        get("a page beyond 64 bits", "hostile/app/tags/list?n=99999999999999999999", 400),
        get("a last that is no tag", "hostile/app/tags/list?last=%ff%00", 404),
        manifest("no JSON", "}{"),
        manifest("nothing", ""),
        manifest("JSON a hundred thousand deep", "[".repeat(100_000)),
        manifest("objects without end", "{\"a\":".repeat(50_000)),
        manifest("a number that is none", "{\"schemaVersion\":1e999999}"),
        manifest("bytes that are no text", "{\"schemaVersion\":2,\"x\":\"\u{0}\"}"),
        manifest(
            "two layers lists",
            format!("{{\"schemaVersion\":2,\"mediaType\":\"{OCI}\",\"layers\":[],\"layers\":5}}"),
        ),
        manifest(
            "a config that leads up",
            format!(
                "{{\"schemaVersion\":2,\"mediaType\":\"{OCI}\",\"config\":{{\"mediaType\":\"a/b\",\"size\":1,\"digest\":\"sha256:../../x\"}},\"layers\":[]}}"
            ),
        ),
        manifest(
            "a size below zero",
            format!(
                "{{\"schemaVersion\":2,\"mediaType\":\"{OCI}\",\"config\":{{\"mediaType\":\"a/b\",\"size\":-1,\"digest\":\"sha256:{0}\"}},\"layers\":[]}}",
                "0".repeat(64)
            ),
        ),
        Case("a manifest that is too large", "PUT", "hostile/app/manifests/x", " ".repeat(5 << 20), 413),
        Case("a tag that leads up", "PUT", "hostile/app/manifests/..", "{}".into(), 400),
        Case("a tag without end", "PUT", "hostile/app/manifests/LONG", "{}".into(), 400),
        Case(
            "a blob mounted from above",
            "POST",
            "hostile/app/blobs/uploads/?mount=sha256:..&from=../..",
            String::new(),
            202,
        ),
        Case("a blob by a wrong digest", "POST", "hostile/app/blobs/uploads/?digest=md5:00", String::new(), 400),
        Case("a repository deleted by its name", "DELETE", "hostile/app", String::new(), 404),
        Case("an unknown method", "BREW", "hostile/app/manifests/x", String::new(), 405),
    ]
}

#[test]
fn names_encodings_and_manifests_lead_nowhere_else() {
    let fort = Fort::new(&[]);
    let answer = fort.site.admin().ask_token("repository:hostile/app:pull,push,delete");
    let answer: serde_json::Value = answer.json().expect("JSON");
    let token = answer["token"].as_str().expect("a token");
    let host = &fort.door.authority;
    fort.withstands(&cases(), |case| case.0, |Case(name, method, path, body, expected)| {
        let path = path.replace("LONG", &"x".repeat(200));
        let mut wire = fort.door.tls("http/1.1");
        let head = format!(
            "{method} /v2/{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Type: {OCI}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        wire.send(head + body);
        let said = wire.rest();
        assert_eq!(statuses(&said), [*expected], "{name}: {}", text(&said));
    });
}
