//! What does a certificate say?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Error;

/// One certificate, as much of it as we ask.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The DNS names it is valid for.
    pub(super) names: Vec<String>,
    /// The IP addresses it is valid for, as text.
    pub(super) addresses: Vec<String>,
    /// Whose it is, for a person.
    pub(super) subject: String,
    /// Who signed it, for a person.
    pub(super) issuer: String,
    /// Seconds since 1970 from which it is valid.
    pub(super) not_before: i64,
    /// Seconds since 1970 until which it is valid.
    pub(super) not_after: i64,
    subject_der: Vec<u8>,
    issuer_der: Vec<u8>,
    key: Option<Vec<u8>>,
    issuers_key: Option<Vec<u8>>,
}

impl Facts {
    /// Reads a certificate of a file.
    pub(super) fn of(der: &CertificateDer<'_>, path: &Path) -> Result<Self, Error> {
        let damaged = || Error::Damaged { path: path.to_owned() };
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| damaged())?;
        let mut facts = Self {
            names: Vec::new(),
            addresses: Vec::new(),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            subject_der: certificate.subject().as_raw().to_vec(),
            issuer_der: certificate.issuer().as_raw().to_vec(),
            key: None,
            issuers_key: None,
        };
        let alternatives = certificate.subject_alternative_name().map_err(|_| damaged())?;
        for name in alternatives.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => facts.names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => facts.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(key) => facts.key = Some(key.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(issuer) => {
                    facts.issuers_key = issuer.key_identifier.as_ref().map(|key| key.0.to_vec());
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    /// Whether clients that come to this host accept it: RFC 9525 6.3, one label for a wildcard.
    pub(super) fn covers(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']);
        if let Ok(wanted) = host.parse::<IpAddr>() {
            return self.addresses.iter().any(|address| address.parse() == Ok(wanted));
        }
        self.names.iter().any(|name| name.eq_ignore_ascii_case(host) || is_wildcard_for(name, host))
    }

    /// Whether it may have signed the other, by what the two say.
    pub(super) fn may_have_issued(&self, other: &Self) -> bool {
        let keys_differ = matches!((&self.key, &other.issuers_key), (Some(own), Some(wanted)) if own != wanted);
        self.subject_der == other.issuer_der && !keys_differ
    }

    /// Whether it is at the top.
    pub(super) fn is_its_own_issuer(&self) -> bool {
        self.may_have_issued(self)
    }

    /// Whether this machine trusts whoever signed it. When that cannot be found out, it does.
    pub(super) fn issuer_is_trusted_here(&self, machine: &[Vec<u8>]) -> bool {
        machine.is_empty() || machine.contains(&self.issuer_der)
    }
}

/// Whether a name with a star stands for this host.
pub(super) fn is_wildcard_for(name: &str, host: &str) -> bool {
    let Some((_, parent)) = host.split_once('.') else { return false };
    name.strip_prefix("*.").is_some_and(|rest| rest.eq_ignore_ascii_case(parent))
}

/// Whom this machine trusts, by their names; nobody when that cannot be read.
pub(super) fn trusted_by_this_machine() -> Vec<Vec<u8>> {
    let subject = |der: &CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(certificate.subject().as_raw().to_vec())
    };
    rustls_native_certs::load_native_certs().unwrap_or_default().iter().filter_map(subject).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| Ipv6Addr::from(sixteen).to_string())
}
