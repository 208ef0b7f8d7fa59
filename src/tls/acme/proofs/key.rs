//! What is in a file of a TSIG key?
//!
//! What BIND's `tsig-keygen` writes, and its configuration includes:
//!
//! ```text
//! key "pierhead" {
//!     algorithm hmac-sha256;
//!     secret "oIc94bHpSJT/Upt3j4UThNwbNZuhbRet7h9yBrXhB84=";
//! };
//! ```
//!
//! Of several keys the first counts. Comments are as in BIND's configuration.

use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{Name, TSigner};

/// The longest file.
const LIMIT: u64 = 64 * 1024;
/// By how many seconds clocks may differ, as RFC 8945 10 recommends.
const FUDGE: u16 = 300;

/// The key of a file.
pub(super) fn read(path: &Path) -> Result<TSigner, String> {
    let mut text = String::new();
    let opened = std::fs::File::open(path).and_then(|file| file.take(LIMIT).read_to_string(&mut text));
    opened.map_err(|error| format!("cannot be read: {error}"))?;
    parse(&text)
}

fn parse(text: &str) -> Result<TSigner, String> {
    let words = words(text);
    let after = |word: &str| {
        let at = words.iter().position(|found| found.eq_ignore_ascii_case(word))?;
        words.get(at + 1).map(String::as_str)
    };
    let (Some(name), Some(algorithm), Some(secret)) = (after("key"), after("algorithm"), after("secret")) else {
        return Err(
            "it holds no key as tsig-keygen writes it: key \"NAME\" { algorithm ...; secret \"...\"; };".to_owned()
        );
    };
    let algorithm = match algorithm.trim_end_matches('.').to_ascii_lowercase().as_str() {
        "hmac-sha256" => TsigAlgorithm::HmacSha256,
        "hmac-sha384" => TsigAlgorithm::HmacSha384,
        "hmac-sha512" => TsigAlgorithm::HmacSha512,
        other => return Err(format!("the algorithm {other} is none of hmac-sha256, hmac-sha384, hmac-sha512")),
    };
    let secret = BASE64_STANDARD.decode(secret).map_err(|_| "its secret is not base64".to_owned())?;
    let mut name = Name::from_ascii(name).map_err(|error| format!("its name is none: {error}"))?;
    name.set_fqdn(true);
    TSigner::new(secret, algorithm, name, FUDGE).map_err(|error| error.to_string())
}

/// The words of BIND's configuration, without comments, quotes and punctuation.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut rest) = (Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let (word, left) = match first {
            '"' => rest[1..].split_once('"').map_or((&rest[1..], ""), |(word, left)| (word, left)),
            '#' => ("", rest.split_once('\n').map_or("", |(_, left)| left)),
            '/' if rest.starts_with("//") => ("", rest.split_once('\n').map_or("", |(_, left)| left)),
            '/' if rest.starts_with("/*") => ("", rest.split_once("*/").map_or("", |(_, left)| left)),
            letter if letter.is_whitespace() || matches!(letter, '{' | '}' | ';') => ("", &rest[letter.len_utf8()..]),
            _ => {
                let ends = |letter: char| letter.is_whitespace() || matches!(letter, '{' | '}' | ';' | '"');
                rest.split_at(rest.find(ends).unwrap_or(rest.len()))
            }
        };
        if !word.is_empty() {
            words.push(word.to_owned());
        }
        rest = left;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_bind_reads_them() {
        let plain = "key \"pierhead\" {\n\talgorithm hmac-sha256;\n\tsecret \"c2VjcmV0\";\n};\n";
        let dense =
            "# ours\n/* secret \"no\"; */ key pierhead.{algorithm HMAC-SHA256.;secret c2VjcmV0;};// end\nkey \"b\" {};";
        for text in [plain, dense] {
            let key = parse(text).unwrap();
            assert_eq!((key.signer_name().to_string(), key.key()), ("pierhead.".to_owned(), &b"secret"[..]), "{text}");
            assert_eq!(key.algorithm(), &TsigAlgorithm::HmacSha256);
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_what_it_should_be() {
        let of = |text: &str| parse(text).err().unwrap();
        assert!(of("").contains("tsig-keygen") && of("key \"").contains("tsig-keygen"));
        assert!(of("key a { algorithm hmac-md5; secret \"c2VjcmV0\"; };").contains("hmac-md5 is none of"));
        assert!(of("key a { algorithm hmac-sha512; secret \"not base64!\"; };").contains("not base64"));
        assert!(read(Path::new("/nowhere")).err().unwrap().contains("cannot be read"));
    }
}
