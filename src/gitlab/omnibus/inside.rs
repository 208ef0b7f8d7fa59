//! What do the settings of GitLab's registry mean for the registry that is inside?
//!
//! Each is a key of the `config.yml` that Omnibus makes; those that Pierhead takes are written under `registry`.

use super::super::draft::{Draft, bindable, go_seconds};
use super::super::ledger::Fate;
use super::super::nginx::Directive;
use super::super::value::Value;

/// A setting of the registry itself, for the registry that is inside.
pub(super) fn setting(draft: &mut Draft<'_>, path: &[&str], value: &Value) -> Fate {
    let mut put = |path: &[&str], value: &str| {
        draft.page.put(path, value);
        Fate::Translated(path.join("."))
    };
    let flag = if value.is_on() { "true" } else { "false" };
    let text = value.text().unwrap_or_default();
    if !is_taken(path, text) {
        return Fate::Yours("Pierhead's registry does not take this value".to_owned());
    }
    match path {
        ["http_draintimeout"] if text == "0" => put(&["registry", "http", "draintimeout"], "0s"),
        ["log_level"] => put(&["registry", "log", "level"], text),
        ["log_formatter"] => put(&["registry", "log", "formatter"], text),
        ["rootcertbundle"] => Fate::Translated("registry.auth.token.rootcertbundle".to_owned()),
        ["issuer"] => Fate::Translated("registry.auth.token.issuer".to_owned()),
        ["http_secret"] => put(&["registry", "http", "secret"], text),
        ["health_storagedriver_enabled"] => put(&["registry", "health", "storagedriver", "enabled"], flag),
        ["storage_delete_enabled"] | ["storage", "delete", "enabled"] => {
            Fate::Translated("registry.storage.delete.enabled".to_owned())
        }
        ["storage", "filesystem", "rootdirectory"] => {
            Fate::Translated("registry.storage.filesystem.rootdirectory".to_owned())
        }
        ["storage", "maintenance", "readonly"] | ["storage", "maintenance", "readonly", "enabled"] => {
            put(&["registry", "storage", "maintenance", "readonly", "enabled"], flag)
        }
        ["storage", "maintenance", "uploadpurging", key @ ("enabled" | "dryrun")] => {
            put(&["registry", "storage", "maintenance", "uploadpurging", key], flag)
        }
        ["storage", "maintenance", "uploadpurging", key @ ("age" | "interval")] => {
            put(&["registry", "storage", "maintenance", "uploadpurging", key], text)
        }
        ["debug_addr"] => {
            draft.page.put(&["registry", "http", "debug", "prometheus", "enabled"], "true");
            draft.page.put(&["registry", "http", "debug", "addr"], text);
            Fate::Translated("registry.http.debug".to_owned())
        }
        ["validation_enabled"] => {
            put(&["registry", "validation", "disabled"], if value.is_on() { "false" } else { "true" })
        }
        ["autoredirect"] => put(&["registry", "auth", "token", "autoredirect"], flag),
        ["http_draintimeout"] => put(&["registry", "http", "draintimeout"], text),
        _ => left_out(path, value, text),
    }
}

/// Whether Pierhead's registry takes a value that it has a key for.
fn is_taken(path: &[&str], text: &str) -> bool {
    match path {
        ["log_level"] => ["error", "warn", "info", "debug", "trace"].contains(&text),
        ["log_formatter"] => ["text", "json", "logstash"].contains(&text),
        ["storage", "maintenance", "uploadpurging", "age" | "interval"] => {
            go_seconds(text).is_some_and(|time| time >= 60)
        }
        ["http_draintimeout"] => text == "0" || go_seconds(text).is_some(),
        ["debug_addr"] => bindable(text),
        ["http_secret"] => !text.is_empty(),
        _ => true,
    }
}

/// Why nothing is made of the others.
fn left_out(path: &[&str], value: &Value, text: &str) -> Fate {
    let off = matches!(value, Value::Flag(false))
        || value.text() == Some("false")
        || matches!(value, Value::List(items) if items.is_empty());
    let later = |why: &str| Fate::NotServedYet(why.to_owned());
    match path {
        ["storage", "cache", ..]
        | ["cache", ..]
        | ["storage", "redirect", ..]
        | ["redis", ..]
        | ["storage", "filesystem", "maxthreads"] => {
            Fate::NotNeeded("files are served from the file system, whose cache is the kernel's".to_owned())
        }
        ["storage", ..] => later("images are served from the file system only"),
        ["compatibility_schema1_enabled"] if off => Fate::NotNeeded("it is off".to_owned()),
        ["compatibility_schema1_enabled"] => Fate::NotSupported("images of schema 1 are not served".to_owned()),
        ["database", "enabled"] if off || text == "prefer" => {
            Fate::NotNeeded("Pierhead reads the tree; see below whether the database is in use".to_owned())
        }
        ["database", "enabled"] => later("GitLab's metadata database is not read"),
        ["database", ..] => Fate::NotNeeded("GitLab's metadata database is not used".to_owned()),
        ["gc", ..] => Fate::NotNeeded("there is no garbage collection here".to_owned()),
        ["middleware", ..] | ["reporting", ..] | ["notifications", ..] if off => {
            Fate::NotNeeded("there are none".to_owned())
        }
        ["middleware", ..] => later("content is served by Pierhead itself"),
        ["reporting", ..] => Fate::NotSupported("what goes wrong is in the log, and nowhere else".to_owned()),
        ["notifications", ..] => later("no endpoint is told of pushes"),
        [
            "default_notifications_timeout"
            | "default_notifications_threshold"
            | "default_notifications_maxretries"
            | "default_notifications_backoff"
            | "default_notifications_headers",
            ..,
        ] => later("no endpoint is told of pushes"),
        _ => Fate::Yours("a key that Omnibus' documentation does not have".to_owned()),
    }
}

/// `registry['env'][name]`.
pub(super) fn environment(draft: &mut Draft<'_>, name: &str, value: &Value) -> Fate {
    let front = draft.is_front();
    match name {
        "" => Fate::NotNeeded("there is none".to_owned()),
        "SSL_CERT_DIR" | "GODEBUG" => Fate::NotNeeded("it is for programs written in Go".to_owned()),
        "REGISTRY_HTTP_RELATIVEURLS" if front => {
            Fate::NotNeeded("Location is put right either way; the registry may keep it".to_owned())
        }
        "REGISTRY_HTTP_RELATIVEURLS" => {
            draft.page.put(&["registry", "http", "relativeurls"], if value.is_on() { "true" } else { "false" });
            Fate::Translated("registry.http.relativeurls".to_owned())
        }
        _ if front => Fate::NotNeeded("the registry behind Pierhead keeps it".to_owned()),
        name if name.starts_with("REGISTRY_") => Fate::Yours(
            "the same variable has the same effect on Pierhead's registry: `systemctl edit pierhead`, Environment="
                .to_owned(),
        ),
        _ => Fate::NotNeeded("it is for the process of GitLab's registry".to_owned()),
    }
}

/// What stands inside a `location` or an `if` of raw text for NGINX: each directive, and whether it kept somebody out.
pub(super) fn nested(outer: &Directive, draft: &mut Draft<'_>) {
    // The condition of an `if` may name a secret.
    let within = match outer.name.as_str() {
        "location" => format!("location {}", outer.text()),
        name => name.to_owned(),
    };
    for directive in outer.block.iter().flatten() {
        let guard = match directive.name.as_str() {
            "allow" | "deny" | "auth_basic" | "auth_request" | "auth_jwt" | "satisfy" | "limit_except"
            | "limit_req" | "limit_conn" | "internal" => true,
            "return" => directive.first().starts_with(['4', '5']),
            _ => false,
        };
        let why = if guard {
            "what it keeps out is for listeners and routes to say"
        } else {
            "what it does is for routes to say"
        };
        let key = format!("custom_gitlab_server_config: {within}: {}", directive.name);
        draft.ledger.put(directive.line, key, Fate::Yours(why.to_owned()), guard);
        nested(directive, draft);
    }
}
