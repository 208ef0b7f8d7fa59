//! Which names are names of the DNS, and which of them can the world reach?

use std::net::IpAddr;

use super::super::problem::quoted;

/// Names that nobody outside can reach (RFC 6761, RFC 6762, RFC 7686, RFC 8375, RFC 9476), and those that many networks use for
/// themselves: no public authority makes a certificate for them, or for names below.
const PRIVATE: [&str; 15] = [
    "localhost",
    "local",
    "internal",
    "test",
    "example",
    "invalid",
    "onion",
    "alt",
    "home.arpa",
    "lan",
    "home",
    "corp",
    "intranet",
    "private",
    "localdomain",
];
/// Those of documentation (RFC 2606): public by their form, and nobody's.
const DOCUMENTATION: [&str; 3] = ["example.com", "example.net", "example.org"];
/// The longest name as text (RFC 1035 2.3.4).
const LONGEST: usize = 253;

/// Whether it is a public name, for which a certificate may be ordered without being asked to.
pub(super) fn is_public(name: &str) -> bool {
    can_be_public(name) && !is_below_any(name, &DOCUMENTATION)
}

/// Whether a public authority could make a certificate for it.
pub(super) fn can_be_public(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    is_dns(name) && name.contains('.') && !is_below_any(name, &PRIVATE)
}

/// Whether it leads to the machine that asks.
pub(super) fn is_loopback(name: &str) -> bool {
    is_below_any(name, &["localhost"])
}

fn is_below_any(name: &str, those: &[&str]) -> bool {
    let name = name.to_ascii_lowercase();
    let below = |above: &&str| name.strip_suffix(above).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    those.iter().any(below)
}

/// RFC 1123 2.1: letters, digits and, inside of a label, hyphens. A last label of digits alone would be an address.
pub(super) fn is_dns(name: &str) -> bool {
    let letters = |label: &str| label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let ends = |label: &str| label.starts_with('-') || label.ends_with('-');
    let label = |label: &str| (1..=63).contains(&label.len()) && letters(label) && !ends(label);
    let number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= LONGEST && name.split('.').all(label) && !number
}

/// A name of a certificate, in lower case: `a.example.com`, or `*.example.com`.
pub(super) fn of_certificate(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    if is_dns(name) {
        return Ok(text.to_ascii_lowercase());
    }
    let accepted = "must be a DNS name such as registry.example.com or *.example.com";
    let why = if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        ": it is an address"
    } else if name.contains('*') {
        ": a wildcard stands for the whole first label"
    } else if !text.is_ascii() {
        ": write it as the DNS has it (xn--...)"
    } else if name.contains("://") || name.contains([':', '/']) {
        ": the name alone"
    } else {
        ""
    };
    Err(format!("{accepted}, not {}{why}", quoted(text)))
}

/// A zone or a domain, in lower case, without the dot at its end.
pub(super) fn plain(text: &str) -> Result<String, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let refused = || format!("must be a DNS name such as example.com, not {}", quoted(text));
    if is_dns(name) { Ok(name.to_ascii_lowercase()) } else { Err(refused()) }
}

/// Whether a name, maybe `*.` and more, is that of `host`: a wildcard stands for one label (RFC 6125 6.4.3).
pub(super) fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(above) => host.split_once('.').is_some_and(|(_, rest)| rest == above),
        None => name == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_world_can_reach_are_told_from_those_that_it_cannot() {
        let of_the_world = "registry.pierhead.dev a.co.uk xn--bcher-kva.com 1.a2.io registry.testing.org a.local.net \
                            registry.example.co exam.ple myexample.com internal.io A.Pierhead.DEV";
        for name in of_the_world.split_whitespace() {
            assert!(is_public(name) && can_be_public(&format!("*.{name}")), "{name}");
        }
        let private = "localhost a.localhost printer.local git.internal a.b.internal a.test registry.example a.invalid \
                       a.onion nas.home.arpa nas.lan a.home a.corp a.intranet a.private a.localdomain harbour 10.0.0.1 \
                       ::1 [::1] 1.2.3 a_b.com -a.com a-.com a..com .a.com a.com. GIT.INTERNAL a.alt";
        for name in private.split_whitespace().chain(["", "a b.com", "é.com"]) {
            assert!(!is_public(name) && !can_be_public(name), "{name}");
        }
        for name in ["example.com", "registry.example.com", "a.b.example.net", "Example.org"] {
            assert!(!is_public(name) && can_be_public(name), "{name}: nobody's, and written all the same");
        }
        assert!(!is_public(&"a.".repeat(127)) && !is_public(&format!("{}.com", "a".repeat(64))));
    }

    #[test]
    fn a_name_of_a_certificate_is_a_dns_name_or_a_wildcard_for_one_label() {
        assert_eq!(of_certificate("Registry.Example.com").as_deref(), Ok("registry.example.com"));
        assert_eq!(of_certificate("*.example.com").as_deref(), Ok("*.example.com"));
        for (wrong, why) in [
            ("10.0.0.1", ": it is an address"),
            ("[::1]", ": it is an address"),
            ("a.*.example.com", ": a wildcard stands for the whole first label"),
            ("*.*.example.com", ": a wildcard stands for the whole first label"),
            ("a*.example.com", ": a wildcard stands for the whole first label"),
            ("bücher.example", ": write it as the DNS has it (xn--...)"),
            ("https://a.example.com", ": the name alone"),
            ("a.example.com:443", ": the name alone"),
            ("a_b.example.com", ""),
            ("example.com.", ""),
            ("*.", ""),
            ("*", ": a wildcard stands for the whole first label"),
        ] {
            let message = of_certificate(wrong).unwrap_err();
            assert!(message.ends_with(&format!("not {wrong:?}{why}")), "{message}");
        }
        assert_eq!(plain("Example.com.").as_deref(), Ok("example.com"));
        assert!(plain("*.example.com").is_err());
        assert!(covers("*.example.com", "a.example.com") && covers("a.test", "a.test"));
        assert!(!covers("*.example.com", "a.b.example.com") && !covers("*.example.com", "example.com"));
    }
}
