//! What does a word mean in Distribution's file?
//!
//! Its parser reads YAML 1.1, so `yes` and `off` are flags, and durations are Go's, or whole nanoseconds.

use std::time::Duration;

use regex::Regex;
use tracing::Level;

use crate::config::problem::quoted;
use crate::config::scalar;
use crate::config::written::LEVELS;
use crate::registry::Pattern;
use crate::telemetry::Format;

const TRUE: [&str; 11] = ["true", "True", "TRUE", "y", "Y", "yes", "Yes", "YES", "on", "On", "ON"];
const FALSE: [&str; 11] = ["false", "False", "FALSE", "n", "N", "no", "No", "NO", "off", "Off", "OFF"];

/// Units of Go's durations, in nanoseconds.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Whether a word switches something on.
pub(super) fn is_true(text: &str) -> bool {
    TRUE.contains(&text)
}

/// Whether a word switches something off, or is as good as nothing.
pub(super) fn is_off(text: &str) -> bool {
    text.is_empty() || text == "0" || FALSE.contains(&text)
}

/// `true`, `yes`, `on` and their opposites.
pub(super) fn flag(text: &str) -> Result<bool, String> {
    match text {
        _ if TRUE.contains(&text) => Ok(true),
        _ if FALSE.contains(&text) => Ok(false),
        _ => scalar::flag(text),
    }
}

/// `10s`, `1h30m`, `1.5h`, or nanoseconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("must be a duration such as 500ms, 30s or 1h30m, or nanoseconds, not {}", quoted(text));
    if let Ok(nanoseconds) = text.parse::<u64>() {
        return Ok(Duration::from_nanos(nanoseconds));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(refused)?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?;
        let part = scaled(number, *scale).ok_or_else(refused)?;
        sum = sum.checked_add(part).ok_or_else(refused)?;
        rest = after;
    }
    if text.is_empty() { Err(refused()) } else { Ok(Duration::from_nanos(sum)) }
}

/// As `duration`, of at least `least`, and never without a unit: Distribution takes none here either (Go's
/// `time.ParseDuration`), and `72` meant as hours would be nanoseconds.
pub(super) fn with_unit(text: &str, least: Duration) -> Result<Duration, String> {
    let number = text.strip_prefix(['+', '-']).unwrap_or(text);
    if number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(format!("must be a duration with its unit, such as 72h or 30m, not {}", quoted(text)));
    }
    match duration(text)? {
        value if value < least => Err(format!("must be at least {}, not {}", scalar::AsDuration(least), quoted(text))),
        value => Ok(value),
    }
}

/// A decimal number of units of `scale`; digits beyond the nanosecond are left out.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    let mut sum = whole.checked_mul(scale)?;
    let mut unit = scale;
    for digit in fraction.chars() {
        unit /= 10;
        sum = sum.checked_add(u64::from(digit.to_digit(10)?) * unit)?;
    }
    Some(sum)
}

/// A count that is at least one.
pub(super) fn count(text: &str) -> Result<usize, String> {
    let refused = || format!("must be a whole number from 1, not {}", quoted(text));
    text.parse().ok().filter(|count| *count > 0).ok_or_else(refused)
}

/// A number of bytes; zero is no limit of its own.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("must be a number of bytes, not {}", quoted(text)))
}

/// The words of `log.level`.
pub(super) fn level(text: &str) -> Result<Level, String> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "warning" => Ok(Level::WARN),
        "fatal" | "panic" => Ok(Level::ERROR),
        _ => scalar::choice(&lower, &LEVELS),
    }
}

/// The words of `log.formatter`.
pub(super) fn formatter(text: &str) -> Result<Format, String> {
    scalar::choice(text, &[("text", Format::Text), ("json", Format::Json), ("logstash", Format::Json)])
}

/// A regular expression.
pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    let refused = |error: regex::Error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("must be a regular expression, and {} is not: {reason}", quoted(text))
    };
    Regex::new(text).map(Pattern).map_err(refused)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_those_of_go_or_nanoseconds() {
        let milliseconds = |text| duration(text).map(|value| value.as_millis());
        assert_eq!(milliseconds("10s"), Ok(10_000));
        assert_eq!(milliseconds("1h30m"), Ok(5_400_000));
        assert_eq!(milliseconds("1.5h"), Ok(5_400_000));
        assert_eq!(milliseconds(".5s"), Ok(500));
        assert_eq!(milliseconds("2000us"), Ok(2));
        assert_eq!(milliseconds("0"), Ok(0));
        assert_eq!(milliseconds("5000000"), Ok(5));
        for bad in ["", "s", "10", "-5s", "5 s", "1d", "1h30", ".s", "1..5s", "99999999999h"] {
            assert_eq!(duration(bad).is_err(), bad != "10", "{bad}");
        }
    }

    #[test]
    fn a_number_without_a_unit_is_no_time_to_wait_for() {
        let minute = Duration::from_secs(60);
        assert_eq!(with_unit("72h", minute), Ok(Duration::from_secs(72 * 3600)));
        assert_eq!(with_unit("1m", minute), Ok(minute));
        assert_eq!(with_unit("+72h", minute), Ok(Duration::from_secs(72 * 3600)), "Go takes the sign");
        for bad in ["59s", "0s", "60000ns", "-72h"] {
            assert!(with_unit(bad, minute).is_err(), "{bad}");
        }
        for bad in ["", "0", "+0", "72", "+72", "-72", "1.5", "604800", "259200000000000", "+259200000000000"] {
            assert!(with_unit(bad, minute).unwrap_err().contains("with its unit"), "{bad}");
        }
    }

    #[test]
    fn flags_are_those_of_yaml_1_1() {
        for (text, value) in [("yes", true), ("On", true), ("TRUE", true), ("n", false), ("Off", false)] {
            assert_eq!(flag(text), Ok(value), "{text}");
        }
        for bad in ["yEs", "1", "", "enabled"] {
            assert!(flag(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_says_why_in_one_line() {
        let message = pattern("(a").unwrap_err();
        assert!(message.contains("unclosed group") && !message.contains('\n'), "{message}");
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in "[0-9.+nuµsmh-]{0,24}|.{0,12}") {
            let _ = (duration(&text), flag(&text), count(&text), bytes(&text), level(&text), formatter(&text), pattern(&text));
        }
    }
}
