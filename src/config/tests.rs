//! The table of bad configurations, and what some good ones mean.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::auth::Algorithm;
use crate::telemetry::{Destination, Format};

mod any;
mod conf;
mod readme;
mod warnings;

pub(super) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A machine whose name and addresses are known, with nothing under `/etc`.
pub(super) fn machine(folder: &Path) -> Machine {
    Machine {
        serves: true,
        host_name: Some("harbour".to_owned()),
        addresses: vec![IpAddr::from([192, 0, 2, 7]), "2001:db8::7".parse().unwrap()],
        ipv6: true,
        folder: folder.to_owned(),
        system_file: folder.join("etc/pierhead.yml"),
        gitlab_certificates: folder.join("etc/gitlab/ssl"),
        gitlab_webroot: folder.join("var/opt/gitlab/nginx/www"),
        user: "pierhead (uid 998)".to_owned(),
    }
}

/// `NAME=VALUE`, one a line.
pub(super) fn variables(text: &str) -> Vec<(String, String)> {
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    text.lines().filter_map(pair).collect()
}

/// A folder to which files are written and from which they are loaded.
pub(super) struct Desk(TempDir);

impl Desk {
    pub(super) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn put(&self, name: &str, text: impl AsRef<[u8]>) -> &Self {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(path).unwrap().write_all(text.as_ref()).unwrap();
        self
    }

    /// Loads a file of this folder.
    pub(super) fn load(&self, name: &str, environment: &str) -> Result<Settings, Problems> {
        load(Some(Path::new(name)), variables(environment), &machine(self.path()))
    }

    /// Loads `text`, which must be good.
    pub(super) fn good(&self, text: &str, environment: &str) -> Settings {
        self.put("a.yml", text).load("a.yml", environment).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
    }

    /// The problems of `text`.
    pub(super) fn bad(&self, text: &str, environment: &str) -> String {
        self.put("a.yml", text).load("a.yml", environment).unwrap_err().to_string()
    }
}

/// What is meant, whatever it was written in.
pub(super) fn meaning(settings: Settings) -> Settings {
    Settings { source: None, written: BTreeMap::new(), ..settings }
}

fn strings(values: &[impl ToString]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

// The table

#[test]
fn every_bad_configuration_is_reported_in_full() {
    let folder = Path::new(ROOT).join("tests/data/bad-configs");
    let mut wrong = String::new();
    let files = bad_configurations(&folder);
    for file in &files {
        let environment = fs::read_to_string(file.with_extension("environment")).unwrap_or_default();
        let name = Path::new(file.file_name().unwrap());
        let found = match load(Some(name), variables(&environment), &machine(&folder)) {
            Ok(_) => "no problem\n".to_owned(),
            Err(problems) => format!("{problems}\n").replace(folder.to_str().unwrap(), "{folder}"),
        };
        let expected = fs::read_to_string(file.with_extension("expected")).unwrap_or_default();
        if found != expected {
            wrong += &format!("== {}\n{found}", name.display());
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(files.len() >= 30);
}

fn bad_configurations(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yml"));
    files.sort();
    files
}

// Files that are no configuration

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let desk = Desk::new();
    desk.put("latin1.yml", b"state: /srv/\xfc\n").put("large.yml", "#".repeat(yaml::LARGEST + 1));
    let problem = |name: &str| desk.load(name, "").unwrap_err().to_string();
    assert_eq!(problem("none.yml"), "none.yml: cannot be read: No such file or directory (os error 2)");
    assert_eq!(problem("latin1.yml"), "latin1.yml: cannot be read: stream did not contain valid UTF-8");
    assert_eq!(problem("large.yml"), "large.yml: larger than 1048576 bytes: not a configuration file");
    assert_eq!(problem("."), ".: cannot be read: Is a directory (os error 21)");
}

#[test]
fn a_certificate_that_we_may_not_read_names_who_we_are() {
    let desk = Desk::new();
    desk.put("a.crt", "").put("a.key", "");
    fs::set_permissions(desk.path().join("a.key"), fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(desk.path().join("a.key")).is_ok() {
        return; // root may read everything
    }
    let problems = desk.bad("tls: { certificates: [{ certificate: a.crt, key: a.key }] }", "");
    assert!(problems.ends_with("cannot be read by pierhead (uid 998); give this user the right to"), "{problems}");
}

// Defaults

#[test]
fn nothing_at_all_is_a_registry_on_this_machine() {
    let desk = Desk::new();
    let settings = load(None, [], &machine(desk.path())).unwrap();
    let state = desk.path().join("data");
    assert_eq!(settings.source, None);
    assert_eq!(settings.written, BTreeMap::new());
    assert_eq!(settings.state, state);
    assert_eq!(settings.user, None);
    assert_eq!(settings.front.external_url.to_string(), "https://localhost:5050");
    assert_eq!(
        strings(&settings.front.aliases),
        [
            "https://127.0.0.1:5050",
            "https://[::1]:5050",
            "https://harbour:5050",
            "https://192.0.2.7:5050",
            "https://[2001:db8::7]:5050"
        ]
    );
    assert_eq!(
        settings.front.listeners,
        [
            front::Listener::new(front::Address::Tcp("[::]:5050".parse().unwrap()), true, false),
            front::Listener::new(front::Address::Tcp("127.0.0.1:5000".parse().unwrap()), false, true),
        ]
    );
    let debug = front::Debug { address: "127.0.0.1:5001".parse().unwrap(), metrics: Some("/metrics".to_owned()) };
    assert_eq!(settings.front.debug, Some(debug));
    assert_eq!(settings.front.timeouts, front::Timeouts::default());
    assert_eq!(settings.front.hsts, Some(Duration::from_secs(730 * 86_400)));
    assert_eq!((settings.tls.certificates.len(), settings.tls.policy), (0, crate::tls::Policy::Intermediate));
    assert_eq!(settings.tls.local.directory, state.join("tls"));
    assert_eq!(settings.tls.local.names, ["localhost", "127.0.0.1", "::1", "harbour", "192.0.2.7", "2001:db8::7"]);
    assert_eq!(settings.registry.root, state.join("registry"));
    assert!(settings.registry.delete);
    assert_eq!(settings.registry.limits.manifest, 4 << 20);
    assert_eq!(settings.auth.path, "/jwt/auth");
    assert_eq!(settings.auth.service, "container_registry");
    assert_eq!(settings.auth.issuer, "pierhead");
    assert_eq!(settings.auth.duration, Duration::from_secs(300));
    assert_eq!(settings.auth.algorithm, Algorithm::Es256);
    assert_eq!(settings.auth.key, state.join("token.key"));
    assert_eq!(settings.auth.certificate, state.join("token.crt"));
    assert_eq!(settings.auth.limits.failed_logins.get(), 10);
    assert!(!settings.auth.members_may_create_projects);
    assert_eq!(settings.telemetry.level, tracing::Level::INFO);
    assert_eq!(settings.telemetry.format, Format::Auto);
    assert_eq!((settings.telemetry.access, settings.telemetry.audit), (Destination::Stdout, Destination::Off));
}

#[test]
fn production_needs_external_url_only() {
    let settings = Desk::new().good("external_url: https://registry.example.com", "");
    assert_eq!(settings.front.listeners[0].address.to_string(), "[::]:443");
    assert!(settings.front.listeners[0].tls);
    assert_eq!(settings.front.aliases, []);
    assert_eq!(settings.tls.local.names[..2], ["registry.example.com", "localhost"]);

    let settings = Desk::new().good("external_url: http://[2001:db8::1]:8080", "");
    assert_eq!(settings.front.listeners[0].address.to_string(), "[::]:8080");
    assert!(!settings.front.listeners[0].tls);
    assert_eq!(settings.tls.local.names[0], "2001:db8::1");
}

#[test]
fn a_load_balancer_may_end_tls_before_us() {
    let text = "external_url: https://registry.example.com\nlisteners: [{address: ':8080', tls: false}]";
    assert!(!Desk::new().good(text, "").front.listeners[0].tls);
}

#[test]
fn without_ipv6_every_address_is_0_0_0_0() {
    let desk = Desk::new();
    let machine = Machine { ipv6: false, ..machine(desk.path()) };
    let settings = load(None, [], &machine).unwrap();
    assert_eq!(settings.front.listeners[0].address.to_string(), "0.0.0.0:5050");
    let listeners = variables("PIERHEAD_LISTENERS=[{address: ':5050'}]");
    let settings = load(None, listeners, &machine).unwrap();
    assert_eq!(settings.front.listeners[0].address.to_string(), "0.0.0.0:5050");
}

#[test]
fn a_machine_without_a_name_has_no_such_alias() {
    let desk = Desk::new();
    let machine = Machine { host_name: None, addresses: Vec::new(), ..machine(desk.path()) };
    let settings = load(None, [], &machine).unwrap();
    assert_eq!(strings(&settings.front.aliases), ["https://127.0.0.1:5050", "https://[::1]:5050"]);
}

#[test]
fn the_systems_file_is_read_when_none_is_named_and_its_state_is_the_systems() {
    let desk = Desk::new();
    desk.put("etc/pierhead.yml", "external_url: https://system.example.com").put("b.yml", "");
    let machine = machine(desk.path());
    let settings = load(None, [], &machine).unwrap();
    assert_eq!(settings.source, Some(desk.path().join("etc/pierhead.yml")));
    assert_eq!(settings.front.external_url.to_string(), "https://system.example.com");
    assert_eq!(settings.state, Path::new("/var/lib/pierhead"));
    let settings = load(Some(Path::new("b.yml")), [], &machine).unwrap();
    assert_eq!(settings.front.external_url.to_string(), "https://localhost:5050");
    assert_eq!(settings.state, desk.path().join("data"));
}

#[test]
fn a_file_elsewhere_keeps_its_state_beside_it() {
    let desk = Desk::new();
    desk.put("conf/b.yml", "tls: { local: ../certs/. }");
    let settings = desk.load("./conf/b.yml", "").unwrap();
    assert_eq!(settings.state, desk.path().join("conf/data"));
    assert_eq!(settings.tls.local.directory, desk.path().join("conf/../certs"));
}

#[test]
fn the_state_directory_is_found_in_a_configuration_that_cannot_be_used() {
    let desk = Desk::new();
    let machine = machine(desk.path());
    let found = |text: &str, environment: &str| {
        desk.put("a.yml", text);
        let state = state(Some(Path::new("a.yml")), variables(environment), &machine);
        state.strip_prefix(desk.path()).unwrap().to_owned()
    };
    for text in [
        "state: here",
        "state: here\nlog: { level: shout }\nnonsense: 5\nlisteners: 7\n",
        "log: { level: [\nstate: here  # a comment\n\tlisteners: }",
        "external_url: \"https://unclosed\nstate: 'here'\n",
    ] {
        assert_eq!(found(text, ""), Path::new("here"), "{text}");
        assert_eq!(found(text, "PIERHEAD_STATE=there\nPIERHEAD_NONSENSE=1"), Path::new("there"), "{text}");
    }
    for text in ["", "state: [a, b]", "- a list", "log: { level: [", "  state: of: something else"] {
        assert_eq!(found(text, ""), Path::new("data"), "{text}: as if the key were not there");
    }
    assert_eq!(state(Some(Path::new("not/there.yml")), [], &machine), desk.path().join("not/data"));
}

#[test]
fn traces_are_refused_by_a_program_that_has_none_and_a_collectors_url_is_checked() {
    let desk = Desk::new();
    let traces = |endpoint: &str| format!("log: {{ traces: {{ endpoint: '{endpoint}', sample: 0.5 }} }}");
    let off = desk.good(&traces("off"), "").telemetry.traces;
    assert_eq!((off.endpoint, off.sample), (None, 0.5));
    for (endpoint, url) in [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("https://otel.example.com/", "https://otel.example.com/v1/traces"),
        ("https://otel.example.com/otlp/v1/traces", "https://otel.example.com/otlp/v1/traces"),
    ] {
        if cfg!(feature = "opentelemetry") {
            assert_eq!(desk.good(&traces(endpoint), "").telemetry.traces.endpoint.as_deref(), Some(url));
        } else {
            let problems = desk.bad(&traces(endpoint), "");
            assert!(problems.contains("log.traces.endpoint: this program was built without traces"), "{problems}");
        }
    }
    for wrong in ["127.0.0.1:4318", "grpc://otel:4317", "http://me:secret@otel", "http://otel?x=1", "http://", "on"] {
        assert!(desk.bad(&traces(wrong), "").contains("must be off or a URL"), "{wrong}");
    }
    for wrong in ["1.1", "-1", "NaN", "10%"] {
        let problems = desk.bad(&format!("log: {{ traces: {{ sample: {wrong} }} }}"), "");
        assert!(problems.contains("must be a number from 0 to 1"), "{problems}");
    }
}

#[test]
fn nothing_is_made_on_disk() {
    let desk = Desk::new();
    desk.good("state: x\ntls: { local: y }\ntoken: { key: k, certificate: c }", "");
    let names: Vec<_> = fs::read_dir(desk.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["a.yml"]);
}

#[test]
fn null_and_empty_sections_mean_the_default() {
    let desk = Desk::new();
    let defaults = meaning(desk.good("", ""));
    let text =
        "external_url:\naliases: null\nlisteners: ~\ntls:\nregistry: { storage: }\ntoken: { key: null }\ntimeouts: {}";
    assert_eq!(meaning(desk.good(text, "")), defaults);
}

#[test]
fn line_ends_of_other_systems_are_line_ends() {
    let desk = Desk::new();
    assert_eq!(
        meaning(desk.good("state: s\r\ntoken:\r\n  service: x\r\n", "")),
        meaning(desk.good("state: s\ntoken: {service: x}", ""))
    );
    assert!(desk.bad("state: s\r\nx: 1\r\n", "").starts_with("a.yml:2: x: "));
}

#[test]
fn quotes_change_nothing() {
    let desk = Desk::new();
    let text = "registry: { http: { addr: off } }\ntoken: { service: 5 }\nlog: { access: off }\ntimeouts: { idle: 5s }";
    let quoted =
        "registry: {http: {addr: 'off'}}\ntoken: {service: \"5\"}\nlog: {access: 'off'}\ntimeouts: {idle: '5s'}";
    assert_eq!(meaning(desk.good(text, "")), meaning(desk.good(quoted, "")));
}

// The environment

#[test]
fn a_variable_beats_the_file() {
    let desk = Desk::new();
    let text = "external_url: https://file.example.com\ntimeouts: { idle: 10s, stall: banana }\naliases: [x]";
    let settings = desk.good(
        text,
        "PIERHEAD_EXTERNAL_URL=https://variable.example.com\n\
         PIERHEAD_TIMEOUTS_STALL=20s\n\
         PIERHEAD_ALIASES=[https://a.example.com, 'https://b.example.com']\n\
         PIERHEAD_REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/srv/registry\n\
         PIERHEAD_REGISTRY_HTTP_ADDR=off\n\
         PIERHEAD_ACCOUNTS_MEMBERS_MAY_CREATE_PROJECTS=true\n\
         PIERHEAD_LIMITS_FAILED_LOGINS=20/m\n",
    );
    assert_eq!(settings.front.external_url.to_string(), "https://variable.example.com");
    assert_eq!(strings(&settings.front.aliases), ["https://a.example.com", "https://b.example.com"]);
    assert_eq!(settings.front.timeouts.idle, Duration::from_secs(10));
    assert_eq!(settings.front.timeouts.stall, Duration::from_secs(20));
    assert_eq!(settings.registry.root, Path::new("/srv/registry"));
    assert!(settings.front.listeners.iter().all(|listener| !listener.internal));
    assert!(settings.auth.members_may_create_projects);
    assert_eq!(settings.auth.limits.failed_logins.get(), 20);
}

#[test]
fn an_empty_variable_is_none_and_null_takes_the_files_value_away() {
    let desk = Desk::new();
    let text = "timeouts: { idle: 10s }";
    assert_eq!(
        desk.good(text, "PIERHEAD_TIMEOUTS_IDLE=\nPIERHEAD_USER_FILE=").front.timeouts.idle,
        Duration::from_secs(10)
    );
    assert_eq!(desk.good(text, "PIERHEAD_TIMEOUTS_IDLE=null").front.timeouts.idle, Duration::from_secs(75));
}

#[test]
fn a_variable_may_name_a_file_that_holds_the_value() {
    let desk = Desk::new();
    let settings = desk.put("issuer", "harbour\n").good("", "PIERHEAD_TOKEN_ISSUER_FILE=issuer");
    assert_eq!(settings.auth.issuer, "harbour");
    assert_eq!(settings.written["token.issuer"].source, Source::Variable("PIERHEAD_TOKEN_ISSUER_FILE".into()));
}

#[test]
fn what_a_named_file_holds_is_never_shown() {
    let desk = Desk::new();
    desk.put("token.key", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n");
    for name in ["TOKEN_KEY", "TOKEN_SERVICE", "TOKEN_DURATION", "ALIASES", "LOG_LEVEL", "EXTERNAL_URL", "LISTENERS"] {
        let problems = desk.bad("", &format!("PIERHEAD_{name}_FILE=token.key"));
        assert!(!problems.contains("hunter2") && !problems.contains("BEGIN"), "{problems}");
    }
}

#[test]
fn relative_paths_start_where_they_were_written() {
    let desk = Desk::new();
    desk.put("conf/b.yml", "state: s\ntls: { local: l }");
    let settings = desk.load("conf/b.yml", "PIERHEAD_TLS_LOCAL=certs").unwrap();
    assert_eq!(settings.state, desk.path().join("conf/s"));
    assert_eq!(settings.tls.local.directory, desk.path().join("certs"));
}

#[test]
fn variables_of_other_programs_and_of_other_rooms_are_left_alone() {
    let environment = "HOME=/root\nPIERHEAD_CONFIG=a.yml\nPIERHEAD_ADMIN_PASSWORD=hunter2\n\
         PIERHEAD_ADMIN_PASSWORD_FILE=/run/secrets/admin\nPIERHEADS=2\n\
         PIERHEAD_SERVICE_HOST=10.0.0.1\nPIERHEAD_SERVICE_PORT=5050\nPIERHEAD_SERVICE_PORT_HTTPS=5050\n\
         PIERHEAD_PORT=tcp://10.0.0.1:5050\nPIERHEAD_PORT_5050_TCP=tcp://10.0.0.1:5050\n\
         PIERHEAD_PORT_5050_TCP_PROTO=tcp\nPIERHEAD_PORT_5050_TCP_PORT=5050\nPIERHEAD_PORT_5050_TCP_ADDR=10.0.0.1\n\
         PIERHEAD_REGISTRY_PORT_443_TCP_ADDR=10.0.0.1\nPIERHEAD_TLS_SERVICE_HOST=10.0.0.1";
    let settings = Desk::new().good("", environment);
    assert_eq!(settings.written, BTreeMap::new());
    assert!(!show(&settings).contains("hunter2"));
    assert!(Desk::new().bad("", "PIERHEAD_PORT=5050").contains("PIERHEAD_PORT: unknown variable"));
}

/// The paths of all scalars and lists, read off the page that shows all of them.
fn keys() -> Vec<String> {
    let page = show(&load(None, [], &machine(Path::new("/"))).unwrap());
    let mut open: Vec<&str> = Vec::new();
    let mut keys = Vec::new();
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.trim_start().starts_with("- ")) {
        let (key, value) = line.trim_start().split_once(':').unwrap();
        open.truncate((line.len() - line.trim_start().len()) / 2);
        open.push(key);
        let is_list = key == "listeners" || key == "aliases" || key == "certificates";
        if is_list || !value.trim().is_empty() {
            keys.push(open.join("."));
        }
    }
    keys.retain(|key| !key.starts_with("listeners.")); // they have no variable of their own
    keys
}

#[test]
fn every_key_has_a_variable_of_its_own() {
    let keys = keys();
    assert!(keys.len() >= 28 && keys.contains(&"registry.http.addr".to_owned()), "{keys:?}");
    let names: std::collections::BTreeSet<String> = keys.iter().map(|key| environment::variable(key)).collect();
    assert_eq!(names.len(), keys.len());
    for name in names {
        assert!(!name.ends_with("_FILE"), "{name} is the variable of another key's file");
        assert!(!environment::is_of_kubernetes(&name, "5050"), "{name} would be taken for one of Kubernetes");
        let problems = Desk::new().bad("", &format!("{name}=\u{fffd}"));
        assert!(problems.starts_with(&format!("environment: {name}: ")), "{problems}");
    }
}

// What is shown

#[test]
fn gitlabs_certificate_is_used_where_none_is_named() {
    let desk = Desk::new();
    let place = desk.path().join("etc/gitlab/ssl");
    std::fs::create_dir_all(&place).unwrap();
    let url = "external_url: https://registry.example.com:5050\n";
    let found = |text: &str| desk.good(text, "");
    desk.put("etc/gitlab/ssl/registry.example.com.crt", "").put("a.crt", "").put("a.key", "");
    assert_eq!(found(url).tls.certificates, [], "half a pair is none");
    desk.put("etc/gitlab/ssl/registry.example.com.key", "");
    let settings = found(url);
    assert_eq!(settings.tls.certificates[0].certificate, place.join("registry.example.com.crt"));
    assert_eq!(settings.tls.certificates[0].key, place.join("registry.example.com.key"));
    assert!(settings.certificate_was_found());
    for other in [
        "external_url: https://other.example.com\n".to_owned(),
        format!("{url}tls: {{ certificates: [] }}\n"),
        "external_url: http://registry.example.com:5050\n".to_owned(),
    ] {
        assert_eq!(found(&other).tls.certificates, [], "{other}");
    }
    let named = found(&format!("{url}tls: {{ certificates: [{{ certificate: a.crt, key: a.key }}] }}\n"));
    assert!(!named.certificate_was_found() && named.tls.certificates[0].key.ends_with("a.key"));
    assert_eq!(meaning(found(&show(&settings))), meaning(settings), "the page names it");
}

#[test]
fn names_that_were_written_must_be_on_a_certificate() {
    let desk = Desk::new();
    let names = |text: &str| desk.good(text, "").public_names();
    assert_eq!(names(""), [""; 0]);
    let text = "external_url: https://registry.example.com:5050\naliases: [https://registry.example.com, https://10.0.0.1, http://clear.test]\n";
    assert_eq!(names(text), ["registry.example.com", "10.0.0.1"]);
}

#[test]
fn the_page_says_where_each_value_was_written() {
    let desk = Desk::new();
    let text = "external_url: https://registry.example.com\n\ntimeouts:\n  idle: 90s\n";
    let page = show(&desk.good(text, "PIERHEAD_LOG_LEVEL=debug"));
    assert!(page.starts_with(&format!("# from {}/a.yml\n# and from the environment", desk.path().display())), "{page}");
    assert!(page.contains("\nexternal_url: https://registry.example.com  # line 1\n"), "{page}");
    assert!(page.contains("\n  idle: 90s  # line 4\n"), "{page}");
    assert!(page.contains("\n  stall: 1m\n"), "{page}");
    assert!(page.contains("\n  level: debug  # PIERHEAD_LOG_LEVEL\n"), "{page}");
}

#[test]
fn the_page_is_a_configuration_that_means_the_same() {
    let desk = Desk::new();
    desk.put("a.crt", "").put("it's a # key.pem", "");
    let text = "external_url: http://registry.example.com:8080\naliases: [https://a.example.com]\nuser: root\n\
         listeners: [{address: '127.0.0.1:8080', tls: false}, {address: ':8443'}, {address: '[::1]:444', tls: true}, \
           {address: ':80', redirect: https, proxy_protocol: required}, {address: 'unix:a b.sock'}, \
           {address: 'systemd:front', proxy_protocol: optional, allow: {push: [10.0.0.0/8, '2001:db8::/32']}}]\n\
         internal: {deny: {pull: [192.0.2.1]}}\ntrusted_proxies: [127.0.0.0/8, '::1']\n\
         tls: {certificates: [{certificate: a.crt, key: \"it's a # key.pem\", password: a.crt}], local: '- odd: name'}\n\
         registry: {storage: {delete: {enabled: false}}}\n\
         token: {service: 'null', issuer: '~', algorithm: RS256}\nlog: {access: off, format: json, level: trace}\n";
    let settings = desk.good(text, "");
    let page = show(&settings);
    assert_eq!(meaning(desk.good(&page, "")), meaning(settings));
}
