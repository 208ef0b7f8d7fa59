//! What do we do with each key of Distribution's `config.yml`?
//!
//! One table for its three dialects: Distribution 2.8 (`2`), Distribution 3 (`3`) and GitLab's registry 4 (`G`). The
//! reader acts by it, `conf/distribution-keys.md` is compared with it, and a test tries every row.
//!
//! **The rule:** what is only a tune is named in a warning; what would take protection away, lose a delivery or serve other
//! data if it were ignored is refused.

/// One key. A path that others start with stands for everything below it that has no row of its own.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Key {
    /// Levels joined by `.`; `[]` after a list.
    pub(in crate::config) path: &'static str,
    /// Who knows it: `2`, `3`, `G`.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the page of keys shows it"))]
    pub(in crate::config) dialects: &'static str,
    pub(in crate::config) treatment: Treatment,
    /// A value as one writes it; of a key that is refused, one that is refused.
    pub(in crate::config) sample: &'static str,
    /// What it does here, or why it does not.
    pub(in crate::config) says: &'static str,
}

/// What happens to a key that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Treatment {
    /// It does what it says.
    Honoured,
    /// Nothing here depends on it: not a word about it.
    Accepted,
    /// It has no effect, and a warning says so, unless it is empty, zero or off.
    Warned,
    /// Refused, unless it is empty, zero or off.
    Refused,
    /// Refused when it is on: another word than `true` is accepted.
    RefusedWhenOn,
    /// Refused, however empty.
    Forbidden,
}

use Treatment::{Accepted, Forbidden, Honoured, Refused, RefusedWhenOn, Warned};

const fn key(
    path: &'static str,
    dialects: &'static str,
    treatment: Treatment,
    sample: &'static str,
    says: &'static str,
) -> Key {
    Key { path, dialects, treatment, sample, says }
}

/// Of a storage driver that we do not have.
const NO_DRIVER: &str = "images are kept in the file system only: storage.filesystem";
/// Of the metadata database of GitLab's registry.
const NO_DATABASE: &str = "part of GitLab's metadata database, which is not used";

/// Every key.
#[rustfmt::skip]
pub(in crate::config) const KEYS: &[Key] = &[
    key("version", "2 3 G", Honoured, "0.1", "the version of the file: 0.1"),

    key("log.level", "2 3 G", Honoured, "debug", "error, warn, info, debug or trace"),
    key("log.formatter", "2 3 G", Honoured, "json", "text or json; logstash is json"),
    key("log.accesslog.disabled", "2 3 G", Honoured, "true", "whether there is no line on stdout for each request"),
    key("log.accesslog.formatter", "G", Accepted, "json", "access lines are written as log.formatter says"),
    key("log.fields", "2 3 G", Warned, "{ service: registry }", "nothing is added to lines of the log"),
    key("log.hooks", "2 3", Refused, "[{ type: mail }]", "no mail would be sent; remove it, and watch the log"),
    key("log.reportcaller", "3", Warned, "true", "lines name the module they come from anyway"),
    key("log.output", "G", Warned, "stdout", "the log goes to stderr and access lines go to stdout"),
    key("loglevel", "2 3", Honoured, "debug", "the old name of log.level, which beats it"),

    key("storage.filesystem.rootdirectory", "2 3 G", Honoured, "/srv/registry", "the root of the tree on disk"),
    key("storage.filesystem.maxthreads", "2 3 G", Warned, "100", "as many files are open as requests need"),
    key("storage.delete.enabled", "2 3 G", Honoured, "true", "whether manifests, tags and blobs may be deleted"),
    key("storage.redirect.disable", "2 3 G", Accepted, "true", "content in the file system is never redirected"),
    key("storage.redirect.expirydelay", "G", Accepted, "20m", "content in the file system is never redirected"),
    key("storage.cache", "2 3 G", Warned, "{ blobdescriptor: inmemory }", "the kernel's cache of the file system is what is used"),
    key("storage.tag.concurrencylimit", "3", Warned, "8", "tags are found without reading all of them"),
    key("storage.maintenance.readonly.enabled", "2 3 G", Honoured, "true", "whether nothing may change; readonly: true is the same"),
    key("storage.maintenance.uploadpurging.enabled", "2 3 G", Honoured, "true", "whether abandoned uploads are removed"),
    key("storage.maintenance.uploadpurging.age", "2 3 G", Honoured, "72h", "how old they must be"),
    key("storage.maintenance.uploadpurging.interval", "2 3 G", Honoured, "12h", "how often they are looked for"),
    key("storage.maintenance.uploadpurging.dryrun", "2 3 G", Honoured, "true", "whether they are only named in the log"),
    key("storage.s3", "2 3 G", Forbidden, "{ bucket: registry }", NO_DRIVER),
    key("storage.s3aws", "3", Forbidden, "{ bucket: registry }", NO_DRIVER),
    key("storage.s3_v2", "G", Forbidden, "{ bucket: registry }", NO_DRIVER),
    key("storage.gcs", "2 3 G", Forbidden, "{ bucket: registry }", NO_DRIVER),
    key("storage.azure", "2 3 G", Forbidden, "{ container: registry }", NO_DRIVER),
    key("storage.azure_v2", "G", Forbidden, "{ container: registry }", NO_DRIVER),
    key("storage.swift", "2 G", Forbidden, "{ container: registry }", NO_DRIVER),
    key("storage.oss", "2 G", Forbidden, "{ bucket: registry }", NO_DRIVER),
    key("storage.inmemory", "2 3 G", Forbidden, "{}", NO_DRIVER),

    key("auth.none", "G", Honoured, "{}", "everybody may do everything"),
    key("auth.htpasswd.realm", "2 3", Honoured, "basic-realm", "what clients are told they log in to"),
    key("auth.htpasswd.path", "2 3", Honoured, "/etc/registry/htpasswd", "lines of name:bcrypt; the file is not made when it is missing"),
    key("auth.token.realm", "2 3 G", Honoured, "https://gitlab.example.com/jwt/auth", "where clients get tokens"),
    key("auth.token.service", "2 3 G", Honoured, "container_registry", "the audience that tokens must have"),
    key("auth.token.issuer", "2 3 G", Honoured, "omnibus-gitlab-issuer", "the issuer that tokens must have"),
    key("auth.token.rootcertbundle", "2 3 G", Honoured, "/etc/registry/token.crt", "certificates (PEM) whose keys sign tokens"),
    key("auth.token.jwks", "3", Honoured, "/etc/registry/jwks.json", "keys that sign tokens, as a JSON Web Key Set"),
    key("auth.token.signingalgorithms", "3", Honoured, "[RS256, ES256]", "the algorithms that count; default: all that are safe"),
    key("auth.token.autoredirect", "2 3 G", Honoured, "false", "whether clients get tokens at the host that they came to"),
    key("auth.token.autoredirectpath", "3", Honoured, "/auth/token", "the path there"),
    key("auth.silly", "2 3 G", Forbidden, "{ realm: a, service: b }", "it lets in whoever sends any header; it is for Distribution's own tests"),

    key("middleware.registry", "2 3 G", Refused, "[{ name: a }]", "there is no such middleware here"),
    key("middleware.repository", "2 3 G", Refused, "[{ name: a }]", "there is no such middleware here"),
    key("middleware.storage", "2 3 G", Refused, "[{ name: cloudfront }]", "content is not served by way of anybody else; remove it"),

    key("reporting.bugsnag.apikey", "2", Refused, "abc", "no error would be reported there; remove it, and watch the log"),
    key("reporting.newrelic.licensekey", "2", Refused, "abc", "no error would be reported there; remove it, and watch the log"),
    key("reporting.sentry.enabled", "G", RefusedWhenOn, "true", "no error would be reported there; remove it, and watch the log"),
    key("reporting", "2 G", Accepted, "{ newrelic: { verbose: true } }", "nothing is reported to other services"),
    key("profiling", "G", Warned, "{ stackdriver: { enabled: true } }", "no profiles are made"),

    key("http.addr", "2 3 G", Honoured, "127.0.0.1:5000", "where to listen"),
    key("http.net", "2 3 G", Honoured, "tcp", "tcp, or unix: then addr is the path of a socket"),
    key("http.prefix", "2 3 G", Honoured, "/registry/", "the path that the API lies below on this port"),
    key("http.host", "2 3 G", Honoured, "https://registry.example.com", "the origin of every URL sent from this port"),
    key("http.secret", "2 3 G", Honoured, "example-secret-of-nobody", "what nodes share that serve one tree"),
    key("http.relativeurls", "2 3 G", Honoured, "true", "whether a Location is a path and not a URL; `registry serve` without http.host sends paths anyway"),
    key("http.draintimeout", "2 3 G", Honoured, "60s", "for running requests after SIGTERM"),
    key("http.tls.letsencrypt", "2 3 G", Refused, "{ hosts: [a.example.com] }", "no certificate would be fetched for this port; write certificate and key, or `tls.acme` in pierhead.yml, whose listeners then show one"),
    key("http.tls.certificate", "2 3 G", Honoured, "/etc/registry/a.crt", "certificate and chain (PEM); with key, TLS is spoken"),
    key("http.tls.key", "2 3 G", Honoured, "/etc/registry/a.key", "its key (PEM)"),
    key("http.tls.clientcas", "2 3 G", Honoured, "[/etc/registry/ca.crt]", "authorities (PEM) whose certificates clients must show"),
    key("http.tls.clientauth", "3", Honoured, "verify-client-cert-if-given", "require-and-verify-client-cert or verify-client-cert-if-given"),
    key("http.tls.minimumtls", "2 3 G", Honoured, "tls1.3", "tls1.2 or tls1.3; what is older is never spoken"),
    key("http.tls.ciphersuites", "2 3 G", Warned, "[TLS_AES_128_GCM_SHA256]", "all suites that are offered are safe"),
    key("http.headers", "2 3 G", Honoured, "{ X-Frame-Options: [DENY] }", "what every answer carries besides"),
    key("http.debug.addr", "2 3 G", Honoured, "127.0.0.1:5001", "where /debug/health is"),
    key("http.debug.prometheus.enabled", "2 3 G", Honoured, "true", "whether what is counted is told there; at metrics.address it always is"),
    key("http.debug.prometheus.path", "2 3 G", Honoured, "/counts", "under which path; by default /metrics"),
    key("http.debug.pprof", "G", Warned, "{ enabled: true }", "no profiles are made"),
    key("http.debug.tls.enabled", "G", RefusedWhenOn, "true", "the debug address speaks no TLS"),
    key("http.debug.tls", "G", Accepted, "{ certificate: a.crt }", "it is nothing unless enabled"),
    key("http.http2.disabled", "2 3 G", Honoured, "true", "whether HTTP/2 is not offered where TLS is spoken"),
    key("http.h2c.enabled", "3", Warned, "true", "HTTP/2 needs TLS; without TLS it is HTTP/1.1"),

    key("notifications.endpoints", "2 3 G", Refused, "[{ name: a, url: 'https://a.example' }]", "nothing would be delivered; remove it, or write disabled: true in it"),
    key("notifications", "2 3 G", Accepted, "{ events: { includereferences: true } }", "there are no endpoints to notify"),

    key("redis", "2 3 G", Warned, "{ addr: 'redis.example:6379' }", "nothing is kept in Redis"),

    key("health.storagedriver.enabled", "2 3 G", Honoured, "true", "whether the storage must answer"),
    key("health.storagedriver.interval", "2 3 G", Honoured, "10s", "how often it is asked"),
    key("health.storagedriver.threshold", "2 3 G", Honoured, "3", "how many failures in a row count"),
    key("health.file", "2 3 G", Honoured, "[{ file: /srv/down, interval: 10s }]", "files that must not be there"),
    key("health.http", "2 3 G", Honoured, "[{ uri: 'http://a.example/health', statuscode: 204 }]", "servers that must answer a HEAD"),
    key("health.tcp", "2 3 G", Honoured, "[{ addr: 'a.example:80', threshold: 3 }]", "ports that must be open"),
    key("health.database", "G", Accepted, "{ enabled: true }", NO_DATABASE),

    key("proxy.remoteurl", "2 3", Refused, "https://registry-1.docker.io", "there is no pull-through cache here"),
    key("proxy", "2 3", Accepted, "{ ttl: 168h }", "it is nothing without remoteurl"),

    key("compatibility.schema1.enabled", "2 G", Warned, "true", "images of schema 1 are answered with the reason that they are not served"),
    key("compatibility.schema1", "2 G", Accepted, "{ signingkeyfile: /etc/registry/key.json }", "images of schema 1 are not served"),

    key("validation.enabled", "2", Accepted, "true", "an old name that says nothing: validation is on unless disabled"),
    key("validation.disabled", "2 3 G", Honoured, "true", "whether what a manifest names need not be there"),
    key("validation.manifests.urls.allow", "2 3 G", Honoured, "['^https://cdn\\.example\\.com/']", "regular expressions for URLs of layers"),
    key("validation.manifests.urls.deny", "2 3 G", Honoured, "['^https://internal\\.']", "regular expressions for URLs that no layer may have"),
    key("validation.manifests.indexes.platforms", "3", Honoured, "list", "which children of an index must be there: all, none or list"),
    key("validation.manifests.indexes.platformlist", "3", Honoured, "[{ architecture: amd64, os: linux }]", "that list"),
    key("validation.manifests.referencelimit", "G", Refused, "200", "manifests with more references would be taken; limits.manifest bounds their size"),
    key("validation.manifests.payloadsizelimit", "G", Honoured, "262144", "the largest manifest, in bytes"),

    key("policy.repository.classes", "2 3 G", Refused, "[image]", "repositories of other classes would be served"),
    key("catalog.maxentries", "2 3 G", Honoured, "500", "the most repositories on one page of the catalog"),
    key("tags.maxtags", "3", Honoured, "500", "the most tags on one page"),

    key("database.enabled", "G", RefusedWhenOn, "true", "there is no metadata database of GitLab's here; prefer and false are accepted"),
    key("database", "G", Accepted, "{ host: localhost }", NO_DATABASE),
    key("gc", "G", Warned, "{ noidlebackoff: true }", "there is no garbage collection here"),
    key("rate_limiter.enabled", "G", RefusedWhenOn, "true", "nobody would be held back by these limits"),
    key("rate_limiter", "G", Accepted, "{ limiters: [] }", "it is nothing unless enabled"),
];

/// What the table says about a path (with `[]` for indexes).
#[derive(Debug, Clone, Copy)]
pub(in crate::config) enum Found {
    /// This key and everything below it.
    Key(&'static Key),
    /// There are keys below it.
    Section,
    Nothing,
}

/// Looks a path up.
pub(in crate::config) fn find(path: &str) -> Found {
    let below = |key: &Key, above: &str| key.path.strip_prefix(above).is_some_and(|rest| rest.starts_with(['.', '[']));
    if path.is_empty() || KEYS.iter().any(|key| below(key, path)) {
        return Found::Section;
    }
    // The nearest of the rows that it is below of: there may be a row for the section as well.
    let covers =
        |key: &&Key| path.strip_prefix(key.path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    KEYS.iter().filter(covers).max_by_key(|key| key.path.len()).map_or(Found::Nothing, Found::Key)
}

/// The keys that a section takes and that do something.
pub(in crate::config) fn taken(section: &str) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for key in KEYS.iter().filter(|key| key.treatment == Honoured) {
        let rest = match section {
            "" => Some(key.path),
            _ => key.path.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')),
        };
        let Some(name) = rest.and_then(|rest| rest.split(['.', '[']).next()) else { continue };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
