//! `pierhead import`: from the files of those whose place we take to a `pierhead.yml`.
//!
//! The file is read as text and nothing of it is run. The configuration goes to stdout, or with 0600 to a file, since it
//! may hold secrets; the report goes to stderr.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::Failure;
use super::terminal::say;
use crate::config;
use crate::gitlab::{self, Imported, Site};
use crate::storage::durable;

/// No configuration is larger, in bytes.
const LARGEST: u64 = 1 << 20;

/// What the help ends with.
pub(super) const HELP: &str = "\
SOURCE is an Omnibus /etc/gitlab/gitlab.rb, a source install's config/gitlab.yml, or the registry's server block of NGINX \
(/var/opt/gitlab/nginx/conf/service_conf/gitlab-registry.conf); which of them is seen from what is in it.

Ruby is read, never run. What only running could tell (ENV, if, interpolation) is named with its line and left to you.

--mode front stands before the registry that is there, in NGINX's place: it changes nothing else, and is the way to begin. \
--mode embedded serves the same images in the registry's place, and believes GitLab's tokens.

The report, on stderr, says what became of every line, and ends with the commands that hand over, and back:

  install -d /etc/pierhead
  pierhead import -o /etc/pierhead/pierhead.yml /etc/gitlab/gitlab.rb
  pierhead check -c /etc/pierhead/pierhead.yml";

/// What `import` takes.
#[derive(Debug, Args)]
pub struct Import {
    /// What Pierhead is to do
    #[arg(long, value_enum, default_value_t = Mode::Front)]
    mode: Mode,
    /// Where the configuration goes: a new file, with mode 0600 [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write FILE also where it exists, but never SOURCE; what is in it is lost
    #[arg(long, requires = "output")]
    force: bool,
    /// How SOURCE is written [default: seen from what is in it]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The file to read
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
}

/// What Pierhead is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Stand before the registry that is there, in NGINX's place
    Front,
    /// Serve its images itself, in its place and NGINX's
    Embedded,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Omnibus' gitlab.rb
    GitlabRb,
    /// A source install's gitlab.yml
    GitlabYml,
    /// An NGINX server block
    Nginx,
}

/// Runs the command.
///
/// # Errors
/// The source cannot be read, is none of the three, or leaves no way to serve its images; the configuration cannot be
/// written, or would take the place of a file without `--force`.
pub(super) fn run(command: &Import) -> Result<(), Failure> {
    let file = command.source.display().to_string();
    if let Some(path) = &command.output {
        may_write(path, command)?;
    }
    let text =
        read(&command.source).map_err(|error| Failure::failed(format_args!("{file}: cannot be read: {error}")))?;
    let format = command.format.map(Into::into).or_else(|| gitlab::recognise(&text)).ok_or_else(|| Failure {
        code: 2,
        message: format!(
            "{file} is no gitlab.rb, no gitlab.yml and no server block that is recognised; --format says which"
        ),
    })?;
    let exists = |path: &Path| path.exists();
    let site = Site { file: &file, mode: command.mode.into(), exists: &exists };
    let imported = match format {
        gitlab::Format::GitlabRb => gitlab::gitlab_rb(&text, &site),
        gitlab::Format::Nginx => gitlab::nginx_block(&text, &site),
        gitlab::Format::GitlabYml => yaml(&text, &command.source, &site)?,
    };
    // With stderr closed there is nobody to report to; the configuration is as good.
    let _ = io::stderr().write_all(imported.report.as_bytes());
    let Some(configuration) = imported.configuration else {
        return Err(Failure::failed("nothing was written: the report above says why"));
    };
    match &command.output {
        Some(path) => durable::write(path, configuration.as_bytes(), durable::SECRET)
            .map_err(|error| Failure::failed(format_args!("{}: cannot be written: {error}", path.display()))),
        None => say(&configuration),
    }
}

/// The file that is written is a new one, or one that may be lost: never what is read, nor a link or a device.
fn may_write(path: &Path, command: &Import) -> Result<(), Failure> {
    let refused = |why: &str| Err(Failure { code: 2, message: format!("{}: {why}", path.display()) });
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.is_file() {
        return refused("is not a regular file; name another");
    }
    let same = |source: Metadata| (source.dev(), source.ino()) == (found.dev(), found.ino());
    if fs::metadata(&command.source).is_ok_and(same) {
        return refused("is the file that is read; name another");
    }
    if !command.force {
        return refused("exists already; --force replaces it");
    }
    Ok(())
}

fn yaml(text: &str, source: &Path, site: &Site<'_>) -> Result<Imported, Failure> {
    let plain = gitlab::without_erb(text);
    let leaves = config::leaves(&plain.text, source).map_err(Failure::configuration)?;
    let leaf = |leaf: config::Leaf| gitlab::Leaf { line: leaf.line, path: leaf.path, value: leaf.value };
    let leaves: Vec<gitlab::Leaf> = leaves.into_iter().map(leaf).collect();
    Ok(gitlab::gitlab_yml(&leaves, &plain, site))
}

/// The text of a file; bytes that are no UTF-8 are in comments, as a rule, and are replaced.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("larger than {LARGEST} bytes: not a configuration file")));
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned())
}

impl From<Mode> for gitlab::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Front => Self::Front,
            Mode::Embedded => Self::Embedded,
        }
    }
}

impl From<Format> for gitlab::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::GitlabRb => Self::GitlabRb,
            Format::GitlabYml => Self::GitlabYml,
            Format::Nginx => Self::Nginx,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::config::Machine;

    /// What the real reader says against a configuration that was imported, but for files that this machine lacks.
    fn complaints(text: &str, format: gitlab::Format, mode: gitlab::Mode) -> Vec<String> {
        let site = Site { file: "source", mode, exists: &|_| false };
        let imported = match format {
            gitlab::Format::GitlabRb => gitlab::gitlab_rb(text, &site),
            gitlab::Format::Nginx => gitlab::nginx_block(text, &site),
            gitlab::Format::GitlabYml => yaml(text, Path::new("source"), &site).unwrap(),
        };
        let Some(configuration) = imported.configuration else { return Vec::new() };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pierhead.yml");
        durable::write(&file, configuration.as_bytes(), durable::SECRET).unwrap();
        let machine = Machine::here(false).unwrap();
        let Err(problems) = config::load(Some(&file), [], &machine) else { return Vec::new() };
        let absent = |message: &str| {
            message.contains("does not exist")
                || message.contains("cannot be read")
                || message.contains("is Pierhead's own")
        };
        let wrong = problems
            .iter()
            .filter(|problem| !absent(&problem.message))
            .map(|problem| format!("{problem}\n{configuration}"));
        wrong.collect()
    }

    const KEYS: [&str; 44] = [
        "external_url",
        "registry_external_url",
        "registry_nginx['listen_port']",
        "registry['nginx']['listen_addresses']",
        "registry_nginx['listen_https']",
        "registry_nginx['redirect_http_to_https']",
        "registry_nginx['redirect_http_to_https_port']",
        "registry_nginx['proxy_protocol']",
        "registry_nginx['real_ip_trusted_addresses']",
        "registry_nginx['proxy_set_headers']['X-A']",
        "registry_nginx['proxy_set_headers']['Authorization']",
        "registry_nginx['proxy_set_headers']['X-Forwarded-Ssl']",
        "registry_nginx['ssl_certificate']",
        "registry_nginx['ssl_protocols']",
        "registry_nginx['hsts_max_age']",
        "registry_nginx['error_log_level']",
        "registry_nginx['custom_gitlab_server_config']",
        "registry['registry_http_addr']",
        "registry['token_realm']",
        "registry['debug_addr']",
        "registry['log_level']",
        "registry['log_formatter']",
        "registry['http_secret']",
        "registry['rootcertbundle']",
        "registry['storage']",
        "registry['storage']['filesystem']['rootdirectory']",
        "registry['storage']['maintenance']['uploadpurging']['age']",
        "registry['storage']['maintenance']['readonly']['enabled']",
        "registry['storage_delete_enabled']",
        "registry['validation_enabled']",
        "registry['autoredirect']",
        "registry['http_draintimeout']",
        "registry['health_storagedriver_enabled']",
        "registry['env']['REGISTRY_HTTP_RELATIVEURLS']",
        "registry['database']['enabled']",
        "registry['notifications']",
        "registry['redis']",
        "gitlab_rails['registry_host']",
        "gitlab_rails['registry_port']",
        "gitlab_rails['registry_api_url']",
        "gitlab_rails['registry_path']",
        "gitlab_rails['registry_issuer']",
        "gitlab_rails['shared_path']",
        "letsencrypt['enable']",
    ];
    const VALUES: [&str; 54] = [
        "nil",
        "true",
        "false",
        "''",
        "' '",
        "0",
        "1",
        "80",
        "443",
        "5000",
        "5050",
        "99999",
        "'info'",
        "'fatal'",
        "'crit'",
        "'json'",
        "'combined'",
        "'30s'",
        "'168h'",
        "'soon'",
        "'localhost:5000'",
        "'registry:5000'",
        "':5001'",
        "'0.0.0.0:5000'",
        "'[::]:5000'",
        "'127.0.0.1'",
        "'10.1.2.3/8'",
        "'lb.example.com'",
        "['*', '[::]']",
        "['10.0.0.1']",
        "['0.0.0.0', '[::]']",
        "['*', '127.0.0.1']",
        "['registry.internal']",
        "['10.0.0.1', ENV['X']]",
        "5001",
        "':5001'",
        "['unix:/run/x']",
        "[]",
        "{}",
        "{ 'a' => { 'b' => 1 } }",
        "'/var/opt/x'",
        "'relative/x'",
        "'https://a.example.com'",
        "'http://a.example.com:5000/x/'",
        "'ftp://x'",
        "'a.example.com'",
        "'TLSv1.3'",
        "'TLSv1 TLSv1.1'",
        "\"a\\nb\"",
        "'allow 10.0.0.0/8; deny all; add_header X-B c; add_header Location d;'",
        "'\u{e9}'",
        "'x' * 300",
        "ENV['X']",
        "\"%{x}\"",
    ];
    const DIRECTIVES: [&str; 34] = [
        "listen",
        "server_name",
        "ssl_certificate",
        "ssl_certificate_key",
        "ssl_protocols",
        "set_real_ip_from",
        "real_ip_header",
        "client_max_body_size",
        "keepalive_timeout",
        "client_body_timeout",
        "proxy_read_timeout",
        "proxy_connect_timeout",
        "proxy_send_timeout",
        "proxy_set_header X-A",
        "proxy_set_header Content-Length",
        "add_header X-B",
        "add_header Location",
        "add_header Strict-Transport-Security",
        "proxy_hide_header",
        "proxy_ssl_name",
        "proxy_ssl_trusted_certificate",
        "proxy_ssl_certificate",
        "proxy_ssl_verify",
        "access_log",
        "error_log /x",
        "allow",
        "deny",
        "include",
        "location / { proxy_pass http://127.0.0.1:5000; } listen",
        "location /v2/ { proxy_pass http://r; } listen",
        "location /x/../y { return 403; } allow",
        "location /ui { return 301 https://x.example.com/a; } deny",
        "location /jwt/auth { proxy_pass http://127.0.0.1:8080; } allow",
        "limit_req",
    ];
    const ARGUMENTS: [&str; 24] = [
        "443 ssl",
        "80",
        "*:5050 ssl http2",
        "[::]:5678 proxy_protocol",
        "unix:/x",
        "localhost:8443 ssl",
        "host.example.com:1",
        "a.example.com",
        "_",
        "*.example.com b.example.com",
        "a b",
        "0",
        "10m",
        "1k",
        "900",
        "5d",
        "off",
        "all",
        "10.0.0.0/8",
        "::/0",
        "max-age=99999999999",
        "TLSv1.3",
        "\"a\\nb\"",
        "$x",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn whatever_a_gitlab_rb_says_the_result_is_a_configuration(
            settings in proptest::collection::vec((select(&KEYS[..]), select(&VALUES[..])), 0..8),
            mode in select(&[gitlab::Mode::Front, gitlab::Mode::Embedded][..]),
        ) {
            let names = "external_url 'https://gitlab.example.com'\nregistry_external_url 'https://registry.example.com:5678'\n";
            let lines: Vec<String> = settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
            let text = format!("{names}{}", lines.concat());
            let wrong = complaints(&text, gitlab::Format::GitlabRb, mode);
            prop_assert!(wrong.is_empty(), "{text}\n{}", wrong.concat());
        }

        #[test]
        fn whatever_a_server_block_says_the_result_is_a_configuration(
            settings in proptest::collection::vec((select(&DIRECTIVES[..]), select(&ARGUMENTS[..])), 0..8),
            mode in select(&[gitlab::Mode::Front, gitlab::Mode::Embedded][..]),
        ) {
            let lines: Vec<String> = settings.iter().map(|(name, argument)| format!("{name} {argument};\n")).collect();
            let text = format!(
                "upstream r {{ server 10.0.0.1:5000 weight=1000; server r.example.com; }}\nserver {{\nlisten 5678 ssl;\nserver_name registry.example.com;\n\
                 {}location / {{ proxy_pass http://127.0.0.1:5000; }}\n}}\n",
                lines.concat()
            );
            let wrong = complaints(&text, gitlab::Format::Nginx, mode);
            prop_assert!(wrong.is_empty(), "{text}\n{}", wrong.concat());
        }
    }
}
