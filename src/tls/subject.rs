//! Whose certificate is it, in a header?
//!
//! The subject as RFC 2253 writes it, and as NGINX does in `$ssl_client_s_dn`: the last part first. What is not printable
//! ASCII is escaped, so that it fits a header and breaks out of none.

use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::ToDer as _;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer as _, X509Certificate};

/// The longest that is passed on; upstreams refuse requests whose headers are much longer.
const LONGEST: usize = 2048;

/// The short names that OpenSSL has.
const TYPES: [(&str, &str); 16] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.97", "organizationIdentifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// The subject of a certificate. `None`: it cannot be read, or is too long to be told anybody.
pub fn of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut parts: Vec<String> = Vec::new();
    for part in certificate.subject().iter_rdn() {
        // Several attributes of one part are a set: the order is the certificate's.
        let attributes: Vec<String> = part.iter().map(attribute).collect();
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    let text = parts.join(",");
    (text.len() <= LONGEST).then_some(text)
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let known = TYPES.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name);
    match (known, attribute.as_str()) {
        (Some(name), Ok(value)) => format!("{name}={}", escaped(value)),
        // RFC 2253 2.4: what has no name, or is no string that we read, is told as bytes.
        (name, _) => {
            let value = attribute.attr_value().to_der_vec().unwrap_or_default();
            format!("{}=#{}", name.unwrap_or(&oid), hex(&value))
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// RFC 2253 2.4, and every byte that is not printable ASCII as its number.
fn escaped(value: &str) -> String {
    let last = value.len().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => text.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => text.push_str("\\#"),
            b' ' if at == 0 || at == last => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(byte)),
            other => text.push_str(&format!("\\{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    use super::*;

    fn subject(parts: Vec<(DnType, DnValue)>) -> Option<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        parts.into_iter().for_each(|(kind, value)| params.distinguished_name.push(kind, value));
        of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    #[test]
    fn the_last_part_comes_first_and_what_could_be_misread_is_escaped() {
        let parts = |name| {
            vec![
                (DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap())),
                (DnType::OrganizationName, utf8("Example, Inc.")),
                (DnType::CommonName, utf8(name)),
            ]
        };
        for (name, told) in [
            ("ci-runner", "ci-runner"),
            ("evil\r\nX-Admin: 1", "evil\\0D\\0AX-Admin: 1"),
            ("a,CN=root+O=x", "a\\,CN=root\\+O=x"),
            (" #a\\b\"<>; ", "\\ #a\\\\b\\\"\\<\\>\\;\\ "),
            ("#a", "\\#a"),
            ("ü\0", "\\C3\\BC\\00"),
        ] {
            assert_eq!(subject(parts(name)).unwrap(), format!("CN={told},O=Example\\, Inc.,C=DE"));
        }
        assert_eq!(subject(Vec::new()).unwrap(), "");
    }

    #[test]
    fn what_has_no_name_or_is_no_such_string_is_told_as_bytes_and_what_is_too_long_not_at_all() {
        let own = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99999, 1]);
        assert_eq!(subject(vec![(own, utf8("hi"))]).unwrap(), "1.3.6.1.4.1.99999.1=#0C026869");
        assert!(subject(vec![(DnType::CommonName, utf8(&"x".repeat(5000)))]).is_none());
    }

    proptest! {
        #[test]
        fn nothing_that_is_told_breaks_out_of_a_header_or_of_its_part(name in any::<String>()) {
            let text = escaped(&name);
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let mut bytes = text.bytes();
            while let Some(byte) = bytes.next() {
                if byte == b'\\' { bytes.next(); } else { prop_assert!(!b",+\"<>;".contains(&byte)); }
            }
        }
    }
}
