//! Promise: `pierhead import` reads how a registry is served now, says what becomes of every line, and what it writes
//! serves, before the registry that is there and in its place.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use reqwest::Method;
use reqwest::blocking::{Client, RequestBuilder};
use tempfile::TempDir;

use crate::support::command::Output;
use crate::support::content::{Content, digest};
use crate::support::distribution::Distribution;
use crate::support::image::OCI_MANIFEST;
use crate::support::machine::scratch;
use crate::support::pierhead::{ADMIN_PASSWORD, PIERHEAD, Site, pierhead};
use crate::support::process::Process;
use crate::support::registry::{Registry, manifest};
use crate::support::{free_port, wait_for};

/// A file of somebody's, and what clients call the registry there.
struct Fixture {
    file: &'static str,
    external: &'static str,
    /// Where Pierhead is to listen.
    listens: u16,
    /// Whether it speaks TLS there.
    tls: bool,
}

const FIXTURES: [Fixture; 6] = [
    Fixture { file: "shared-domain.rb", external: "gitlab.example.com:5050", listens: 5050, tls: true },
    Fixture { file: "own-domain.rb", external: "registry.example.com", listens: 443, tls: true },
    Fixture { file: "aws.rb", external: "registry-gitlab.example.com", listens: 5678, tls: false },
    Fixture { file: "gitlab.yml", external: "registry.example.com:5005", listens: 5005, tls: true },
    Fixture { file: "nginx-omnibus.conf", external: "registry.example.com:5050", listens: 5050, tls: true },
    Fixture { file: "nginx-source.conf", external: "registry.gitlab.example.com", listens: 443, tls: true },
];

/// Table 1.3 of what NGINX does for the registry: the keys of `registry['nginx']`.
const DOOR: &str = "enable https listen_addresses listen_port listen_https redirect_http_to_https redirect_http_to_https_port \
    proxy_protocol real_ip_header real_ip_recursive real_ip_trusted_addresses proxy_set_headers ssl_certificate \
    ssl_certificate_key ssl_password_file ssl_client_certificate ssl_verify_client ssl_verify_depth ssl_protocols ssl_ciphers \
    ssl_prefer_server_ciphers ssl_session_cache ssl_session_timeout ssl_session_tickets ssl_dhparam ssl_ecdh_curve \
    ssl_conf_command hsts_max_age hsts_include_subdomains http2_enabled error_log_level log_directory \
    custom_gitlab_server_config client_max_body_size proxy_read_timeout proxy_connect_timeout \
    request_buffering_off_path_regex proxy_custom_buffer_size referrer_policy gzip_enabled proxy_cache custom_error_pages \
    default_server_enabled status";
/// Section 5.2: the keys of `gitlab_rails`.
const RAILS: &str = "registry_enabled registry_host registry_port registry_api_url registry_key_path registry_path \
    registry_issuer registry_notification_secret backup_registry_user backup_registry_password restore_registry_user \
    restore_registry_password gitlab_default_projects_features_container_registry geo_registry_replication_enabled \
    geo_registry_replication_primary_api_url";
/// Section 5.3: the keys of `registry`.
const REGISTRY: &str = "enable username group uid gid dir shell log_directory env_directory env log_level log_formatter \
    rootcertbundle registry_http_addr http_secret internal_key internal_certificate token_realm \
    health_storagedriver_enabled storage storage_delete_enabled cache middleware debug_addr validation_enabled autoredirect \
    compatibility_schema1_enabled database auto_migrate gc reporting http_draintimeout notifications \
    default_notifications_timeout default_notifications_maxretries default_notifications_backoff \
    default_notifications_headers redis";
/// Section 5.1: the keys of gitlab.yml's `registry`.
const YAML: &str = "enabled host port api_url key issuer path notification_secret host_port notifications";

const MODES: [&str; 2] = ["front", "embedded"];

fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/import").join(file)
}

fn import(source: &Path, mode: &str) -> Output {
    Output::of(pierhead().args(["import", "--mode", mode]).arg(source)).ok()
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("import-").tempdir_in(scratch()).expect("a directory can be made")
}

/// The lines of a file that set something, found without knowing its syntax: an assignment, a key of a hash, a directive.
fn settings(file: &str, text: &str) -> BTreeSet<usize> {
    let mut lines = BTreeSet::new();
    let mut comment = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with("=begin") || line == "__END__" {
            comment = true;
        }
        let sets = match Path::new(file).extension().and_then(|extension| extension.to_str()) {
            Some("rb") => {
                let call = line.contains("external_url") || line.starts_with("roles");
                let key = (line.starts_with(['\'', '"', ':'])) && (line.contains("=>") || line.contains("': "));
                // Of a hash within a hash only its keys set something.
                call || (key && !line.ends_with('{'))
                    || (line.contains("'] = ") && !line.ends_with('{') && !line.ends_with('['))
            }
            Some("yml") => line.contains(": ") && !line.contains("&base"),
            _ => {
                line.ends_with(';')
                    || line.contains("; #")
                    || line.ends_with('{')
                    || line.starts_with("ssl_certificate")
            }
        };
        if sets && !comment && !line.starts_with('#') {
            lines.insert(number + 1);
        }
        if line.starts_with("=end") {
            comment = false;
        }
    }
    lines
}

#[test]
fn the_report_names_every_line_in_both_modes() {
    for Fixture { file, .. } in &FIXTURES {
        let path = fixture(file);
        let text = fs::read_to_string(&path).expect("a fixture");
        let expected = settings(file, &text);
        assert!(expected.len() > 5, "{file}: {expected:?}");
        for mode in MODES {
            let report = import(&path, mode).stderr;
            let named = |line: &usize| report.contains(&format!("{}:{line}: ", path.display()));
            let missing: Vec<&usize> = expected.iter().filter(|line| !named(line)).collect();
            assert!(missing.is_empty(), "{file} {mode}: lines {missing:?} are not in\n{report}");
        }
    }
}

#[test]
fn every_key_that_gitlab_documents_is_in_a_fixture_and_known() {
    let reports: Vec<String> =
        FIXTURES.iter().map(|fixture| import(&self::fixture(fixture.file), "embedded").stderr).collect();
    let reports = reports.concat();
    let line = |names: &[String]| {
        let found = reports.lines().find(|line| names.iter().any(|name| line.contains(name)));
        found.unwrap_or_else(|| panic!("{names:?} is nowhere in\n{reports}"))
    };
    for key in DOOR.split_whitespace() {
        line(&[format!("registry_nginx['{key}']"), format!("registry['nginx']['{key}']")]);
    }
    for key in RAILS.split_whitespace() {
        line(&[format!("gitlab_rails['{key}']")]);
    }
    for key in REGISTRY.split_whitespace() {
        line(&[format!("registry['{key}']")]);
    }
    for key in YAML.split_whitespace() {
        line(&[format!("production.registry.{key}")]);
    }
    assert!(!reports.contains("does not have"), "every key is known:\n{reports}");
    for word in ["ENV['HTTP_PROXY']", "inside `if` of line", "interpolated heredoc", "interpolated string", "(ERB)"] {
        assert!(reports.contains(word), "{word}");
    }
}

#[test]
fn a_file_is_written_for_its_owner_alone_and_replaced_as_a_whole() {
    let folder = folder();
    let (target, target_text) =
        (folder.path().join("pierhead.yml"), || fs::read_to_string(folder.path().join("pierhead.yml")));
    fs::write(&target, "old").expect("the directory can be written");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let source = fixture("own-domain.rb");
    let run = |arguments: &[&str]| {
        Output::of(
            pierhead().args(["import", "--mode", "embedded"]).args(arguments).arg("-o").arg(&target).arg(&source),
        )
    };
    run(&[]).refused(&["exists already", "--force"]);
    assert_eq!(target_text().expect("a file"), "old");
    let said = run(&["--force"]).ok();
    assert_eq!(said.stdout, "");
    assert_eq!(fs::metadata(&target).expect("a file").permissions().mode() & 0o777, 0o600);
    assert!(target_text().expect("a file").contains("secret: not-a-real-secret"));
    assert!(!said.stderr.contains("not-a-real"), "{}", said.stderr);
    assert!(said.stderr.contains("systemctl enable --now pierhead"), "{}", said.stderr);
}

#[test]
fn neither_the_source_nor_a_link_or_a_device_is_ever_written_over() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let text = fs::read_to_string(fixture("own-domain.rb")).expect("a fixture");
    fs::write(path("source"), &text).expect("the directory can be written");
    fs::hard_link(path("source"), path("again")).expect("the directory can be written");
    std::os::unix::fs::symlink(path("nowhere"), path("link")).expect("the directory can be written");
    let run = |source: &Path, target: &Path| {
        Output::of(pierhead().args(["import", "--force", "-o"]).arg(target).arg(source)).refused(&["name another"])
    };
    for target in ["source", "again", "link", "."] {
        assert_eq!(run(&path("source"), &path(target)).code(), Some(2), "{target}");
    }
    run(&path("source"), Path::new("/dev/null"));
    std::os::unix::fs::symlink(path("source"), path("alias")).expect("the directory can be written");
    run(&path("alias"), &path("source"));
    assert_eq!(fs::read_to_string(path("source")).expect("a file"), text);
    assert!(!path("nowhere").exists());
}

#[test]
fn ruby_on_lines_of_its_own_in_a_gitlab_yml_is_named_and_what_depends_on_it_is_left() {
    let folder = folder();
    let source = folder.path().join("gitlab.yml");
    let text = "production:\n  gitlab:\n    host: gitlab.example.com\n    https: true\n  registry:\n    enabled: true\n    \
                host: registry.example.com\n    port: 5005\n    <% if true %>\n    port: 6006\n    <% end %>\n";
    fs::write(&source, text).expect("the directory can be written");
    let said = import(&source, "front");
    assert!(said.stdout.contains("external_url: https://registry.example.com:5005\n"), "{}", said.stdout);
    assert!(said.stderr.contains("gitlab.yml:10: port: it depends on a condition (ERB)"), "{}", said.stderr);
    fs::write(&source, "production:\n  gitlab:\n    host: gitlab.example.com\n").expect("the directory can be written");
    Output::of(pierhead().arg("import").arg(&source)).refused(&["nothing in it is about a registry"]);
}

#[test]
fn what_cannot_be_imported_says_why_and_writes_nothing() {
    let folder = folder();
    let (source, target) = (folder.path().join("source"), folder.path().join("pierhead.yml"));
    let run = |text: &str, arguments: &[&str]| {
        fs::write(&source, text).expect("the directory can be written");
        Output::of(pierhead().arg("import").args(arguments).arg("-o").arg(&target).arg(&source))
    };
    assert_eq!(run("hello\n", &[]).refused(&["--format"]).code(), Some(2));
    let text = "external_url 'https://a.test'\nregistry['storage'] = { 's3' => { 'bucket' => 'b' } }\n";
    assert_eq!(run(text, &["--mode", "embedded"]).refused(&["the images are in s3"]).code(), Some(1));
    assert_eq!(run("a: [\n", &["--format", "gitlab-yml"]).refused(&["not YAML"]).code(), Some(78));
    fs::remove_file(&source).expect("it is ours");
    let missing = Output::of(pierhead().arg("import").arg(&source)).refused(&["cannot be read"]);
    assert_eq!(missing.code(), Some(1));
    assert!(!target.exists());
}

/// It stands for GitLab: it gives out the tokens.
fn gitlab() -> Site {
    Site::new()
}

/// A running Pierhead with what was imported, its paths and ports made temporary.
struct Moved {
    folder: TempDir,
    port: u16,
    tls: bool,
    process: Process,
}

impl Moved {
    /// Imports a file, puts temporary places in place of those of the fixture, checks and serves it.
    fn new(fixture: &Fixture, mode: &str, places: &[(&str, &str)]) -> Self {
        let folder = folder();
        let port = free_port();
        let text = import(&self::fixture(fixture.file), mode).stdout;
        let name = fixture.external.split(':').next().expect("a name");
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let write =
            |file: &str, text: String| fs::write(folder.path().join(file), text).expect("the directory can be written");
        write("own.crt", pair.cert.pem());
        write("own.key", pair.signing_key.serialize_pem());
        let address = |port: u16| format!("\"127.0.0.1:{port}\"");
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines() {
            let key = line.trim_start_matches([' ', '-']).split(':').next().unwrap_or("");
            let indent = &line[..line.len() - line.trim_start_matches([' ', '-']).len()];
            lines.push(match key {
                "external_url" => format!("external_url: https://localhost:{port}"),
                "address" if line.contains(":80") => format!("{indent}address: {}", address(free_port())),
                "address" if line.contains(&format!(":{}", fixture.listens)) => {
                    format!("{indent}address: {}", address(port))
                }
                "address" | "addr" => format!("{indent}{key}: {}", address(free_port())),
                "certificate" => format!("{indent}certificate: own.crt"),
                "key" => format!("{indent}key: own.key"),
                "rootdirectory" => format!("{indent}rootdirectory: tree"),
                "level" => format!("{indent}level: info"),
                _ => places
                    .iter()
                    .fold(line.replace("10.1.0.0/16", "127.0.0.0/8"), |line, (from, to)| line.replace(from, to)),
            });
        }
        if !text.contains("\ntls:") && fixture.tls {
            lines.push("tls: { certificates: [{ certificate: own.crt, key: own.key }] }".to_owned());
        }
        if !text.contains("\nmetrics:") && !text.contains("debug:") {
            lines.push(format!("metrics: {{ address: {} }}", address(free_port())));
        }
        lines.push("state: state".to_owned());
        assert!(
            !lines.iter().any(|line| !line.starts_with('#') && line.contains(name) && !line.contains("/jwt/auth")),
            "{lines:#?}"
        );
        write("pierhead.yml", lines.join("\n") + "\n");
        let config = folder.path().join("pierhead.yml");
        Output::of(pierhead().args(["check", "-c"]).arg(&config)).ok();
        let mut command = std::process::Command::new(PIERHEAD);
        command.args(["serve", "-c"]).arg(&config).env("PIERHEAD_ADMIN_PASSWORD", ADMIN_PASSWORD);
        let mut process = Process::start("pierhead", folder.path(), &mut command);
        process.wait_until("listen", 30, |_| TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { folder, port, tls: fixture.tls, process }
    }

    fn origin(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    fn certificate(&self) -> String {
        fs::read_to_string(self.folder.path().join("own.crt")).expect("it was written")
    }

    /// A request as clients make it, or as a load balancer that ends their TLS passes it on.
    fn request(&self, method: Method, url: &str) -> RequestBuilder {
        let builder = Client::builder().http1_only().no_proxy();
        let certificate = reqwest::Certificate::from_pem(self.certificate().as_bytes()).expect("PEM");
        let client = builder.tls_certs_only([certificate]).build().expect("a client");
        let path = url.strip_prefix(&self.origin()).unwrap_or_else(|| panic!("{url} is not below {}", self.origin()));
        if self.tls {
            return client.request(method, url);
        }
        let request = client.request(method, format!("http://localhost:{}{path}", self.port));
        request.header("X-Forwarded-Proto", "https").header("X-Forwarded-For", "192.0.2.7")
    }

    /// Where it sends clients for their tokens.
    fn realm(&self) -> String {
        let url = format!("{}/v2/", self.origin());
        let refused = wait_for("the registry to answer", 20, || {
            let answer = self.request(Method::GET, &url).send().ok()?;
            (answer.status() == 401).then_some(answer)
        });
        let challenge = refused.headers()["www-authenticate"].to_str().expect("text");
        let realm = challenge.split_once("realm=\"").and_then(|(_, rest)| rest.split_once('"')).expect("a realm");
        realm.0.to_owned()
    }

    /// Pushes and pulls an image, following every Location as it comes.
    fn push(&self, authorization: Option<&str>) {
        let send = |request: RequestBuilder, status: u16| {
            let request = match authorization {
                Some(authorization) => request.header("Authorization", authorization),
                None => request,
            };
            let answer = request.send().expect("an answer");
            let (got, location) = (answer.status(), answer.headers().get("location").cloned());
            let location = location.map(|location| location.to_str().expect("text").to_owned()).unwrap_or_default();
            let location = if location.starts_with('/') { format!("{}{location}", self.origin()) } else { location };
            let body = answer.bytes().expect("a body");
            assert_eq!(got, status, "{}\n{}", String::from_utf8_lossy(&body), self.process.stderr());
            (location, body)
        };
        let repository = format!("{}/v2/team/app", self.origin());
        wait_for("the registry to be ready", 20, || {
            let answer = self.request(Method::GET, &format!("{}/-/ready", self.origin())).send().ok()?;
            (answer.status() == 200).then_some(())
        });
        let (config, layer) = (Content::new(1, 700), Content::new(2, 200_000));
        for blob in [config, layer] {
            let (location, _) = send(self.request(Method::POST, &format!("{repository}/blobs/uploads/")), 202);
            let bytes = || {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut blob.reader(), &mut bytes).expect("content");
                bytes
            };
            let (location, _) = send(self.request(Method::PATCH, &location).body(bytes()), 202);
            let separator = if location.contains('?') { '&' } else { '?' };
            let end = format!("{location}{separator}digest={}", blob.digest());
            send(self.request(Method::PUT, &end), 201);
        }
        let manifest = manifest(config, &[layer]);
        let put = self.request(Method::PUT, &format!("{repository}/manifests/latest"));
        send(put.header("Content-Type", OCI_MANIFEST).body(manifest.clone()), 201);
        let get = self.request(Method::GET, &format!("{repository}/manifests/latest")).header("Accept", OCI_MANIFEST);
        assert_eq!(digest(&send(get, 200).1), digest(&manifest));
        let get = self.request(Method::GET, &format!("{repository}/blobs/{}", layer.digest()));
        assert_eq!(digest(&send(get, 200).1), layer.digest());
    }
}

#[test]
fn what_is_imported_serves_a_push_before_the_registry_that_is_there() {
    // The registry that is there believes GitLab's tokens, as behind NGINX.
    let gitlab = gitlab();
    let _server = gitlab.start();
    gitlab.add_project("team/app", "private");
    let folder = folder();
    let registry = Distribution::guarded_by(&gitlab, folder.path(), &folder.path().join("tree"), "container_registry");
    let origin = registry.origin();
    let realm = format!("{}/jwt/auth", gitlab.origin());
    for fixture in &FIXTURES {
        let places = [
            ("http://127.0.0.1:5000", origin.as_str()),
            ("http://localhost:5000", origin.as_str()),
            ("https://gitlab.example.com/jwt/auth", realm.as_str()),
        ];
        let moved = Moved::new(fixture, "front", &places);
        assert_eq!(moved.realm(), realm, "{}", fixture.file);
        moved.push(gitlab.admin().repository("team/app", "pull,push").authorization());
    }
}

#[test]
fn what_is_imported_serves_a_push_in_its_place_to_whom_gitlab_gives_tokens() {
    let gitlab = gitlab();
    let _server = gitlab.start();
    gitlab.add_project("team/app", "private");
    let bundle = gitlab.directory().join("gitlab-registry.crt");
    fs::write(&bundle, gitlab.run(&["token", "certificate"]).ok().stdout).expect("the directory can be written");
    let bundle = bundle.display().to_string();
    for fixture in &FIXTURES {
        let realm = format!("{}/jwt/auth", gitlab.origin());
        let places = [
            ("https://gitlab.example.com/jwt/auth", realm.as_str()),
            ("omnibus-gitlab-issuer", "pierhead"),
            ("gitlab-issuer", "pierhead"),
            ("/var/opt/gitlab/registry/gitlab-registry.crt", &bundle),
            ("/home/git/gitlab/config/registry.crt", &bundle),
        ];
        let moved = Moved::new(fixture, "embedded", &places);
        let own = fixture.file.starts_with("nginx");
        let person = if own {
            let config = moved.folder.path().join("pierhead.yml");
            wait_for("the account to be there", 20, || {
                let mut command = pierhead();
                command.args(["project", "add", "team/app", "-c"]).arg(&config);
                Output::of(&mut command).is_ok().then_some(())
            });
            let realm = format!("{}/jwt/auth", moved.origin());
            Registry::guarded(&moved.origin(), &realm, &moved.certificate(), Some(("admin", ADMIN_PASSWORD)))
        } else {
            assert_eq!(moved.realm(), realm, "{}", fixture.file);
            gitlab.admin()
        };
        let repository = person.repository("team/app", "pull,push");
        moved.push(repository.authorization());
    }
}
