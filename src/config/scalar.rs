//! What does a word mean: a duration, a size, a rate, an address, an origin?
//!
//! Each reader returns the value or a sentence that says what is accepted. Durations, sizes and rates have a writer
//! too; reading what it wrote gives the value again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use super::problem::{listed, nearest, quoted};
use crate::exchange::Origin;
use crate::front::{Address, Network, NetworkError};

/// Durations, largest unit first, in milliseconds.
const DURATIONS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Sizes, largest unit first, in bytes.
const SIZES: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
/// The longest text a key takes.
const LONGEST: usize = 4096;

/// `500ms`, `30s`, `5m`, `1h`, `1d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let accepted = "must be a duration such as 500ms, 30s, 5m, 1h or 1d";
    let (number, unit) = number_and_unit(text).ok_or_else(|| format!("{accepted}, not {}", quoted(text)))?;
    if unit.is_empty() {
        return Err(format!("{accepted}, not {}; did you mean {number}s?", quoted(text)));
    }
    let scale = DURATIONS.iter().find(|(name, _)| *name == unit);
    let milliseconds = scale.and_then(|(_, scale)| number.checked_mul(*scale));
    milliseconds.map(Duration::from_millis).ok_or_else(|| format!("{accepted}, not {}", quoted(text)))
}

/// Writes a duration in the largest unit that needs no fraction. Parts of a millisecond are left out.
pub(super) struct AsDuration(pub(super) Duration);

impl fmt::Display for AsDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        if milliseconds == 0 {
            return f.write_str("0s");
        }
        let whole = |(_, scale): &&(&str, u64)| milliseconds.is_multiple_of(u128::from(*scale));
        let (unit, scale) = DURATIONS.iter().find(whole).copied().unwrap_or(("ms", 1));
        write!(f, "{}{unit}", milliseconds / u128::from(scale))
    }
}

/// `4MiB`, `512KiB`, or plain bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let accepted = "must be a size such as 4MiB, 512KiB, 1GiB or plain bytes";
    let refused = || format!("{accepted}, not {}", quoted(text));
    let (number, unit) = number_and_unit(text).ok_or_else(refused)?;
    if unit.is_empty() {
        return Ok(number);
    }
    match SIZES.iter().find(|(name, _)| *name == unit) {
        Some((_, scale)) => number.checked_mul(*scale).ok_or_else(refused),
        None => {
            let letter = unit.chars().next().map(|letter| letter.to_ascii_uppercase());
            let meant = SIZES.iter().find(|(name, _)| name.chars().next() == letter);
            Err(match meant {
                Some((name, _)) => format!("{}; did you mean {number}{name}?", refused()),
                None => refused(),
            })
        }
    }
}

/// Writes a size in the largest unit that needs no fraction.
pub(super) struct AsSize(pub(super) u64);

impl fmt::Display for AsSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES.iter().find(|(_, scale)| self.0 > 0 && self.0.is_multiple_of(*scale)) {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A whole number.
pub(super) fn number(text: &str) -> Result<u64, String> {
    let number = number_and_unit(text).filter(|(_, rest)| rest.is_empty());
    number.map(|(number, _)| number).ok_or_else(|| format!("must be a whole number, not {}", quoted(text)))
}

/// `10/m`, or another unit that comes to a whole number in a minute: `1/s`, `600/h`.
pub(super) fn per_minute(text: &str) -> Result<NonZeroU32, String> {
    let refused = || format!("must be a rate such as 10/m (s, m, h or d; at least 1/m), not {}", quoted(text));
    let (count, unit) = text.split_once('/').ok_or_else(refused)?;
    let count =
        number_and_unit(count).filter(|(_, rest)| rest.is_empty()).map(|(count, _)| count).ok_or_else(refused)?;
    let rate = match unit {
        "s" => count.checked_mul(60),
        "m" => Some(count),
        "h" => count.is_multiple_of(60).then_some(count / 60),
        "d" => count.is_multiple_of(1440).then_some(count / 1440),
        _ => None,
    };
    rate.and_then(|rate| u32::try_from(rate).ok()).and_then(NonZeroU32::new).ok_or_else(refused)
}

/// Digits and what follows them.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start_matches(' ')))
}

/// `true` or `false`.
pub(super) fn flag(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => {
            let meant = match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "1" | "true" => "; did you mean true?",
                "no" | "off" | "n" | "0" | "false" => "; did you mean false?",
                _ => "",
            };
            Err(format!("must be true or false, not {}{meant}", quoted(text)))
        }
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    let meant = nearest(text, words.iter().copied()).map(|word| format!("; did you mean {word}?"));
    Err(format!("must be {}, not {}{}", listed(&words, "or"), quoted(text), meant.unwrap_or_default()))
}

/// An address to listen on: `[::]:5050`, `127.0.0.1:5050`, `localhost:5050`, or `:5050` for every address (`any`).
pub(super) fn address(text: &str, any: IpAddr) -> Result<SocketAddr, String> {
    let accepted = "must be an address and a port such as \"[::]:5050\", 127.0.0.1:5050 or :5050";
    if text.parse::<u16>().is_ok() {
        return Err(format!("{accepted}, not {}; did you mean \":{text}\"?", quoted(text)));
    }
    let parsed = match text.rsplit_once(':') {
        Some(("", port)) => port.parse().ok().map(|port| SocketAddr::new(any, port)),
        Some(("localhost", port)) => port.parse().ok().map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        _ => text.parse::<SocketAddr>().ok(),
    };
    match parsed {
        Some(address) if address.port() == 0 => {
            Err(format!("{accepted}, not {}: clients could not know port 0", quoted(text)))
        }
        Some(address) => Ok(address),
        None => Err(format!("{accepted}, not {}", quoted(text))),
    }
}

/// Where to listen: an [`address`], `unix:PATH`, `systemd`, or `systemd:NAME`.
pub(super) fn listening(text: &str, any: IpAddr) -> Result<Address, String> {
    if text == "systemd" {
        return Ok(Address::Systemd(None));
    }
    match text.split_once(':') {
        Some(("unix", path)) if !path.is_empty() => Ok(Address::Unix(file_path(path)?.into())),
        // sd_listen_fds(3): a name has no colon, and at most 255 characters.
        Some(("systemd", name)) if !name.is_empty() && !name.contains(':') => Ok(Address::Systemd(Some(word(name)?))),
        Some(("unix" | "systemd", _)) => {
            Err(format!("must be unix:PATH, systemd or systemd:NAME, or an address and a port, not {}", quoted(text)))
        }
        _ => address(text, any).map(Address::Tcp),
    }
}

/// `10.0.0.0/8`, `2001:db8::/32`, or one address.
pub(super) fn network(text: &str) -> Result<Network, String> {
    text.parse().map_err(|error: NetworkError| format!("{error}, not {}", quoted(text)))
}

/// What clients put before the path: `https://HOST[:PORT]`.
pub(super) fn origin(text: &str) -> Result<Origin, String> {
    let accepted = "must be https://HOST[:PORT] (or http://), without path, query or user";
    let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "https" | "http")) else {
        let meant = Some(text.rsplit_once("://").map_or(text, |(_, rest)| rest)).filter(|rest| is_authority(rest));
        let meant = meant.map(|rest| format!("; did you mean https://{rest}?"));
        return Err(format!("{accepted}, not {}{}", quoted(text), meant.unwrap_or_default()));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if rest.trim_end_matches('/') != authority {
        let meant = is_authority(authority).then(|| format!("; did you mean {scheme}://{authority}?"));
        return Err(format!("{accepted}, not {}{}", quoted(text), meant.unwrap_or_default()));
    }
    let refused = || format!("{accepted}, not {}", quoted(text));
    if !is_authority(authority) {
        return Err(refused());
    }
    Origin::new(scheme == "https", authority).map_err(|_| refused())
}

/// `HOST` or `HOST:PORT` with a port that can be connected to.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let decimal = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let port_is_good = |port: &str| decimal(port) && port.parse::<u16>().is_ok_and(|port| port != 0);
    port.is_none_or(port_is_good) && is_host(host)
}

/// A DNS name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let letters = |label: &str| label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    let label = |label: &str| (1..=63).contains(&label.len()) && letters(label) && !label.starts_with('-');
    // A name that ends in a number is an IPv4 address or a mistake (WHATWG URL, "ends in a number").
    let number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label) && (!number || text.parse::<Ipv4Addr>().is_ok())
}

/// A word that goes into a token and a header: printable ASCII without quotes and backslashes.
pub(super) fn word(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if text.len() <= 255 && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "must be at most 255 letters, digits and signs without spaces, quotes or backslashes, not {}",
        quoted(text)
    ))
}

/// A path of our own that no registry request can have: `/jwt/auth`.
pub(super) fn own_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!(
            "must start with /, such as /jwt/auth, not {}; did you mean {}?",
            quoted(text),
            quoted(&format!("/{text}"))
        ));
    }
    let reserved = |prefix: &str| text == prefix || text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    if reserved("/v2") {
        return Err(format!(
            "{} belongs to the registry, which answers everything below /v2/; the default is /jwt/auth",
            quoted(text)
        ));
    }
    if reserved("/-") {
        return Err(format!("{} is kept for the server's own pages below /-/; the default is /jwt/auth", quoted(text)));
    }
    let plain = |part: &str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(letter)
    };
    if text.len() > 255 || !text[1..].split('/').all(plain) {
        return Err(format!("must be a path of letters, digits and -._~ such as /jwt/auth, not {}", quoted(text)));
    }
    Ok(text.to_owned())
}

/// A path in the file system, as written.
pub(super) fn file_path(text: &str) -> Result<String, String> {
    if text == "~" || text.starts_with("~/") {
        return Err(format!("~ is not expanded; write the path out, not {}", quoted(text)));
    }
    Ok(text.to_owned())
}

/// `stdout`, `off`, or the path of a file; a name without a slash is a mistake of spelling.
pub(super) fn destination(text: &str) -> Result<String, String> {
    if text == "stdout" || text == "off" || text.contains('/') {
        return file_path(text);
    }
    Err(format!("must be stdout, off or the path of a file such as /var/log/pierhead/access.log, not {}", quoted(text)))
}

/// The URL that a collector of spans takes them at, or `off`. Without a path it is that of the protocol (OTLP/HTTP).
pub(super) fn collector(text: &str) -> Result<Option<String>, String> {
    if text == "off" {
        return Ok(None);
    }
    let refused =
        || format!("must be off or a URL such as http://127.0.0.1:4318, without user and query, not {}", quoted(text));
    let url: http::Uri = text.parse().map_err(|_| refused())?;
    let web = matches!(url.scheme_str(), Some("http" | "https"));
    let plain = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if !web || !plain || url.query().is_some() || text.contains('#') {
        return Err(refused());
    }
    Ok(Some(if url.path() == "/" { format!("{}/v1/traces", text.trim_end_matches('/')) } else { text.to_owned() }))
}

/// A part of the whole: `0`, `0.1`, `1`.
pub(super) fn part(text: &str) -> Result<f64, String> {
    let part = text.parse().ok().filter(|part: &f64| (0.0..=1.0).contains(part));
    part.ok_or_else(|| format!("must be a number from 0 to 1 such as 0.1, not {}", quoted(text)))
}

/// Any text that a key can take: not empty, on one line, of bounded length.
pub(super) fn check_text(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("must not be empty; remove the key to get the default".to_owned());
    }
    if text.len() > LONGEST {
        return Err(format!("must not be longer than {LONGEST} bytes"));
    }
    if text.contains('\u{fffd}') {
        return Err(format!("must be UTF-8, not {}", quoted(text)));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("must be on one line without control characters, not {}", quoted(text)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let milliseconds = |text| duration(text).map(|value| value.as_millis());
        assert_eq!(milliseconds("500ms"), Ok(500));
        assert_eq!(milliseconds("75s"), Ok(75_000));
        assert_eq!(milliseconds("5 m"), Ok(300_000));
        assert_eq!(milliseconds("1h"), Ok(3_600_000));
        assert_eq!(milliseconds("2d"), Ok(172_800_000));
        for bad in
            ["", "s", "5", "-5s", "5 minutes", "1.5h", "1h30m", "99999999999999999999s", "9999999999999999999d", "٥s"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(duration("75").unwrap_err().ends_with("did you mean 75s?"));
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(size("4MiB"), Ok(4 << 20));
        assert_eq!(size("512 KiB"), Ok(512 << 10));
        assert_eq!(size("4194304"), Ok(4 << 20));
        assert!(size("4MB").unwrap_err().ends_with("did you mean 4MiB?"));
        assert!(size("4m").unwrap_err().ends_with("did you mean 4MiB?"));
        for bad in ["", "MiB", "-1", "4.5MiB", "4XiB", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_whole_numbers_in_a_minute() {
        let rate = |text| per_minute(text).map(NonZeroU32::get);
        assert_eq!(rate("10/m"), Ok(10));
        assert_eq!(rate("1/s"), Ok(60));
        assert_eq!(rate("600/h"), Ok(10));
        assert_eq!(rate("1440/d"), Ok(1));
        for bad in ["", "10", "/m", "0/m", "1/h", "61/h", "10/minute", "-1/m", "4294967296/m"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_numbers_with_a_port() {
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let read = |text| address(text, any).map(|address| address.to_string());
        assert_eq!(read(":5050").as_deref(), Ok("[::]:5050"));
        assert_eq!(read("[::1]:5050").as_deref(), Ok("[::1]:5050"));
        assert_eq!(read("127.0.0.1:5050").as_deref(), Ok("127.0.0.1:5050"));
        assert_eq!(read("localhost:5000").as_deref(), Ok("127.0.0.1:5000"));
        for bad in ["", ":", ":0", "5050", "::1:5050x", "registry.example.com:5050", "127.0.0.1", "127.0.0.1:70000"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn listeners_are_addresses_paths_and_sockets_of_systemd() {
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        for good in ["[::]:5050", "unix:/run/a:b.sock", "unix:a.sock", "systemd", "systemd:registry"] {
            assert_eq!(listening(good, any).map(|address| address.to_string()).as_deref(), Ok(good));
        }
        for bad in ["unix:", "unix:~/a.sock", "systemd:", "systemd:a:b", "systemd:a b", "Systemd", "unix"] {
            assert!(listening(bad, any).is_err(), "{bad}");
        }
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        let read = |text| origin(text).map(|origin| origin.to_string());
        assert_eq!(read("https://Registry.example.com:443/").as_deref(), Ok("https://registry.example.com"));
        assert_eq!(read("http://[::1]:5000").as_deref(), Ok("http://[::1]:5000"));
        for bad in [
            "https://",
            "https://a:0",
            "https://a:99999",
            "https://a:+1",
            "https://a:x",
            "https://u@a",
            "https://*.example.com",
            "https://a..b",
            "https://1.2.3",
            "https://[::1",
            "https://b\u{fc}cher.example",
            "https://a b",
            "ftp://a",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read("registry.example.com").unwrap_err().ends_with("did you mean https://registry.example.com?"));
        assert!(read("https://a.example/v2/").unwrap_err().ends_with("did you mean https://a.example?"));
    }

    #[test]
    fn the_token_path_leaves_the_registry_its_own() {
        for good in ["/jwt/auth", "/service/token", "/token", "/v2token"] {
            assert_eq!(own_path(good).as_deref(), Ok(good));
        }
        for bad in
            ["jwt/auth", "/", "/v2", "/v2/", "/v2/token", "/-/token", "/a//b", "/a/", "/a/../v2/b", "/a?b", "/a%2fb"]
        {
            assert!(own_path(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn durations_written_are_read_again(milliseconds in 0..u64::MAX / 2) {
            let value = Duration::from_millis(milliseconds);
            prop_assert_eq!(duration(&AsDuration(value).to_string()), Ok(value));
        }

        #[test]
        fn sizes_written_are_read_again(number: u64, shift in 0..40u32) {
            let value = number >> shift << shift;
            prop_assert_eq!(size(&AsSize(value).to_string()), Ok(value));
        }

        #[test]
        fn rates_written_are_read_again(count in 1..=u32::MAX) {
            prop_assert_eq!(per_minute(&format!("{count}/m")).map(NonZeroU32::get), Ok(count));
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in any::<String>()) {
            let _ = (duration(&text), size(&text), per_minute(&text), flag(&text), origin(&text), word(&text));
            let _ = (own_path(&text), file_path(&text), check_text(&text), is_host(&text));
            let _ = (listening(&text, Ipv4Addr::UNSPECIFIED.into()), network(&text), choice(&text, &[("a", 1), ("b", 2)]));
        }

        #[test]
        fn no_nearly_good_text_makes_a_reader_panic(text in "[0-9]{0,25} ?[a-zA-Z/:.\\[\\]]{0,6}[0-9]{0,6}") {
            let _ = (duration(&text), size(&text), per_minute(&text), origin(&text));
            let _ = (origin(&format!("https://{text}")), address(&text, Ipv4Addr::UNSPECIFIED.into()));
        }

        #[test]
        fn an_origin_that_is_accepted_means_what_was_written(host in "[a-z][a-z0-9-]{0,8}(\\.[a-z]{1,5}){0,2}", port in 1..=u16::MAX) {
            let read = origin(&format!("https://{host}:{port}")).unwrap();
            prop_assert_eq!((read.host(), read.port(), read.is_secure()), (host.as_str(), port, true));
        }
    }
}
