//! What do the words mean that NGINX's directives and Omnibus' keys share?
//!
//! Omnibus hands most of `registry['nginx'][...]` to NGINX under the directive's own name, so one table serves both.

use super::draft::Draft;
use super::ledger::Fate;
use crate::exchange::{ANSWERS, FRAMING};

/// The longest that `tls.hsts` takes, in seconds.
const HSTS_LONGEST: u64 = 3_650 * 86_400;

/// Why nothing is needed of what NGINX does about the revocation of its certificate.
const UNSTAPLED: &str = "nothing is stapled";

/// What becomes of a word, and whether it kept somebody out and does not any more.
pub(super) type Settled = (Fate, bool);

fn unneeded(why: &str) -> Settled {
    (Fate::NotNeeded(why.to_owned()), false)
}

fn unsupported(why: &str) -> Settled {
    (Fate::NotSupported(why.to_owned()), false)
}

/// Settles a word that both have. `value` is what follows it, in words.
pub(super) fn settle(name: &str, value: &str, draft: &mut Draft<'_>) -> Option<Settled> {
    if name.starts_with("ssl_") {
        return of_tls(name, value, draft);
    }
    Some(match name {
        "resolver" | "resolver_timeout" => unneeded(UNSTAPLED),
        "real_ip_recursive" if value == "off" => {
            unsupported("the client is always the rightmost address that is not a trusted proxy's")
        }
        "real_ip_recursive" => unneeded("it is always so"),
        "real_ip_header" => match value.to_ascii_lowercase().as_str() {
            "x-real-ip" => (
                Fate::Yours(
                    "trusted_proxies are believed in X-Forwarded-For before X-Real-IP: see that the proxy writes that header \
                     anew too, and hands on none that a client wrote"
                        .to_owned(),
                ),
                false,
            ),
            "x-forwarded-for" | "proxy_protocol" | "forwarded" => unneeded(
                "trusted_proxies are believed in X-Forwarded-For, X-Real-IP, Forwarded and the PROXY header alike",
            ),
            _ => (Fate::Yours("that header is not read: let the proxy write X-Forwarded-For anew".to_owned()), false),
        },
        "http2" | "http2_enabled" | "http2_max_concurrent_streams" | "keepalive_requests" => {
            unneeded("HTTP/2 is offered beside HTTP/1.1, with limits.streams; docker speaks HTTP/1.1 as before")
        }
        "proxy_buffering"
        | "proxy_request_buffering"
        | "proxy_cache"
        | "proxy_http_version"
        | "proxy_max_temp_file_size"
        | "chunked_transfer_encoding"
        | "proxy_buffers"
        | "proxy_buffer_size"
        | "proxy_busy_buffers_size" => unneeded("everything streams both ways over HTTP/1.1, and nothing is spooled"),
        "proxy_redirect" => unneeded("Location is put right, to the origin that the client used"),
        "server_tokens" | "hide_server_tokens" => unneeded("answers name no version"),
        "access_log" | "error_log" if value == "off" => return None,
        "access_log" | "log_directory" => {
            unneeded("a line for each request goes to standard output, hence to the journal; log.access names a file")
        }
        "error_log" => match value.split_whitespace().nth(1) {
            Some(level) => log_level(level, draft),
            None => unneeded("what goes wrong is said on standard error, hence in the journal"),
        },
        "error_log_level" => log_level(value, draft),
        "error_page" | "proxy_intercept_errors" | "custom_error_pages" => {
            unneeded("what goes wrong is answered in the registry's JSON, which clients can show")
        }
        _ => return None,
    })
}

fn of_tls(name: &str, value: &str, draft: &mut Draft<'_>) -> Option<Settled> {
    Some(match name {
        "ssl_protocols" => protocols(value, draft),
        "ssl_ciphers" => {
            unneeded("the suites are fixed: ECDHE with AES-GCM or ChaCha20, as Mozilla's intermediate has them")
        }
        "ssl_prefer_server_ciphers" => unneeded("every suite that is offered is good, and clients choose"),
        "ssl_session_cache" | "ssl_session_timeout" | "ssl_session_tickets" | "ssl_buffer_size" => {
            unneeded("resuming sessions needs no settings")
        }
        "ssl_dhparam" => unneeded("no suite with DHE is offered"),
        "ssl_ecdh_curve" => unsupported("the groups are fixed: X25519MLKEM768, X25519, P-256, P-384"),
        "ssl_conf_command" => unsupported("it is for OpenSSL, which is not used here"),
        "ssl_password_file" => (
            Fate::Yours(
                "a file with one password, on its first line, can be named beside the key (tls.certificates.password)"
                    .to_owned(),
            ),
            false,
        ),
        "ssl_stapling" | "ssl_stapling_verify" | "ssl_trusted_certificate" => unneeded(UNSTAPLED),
        "ssl_verify_client" if matches!(value, "off" | "") => unneeded("no client certificate is asked for"),
        "ssl_verify_client" => (
            Fate::Yours(
                "no client certificate is asked for before tls.client_auth says by which names, and whose".to_owned(),
            ),
            true,
        ),
        "ssl_client_certificate" | "ssl_verify_depth" => {
            (Fate::Yours("it belongs into tls.client_auth, if clients have certificates (ca, depth)".to_owned()), false)
        }
        _ => return None,
    })
}

fn protocols(value: &str, draft: &mut Draft<'_>) -> Settled {
    let named = |version: &str| value.split_whitespace().any(|word| word == version);
    let policy = if named("TLSv1.3") && !named("TLSv1.2") { "modern" } else { "intermediate" };
    draft.page.put(&["tls", "policy"], policy);
    let older = ["SSLv3", "TLSv1", "TLSv1.1"].iter().any(|version| named(version));
    let beside = if older { " (what is older than TLS 1.2 is never spoken)" } else { "" };
    (Fate::Translated(format!("tls.policy{beside}")), false)
}

fn log_level(level: &str, draft: &mut Draft<'_>) -> Settled {
    let meant = match level {
        "debug" => "debug",
        "info" | "notice" => "info",
        "warn" => "warn",
        "error" | "crit" | "alert" | "emerg" => "error",
        _ => return (Fate::Yours("not a level that NGINX knows".to_owned()), false),
    };
    draft.page.put(&["log", "level"], meant);
    (Fate::Translated("log.level".to_owned()), false)
}

/// `Strict-Transport-Security` for so many seconds.
pub(super) fn hsts(seconds: u64, draft: &mut Draft<'_>) -> Fate {
    let value = if seconds == 0 { "off".to_owned() } else { format!("{}s", seconds.min(HSTS_LONGEST)) };
    draft.page.put(&["tls", "hsts"], value);
    Fate::Translated("tls.hsts".to_owned())
}

/// A header that NGINX sets on its way to the registry; `None` where it takes it away.
pub(super) fn request_header(name: &str, value: Option<&str>, draft: &mut Draft<'_>) -> Fate {
    let lower = name.to_ascii_lowercase();
    let value = value.filter(|value| !value.is_empty());
    let ours = ["host", "x-real-ip", "forwarded"].contains(&lower.as_str()) || lower.starts_with("x-forwarded-");
    if ours && value.is_none() {
        return Fate::NotSupported("Pierhead always sets it, from the origin that the client used".to_owned());
    }
    if ours || FRAMING.contains(&lower.as_str()) {
        return Fate::NotNeeded("Pierhead sets it itself, from the origin that the client used".to_owned());
    }
    if ["authorization", "expect", "proxy-connection"].contains(&lower.as_str()) {
        return Fate::NotSupported("with it every client would be the same to the registry".to_owned());
    }
    if !draft.is_front() {
        return Fate::NotNeeded("there is no registry behind Pierhead that it would be for".to_owned());
    }
    match value {
        _ if !header_name(name) => Fate::Yours("not the name of a header".to_owned()),
        None => {
            draft.page.push(&["upstreams", "gitlab", "request_headers", "remove"], name);
            Fate::Translated("upstreams.gitlab.request_headers.remove".to_owned())
        }
        Some(value) if !literal(value) => {
            Fate::Yours("its value is a variable of NGINX, or cannot be in a header".to_owned())
        }
        Some(value) => {
            draft.page.put(&["upstreams", "gitlab", "request_headers", "set", name], value);
            Fate::Translated(format!("upstreams.gitlab.request_headers.set.{name}"))
        }
    }
}

/// A header that NGINX adds to answers.
pub(super) fn response_header(name: &str, value: &str, draft: &mut Draft<'_>) -> Fate {
    match name.to_ascii_lowercase().as_str() {
        "strict-transport-security" => {
            let seconds = value.split(';').find_map(|part| part.trim().strip_prefix("max-age="));
            return match seconds.and_then(|seconds| seconds.trim_matches('"').parse().ok()) {
                Some(seconds) => hsts(seconds, draft),
                None => Fate::Yours("no max-age was found in it".to_owned()),
            };
        }
        "docker-distribution-api-version" | "x-content-type-options" => {
            return Fate::NotNeeded("every answer has it".to_owned());
        }
        lower if FRAMING.contains(&lower) || ANSWERS.contains(&lower) => {
            return Fate::NotSupported("it is the registry's, or Pierhead's, to say".to_owned());
        }
        _ => {}
    }
    if !header_name(name) || !literal(value) {
        return Fate::Yours("its value is a variable of NGINX, or cannot be in a header".to_owned());
    }
    if draft.is_front() {
        draft.page.put(&["upstreams", "gitlab", "response_headers", "add", name], value);
        return Fate::Translated(format!("upstreams.gitlab.response_headers.add.{name}"));
    }
    draft.page.put(&["registry", "http", "headers", name], vec![value]);
    Fate::Translated(format!("registry.http.headers.{name}"))
}

/// Whether a header that NGINX takes from answers may be taken from them.
pub(super) fn may_hide(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let kept = FRAMING.contains(&lower.as_str()) || ANSWERS.contains(&lower.as_str());
    header_name(name) && !kept && lower != "strict-transport-security"
}

/// Printable, and no variable.
fn literal(value: &str) -> bool {
    !value.is_empty() && !value.contains('$') && value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

fn header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// NGINX's times: `900`, `900s`, `15m`, `1d12h`; milliseconds are rounded up. In seconds.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let mut whole: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            "M" => 30 * 86_400,
            "y" => 365 * 86_400,
            "ms" => {
                whole = whole.checked_add(number.div_ceil(1_000))?;
                rest = &rest[letters..];
                continue;
            }
            _ => return None,
        };
        whole = whole.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[letters..];
    }
    Some(whole)
}

/// NGINX's sizes: `0`, `20g`, `10M`, `512k`. In bytes.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, unit) = match text.chars().last()? {
        'k' | 'K' => (&text[..text.len() - 1], 1 << 10),
        'm' | 'M' => (&text[..text.len() - 1], 1 << 20),
        'g' | 'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_nginxs() {
        let times = [
            ("900", Some(900)),
            ("15m", Some(900)),
            ("1d12h", Some(129_600)),
            ("1500ms", Some(2)),
            ("", None),
            ("x", None),
            ("9x", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in times {
            assert_eq!(seconds(text), expected, "{text}");
        }
        for (text, expected) in [
            ("0", Some(0)),
            ("20g", Some(20 << 30)),
            ("10M", Some(10 << 20)),
            ("1k", Some(1024)),
            ("", None),
            ("\u{e9}", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
