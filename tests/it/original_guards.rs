//! Promise: in the place of Distribution's registry, who may do what is guarded as its `auth` says: by the tokens of
//! another service, or by names and passwords in a file.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use reqwest::blocking::Response;
use serde_json::json;

use crate::original::{Original, use_it};
use crate::support::clients::{Client as _, Docker};
use crate::support::command::{Output, command};
use crate::support::content::Content;
use crate::support::image::{Image, Layout};
use crate::support::machine::on_a_fresh_machine;
use crate::support::pierhead::{ADMIN_PASSWORD, Site};
use crate::support::process::Process;
use crate::support::registry::{Registry, Repository};
use crate::support::wait_for;

const LAYERS: [Content; 1] = [Content { seed: 41, size: 12_345 }];
/// How much clocks may differ, in seconds.
const LEEWAY: i64 = 60;

/// What the answer asks for.
fn challenge(answer: &Response) -> &str {
    answer.headers()["www-authenticate"].to_str().expect("a challenge is text")
}

/// A server of the Omnibus shape that believes the tokens of `site`, whose certificate lies in the file `bundle`.
fn believing(site: &Site) -> (Original, Process) {
    let original = Original::empty();
    let bundle = original.path("bundle");
    fs::write(&bundle, site.run(&["token", "certificate"]).ok().stdout).expect("the directory can be written");
    let realm = format!("{}/jwt/auth", site.origin());
    let bundle = bundle.display().to_string();
    original.configure("omnibus.yml", &[("{realm}", &realm), ("{issuer}", "pierhead"), ("{bundle}", &bundle)]);
    let process = original.start(&[]);
    (original, process)
}

#[test]
fn tokens_of_another_service_open_the_registry() {
    let site = Site::new();
    let _server = site.start();
    site.add_project("team/app", "private");
    let (original, _process) = believing(&site);

    let stranger = Registry::open(&original.origin());
    let refused = stranger.request(Method::GET, "/v2/team/app/tags/list").send().expect("an answer");
    assert_eq!(refused.status(), 401);
    let asked = challenge(&refused);
    let realm = format!("realm=\"{}/jwt/auth\"", site.origin());
    for part in ["Bearer ", &realm, "service=\"container_registry\"", "scope=\"repository:team/app:pull\""] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    use_it(&site.admin().at(&original.origin()), 202);
    let reading = site.admin().at(&original.origin()).repository("team/app", "pull");
    assert_eq!(reading.push("more", &LAYERS).expect_err("pull is not push").status, Some(401));
}

#[test]
fn a_replaced_bundle_is_believed_without_a_restart() {
    let (site, other) = (Site::new(), Site::new());
    let (_server, _other_server) = (site.start(), other.start());
    let (original, _process) = believing(&site);
    let status = |site: &Site| {
        let repository = site.admin().at(&original.origin()).repository("team/app", "pull,push");
        repository.request(Method::POST, "blobs/uploads/").send().expect("an answer").status().as_u16()
    };
    for site in [&site, &other] {
        site.add_project("team/app", "private");
    }
    assert_eq!((status(&site), status(&other)), (202, 401), "the other's key is another");

    let certificate = other.run(&["token", "certificate"]).ok().stdout;
    fs::write(original.path("new"), certificate).expect("the directory can be written");
    fs::rename(original.path("new"), original.path("bundle")).expect("the directory can be written");
    wait_for("the new certificate to count", 20, || (status(&other) == 202).then_some(()));
    assert_eq!(status(&site), 401, "the old one does not count any more");
}

/// A token service of the test's own, for tokens that nobody else would give.
struct Signer {
    key: EncodingKey,
    certificate: rcgen::Certificate,
}

impl Signer {
    fn new() -> Self {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::default().self_signed(&pair).expect("a certificate of its own key");
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("PKCS#8");
        Self { key, certificate }
    }

    /// A token for `repository` that ceases to count `seconds` from now.
    fn token(&self, subject: &str, repository: &str, seconds: i64) -> String {
        self.token_of("tester", "images", (subject, repository), seconds)
    }

    /// As if `issuer` had made it for `service`.
    fn token_of(&self, issuer: &str, service: &str, (subject, repository): (&str, &str), seconds: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
        let mut header = Header::new(Algorithm::ES256);
        header.x5c = Some(vec![STANDARD.encode(self.certificate.der())]);
        let access = json!([{ "type": "repository", "name": repository, "actions": ["pull", "push"] }]);
        let (issued, expires) = (now - 7200, now + seconds - LEEWAY);
        let claims = json!({ "iss": issuer, "aud": service, "sub": subject, "access": access,
            "iat": issued, "nbf": issued, "exp": expires });
        format!("Bearer {}", jsonwebtoken::encode(&header, &claims, &self.key).expect("a token"))
    }

    /// Writes the certificate to a file of `folder`; the `auth` section that believes it.
    fn believed(&self, folder: &Path) -> String {
        let bundle = folder.join("tester.crt");
        fs::write(&bundle, self.certificate.pem()).expect("the directory can be written");
        format!(
            "auth: {{ token: {{ realm: \"https://tester.example/token\", service: images, issuer: tester, \
             rootcertbundle: \"{}\" }} }}",
            bundle.display()
        )
    }
}

/// A token for `repository` that was good a moment ago, and is not any more.
fn just_expired(signer: &Signer, registry: &Registry, subject: &str, repository: &str) -> Repository {
    let with = registry.repository_with(repository, signer.token(subject, repository, 1));
    wait_for("the token to expire", 20, || (with.get("tags/list").status() == 401).then_some(()));
    with
}

fn patched(repository: &Repository, upload: &str) -> u16 {
    let request = repository.request(Method::PATCH, upload).header("content-type", "application/octet-stream");
    request.body("more").send().expect("an answer").status().as_u16()
}

/// A server that believes the tokens of `signer`, of the issuer `tester` and for the service `images`.
fn believing_signer(signer: &Signer) -> (Original, Process) {
    let original = Original::empty();
    let (address, root) = (format!("127.0.0.1:{}", original.port), original.path("tree").display().to_string());
    let auth = signer.believed(original.path("").as_path());
    original.write(&format!(
        "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: \"{root}\" }} }}\nhttp: {{ addr: \"{address}\" }}\n{auth}\n"
    ));
    let process = original.start(&[]);
    (original, process)
}

#[test]
fn a_token_of_another_issuer_or_for_another_service_is_refused_and_the_log_says_what_was_expected() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let (original, process) = believing_signer(&signer);
    let registry = Registry::open(&original.origin());
    let status = |token: String| registry.repository_with("team/app", token).get("tags/list").status().as_u16();
    let alice = ("alice", "team/app");
    assert_eq!(status(signer.token_of("tester", "images", alice, 3600)), 404, "who may look finds nothing");
    for (token, parts) in [
        (signer.token_of("somebody", "images", alice, 3600), ["of another issuer", "somebody", "tester"]),
        (signer.token_of("tester", "pictures", alice, 3600), ["for another service", "pictures", "images"]),
        (stranger.token_of("tester", "images", alice, 3600), ["untrusted key", "key_id", "trusted"]),
    ] {
        for _ in 0..3 {
            assert_eq!(status(token.clone()), 401, "{parts:?}");
        }
        let complaints = || -> Vec<String> {
            let log = process.stderr();
            log.lines().filter(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned).collect()
        };
        wait_for("the line of the log", 20, || Some(complaints()).filter(|lines| !lines.is_empty()));
        assert_eq!(complaints().len(), 1, "not one for each request: {}", process.stderr());
    }
}

#[test]
fn an_upload_is_finished_with_a_token_that_expired_on_the_way() {
    let signer = Signer::new();
    let (original, _process) = believing_signer(&signer);
    let registry = Registry::open(&original.origin());
    let good = registry.repository_with("team/app", signer.token("alice", "team/app", 3600));
    let upload = good.begin().expect("begun");

    let expired = just_expired(&signer, &registry, "alice", "team/app");
    let mallory = registry.repository_with("team/app", signer.token("mallory", "team/app", 0));
    let elsewhere = registry.repository_with("team/app", signer.token("alice", "team/other", 0));
    let last_week = registry.repository_with("team/app", signer.token("alice", "team/app", -3600));
    for (who, why) in [
        (just_expired(&signer, &registry, "mallory", "team/app"), "another began it"),
        (mallory, "another began it, and it has just expired"),
        (elsewhere, "it is of another repository"),
        (last_week, "it had expired when the upload began"),
    ] {
        assert_eq!(patched(&who, &upload), 401, "{why}");
    }
    assert_eq!(expired.begin().expect_err("nothing begins with it").status, Some(401));
    assert_eq!(expired.push_manifest("latest", b"{}").expect_err("no manifest").status, Some(401));

    let blob = LAYERS[0];
    let upload = expired.send(&upload, blob.reader()).expect("sent with the token that expired on the way");
    expired.finish(&upload, &blob.digest()).expect("finished with it");
    assert_eq!(expired.get(&format!("blobs/{}", blob.digest())).status(), 401, "nothing is read with it");
    assert_eq!(good.pull_blob(&blob.digest()).expect("it is there"), blob.digest());
}

#[test]
fn finishing_with_an_expired_token_can_be_switched_off() {
    let (site, signer) = (Site::new(), Signer::new());
    let port = crate::support::free_port();
    let auth = signer.believed(site.directory());
    let registry = format!(
        "registry: {{ storage: {{ filesystem: {{ rootdirectory: tree }} }}, http: {{ addr: \"127.0.0.1:{port}\" }}, {auth} }}"
    );
    for (window, status) in [("0s", 401), ("1h", 202)] {
        site.configure(&[&registry, &format!("token: {{ finish_uploads: {window} }}")]);
        let server = site.start();
        let registry = Registry::open(&format!("http://127.0.0.1:{port}"));
        let good = registry.repository_with("team/app", signer.token("alice", "team/app", 3600));
        let upload = good.begin().expect("begun");
        let expired = just_expired(&signer, &registry, "alice", "team/app");
        assert_eq!(patched(&expired, &upload), status, "finish_uploads: {window}");
        assert!(server.stop().success());
    }
}

/// A server that lets `alice` in, with the password that all tests have.
fn guarded_by_a_file() -> (Original, Process) {
    let original = Original::empty();
    let hash = bcrypt::hash(ADMIN_PASSWORD, 4).expect("a hash");
    fs::write(original.path("htpasswd"), format!("# people\nalice:{hash}\n")).expect("the directory can be written");
    let (address, root) = (format!("127.0.0.1:{}", original.port), original.path("tree").display().to_string());
    original.write(&format!(
        "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: \"{root}\" }}, delete: {{ enabled: true }} }}\n\
         http: {{ addr: \"{address}\" }}\nauth: {{ htpasswd: {{ realm: our images, path: htpasswd }} }}\n"
    ));
    let process = original.start(&[]);
    (original, process)
}

#[test]
fn docker_logs_in_with_a_name_of_the_file_and_moves_an_image() {
    on_a_fresh_machine(|machine| {
        let (original, _process) = guarded_by_a_file();
        let mut docker = Docker::start(machine);
        let registry = format!("127.0.0.1:{}", original.port);
        let (image, name) = (Image::small(4), format!("{registry}/team/app:docked"));
        let layout = Layout::of_image(&machine.join("image"), &image);
        docker.push(&image, &layout, &name).refused(&["no basic auth credentials", "unauthorized", "denied"]);
        docker.login(&registry, "alice", "not-the-password").refused(&["unauthorized"]);
        docker.login(&registry, "alice", ADMIN_PASSWORD).ok();
        docker.push(&image, &layout, &name).ok();
        let pulled = docker.pull(&name).unwrap_or_else(|output| panic!("{output}"));
        assert_eq!(pulled.id, image.id());
        docker.logout(&registry).ok();
        assert!(docker.pull(&name).is_err(), "who has logged out is a stranger");
    });
}

#[test]
fn names_and_passwords_of_a_file_open_the_registry() {
    let (original, _process) = guarded_by_a_file();
    let registry = Registry::open(&original.origin());
    let basic = |name: &str, password: &str| format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));

    let alice = registry.repository_with("team/app", basic("alice", ADMIN_PASSWORD));
    let pushed = alice.push("latest", &LAYERS).expect("pushed");
    assert_eq!(alice.pull("latest").expect("pulled"), pushed);
    let deleted = alice.request(Method::DELETE, &format!("manifests/{pushed}")).send().expect("an answer");
    assert_eq!(deleted.status(), 202);

    let image = Layout::of_image(&original.path("image"), &Image::small(3));
    let skopeo = |password: &str| {
        let name = format!("docker://127.0.0.1:{}/team/app:copied", original.port);
        let mut command = command("skopeo");
        command.args(["--insecure-policy", "copy", "--dest-tls-verify=false", "--dest-creds"]);
        Output::of(command.args([&format!("alice:{password}"), &image.transport(), &name]))
    };
    skopeo(ADMIN_PASSWORD).ok();
    assert_eq!(alice.get("manifests/copied").status(), 200);
    assert!(!skopeo("not-the-password").is_ok());

    for (name, password) in [("alice", "not-the-password"), ("bob", ADMIN_PASSWORD), ("", "")] {
        let refused = registry.repository_with("team/app", basic(name, password)).get("tags/list");
        assert_eq!(refused.status(), 401, "{name}");
        assert_eq!(challenge(&refused), "Basic realm=\"our images\"");
    }
    let refused = registry.request(Method::GET, "/v2/").send().expect("an answer");
    assert_eq!((refused.status().as_u16(), challenge(&refused)), (401, "Basic realm=\"our images\""));
}
