//! What can be wrong with a certificate that can be shown?

use super::acme;
use super::files::Pair;

const DAY: i64 = 24 * 60 * 60;
/// So long before its end a certificate should have been replaced; a third of its life, if that is shorter.
const SOON: i64 = 30 * DAY;

/// Something that clients will complain about, now or soon, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Remark {
    /// It is over.
    #[error("the certificate {file} expired at {} and clients refuse it (x509: certificate has expired or is not yet valid): replace it", time(*.at))]
    Expired {
        /// The certificate's file.
        file: String,
        /// Seconds since 1970.
        at: i64,
    },
    /// It is not yet good.
    #[error("the certificate {file} is not valid before {} and clients refuse it until then (x509: certificate has expired or is not yet valid): is the clock right?", time(*.at))]
    NotYetValid {
        /// The certificate's file.
        file: String,
        /// Seconds since 1970.
        at: i64,
    },
    /// Not for long.
    #[error("the certificate {file} expires at {}, in {days} days: replace it before", time(*.at))]
    ExpiresSoon {
        /// The certificate's file.
        file: String,
        /// Seconds since 1970.
        at: i64,
        /// Whole days until then.
        days: i64,
    },
    /// Its renewal fails.
    #[error("the certificate {file} expires at {} and should have been renewed long ago: `pierhead cert status` and the log say why it was not", time(*.at))]
    RenewalOverdue {
        /// The certificate's file.
        file: String,
        /// Seconds since 1970.
        at: i64,
    },
    /// It was ordered, and is not there yet.
    #[error("there is no certificate for {} from {directory} yet; until there is, the local authority's is shown, which clients do not trust (x509: certificate signed by unknown authority): `pierhead cert status` says how far it is", names.join(", "))]
    StandsIn {
        /// Its names.
        names: Vec<String>,
        /// Where it is ordered from.
        directory: String,
    },
    /// Nobody on the way up is known.
    #[error(
        "the chain in {file} ends at {last:?}, and whoever signed that, {issuer:?}, is neither in the file nor trusted by this machine: docker will say \"x509: certificate signed by unknown authority\". If it is an intermediate, append its certificate to {file}; if it is a private authority, clients must be told to trust it"
    )]
    Incomplete {
        /// The certificate's file.
        file: String,
        /// The last that was found.
        last: String,
        /// Who signed it.
        issuer: String,
    },
    /// The same for one that is ordered, whose chain is the authority's word.
    #[error(
        "the certificate {file} came with a chain that ends at {last:?}, and whoever signed that, {issuer:?}, is not trusted by this machine: clients must be told to trust {issuer:?}, or docker will say \"x509: certificate signed by unknown authority\""
    )]
    OfPrivateAuthority {
        /// The certificate's file.
        file: String,
        /// The last that was found.
        last: String,
        /// Who signed it.
        issuer: String,
    },
    /// We put it right.
    #[error(
        "the chain in {file} is out of order; it is sent in the right one, which other programs may not do: put each certificate before the one that signed it"
    )]
    Sorted {
        /// The certificate's file.
        file: String,
    },
    /// Clients come by a name that is on none.
    #[error(
        "no certificate carries the name {name} (external_url, aliases): clients that come by it refuse us (x509: certificate is valid for ..., not {name})"
    )]
    Uncovered {
        /// The name.
        name: String,
    },
}

impl Remark {
    /// Whether nothing is wrong here, and somebody should know all the same.
    pub fn is_note(&self) -> bool {
        matches!(self, Self::OfPrivateAuthority { .. })
    }

    /// Whether clients refuse us now for it.
    pub fn is_grave(&self) -> bool {
        matches!(
            self,
            Self::Expired { .. } | Self::NotYetValid { .. } | Self::Uncovered { .. } | Self::RenewalOverdue { .. }
        )
    }
}

/// A time for a person.
pub(super) fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "no time".to_owned(), |time| time.to_string())
}

/// What is wrong with a pair. `machine` are the names of those whom this machine trusts; nobody: that is not looked at.
pub(super) fn of(pair: &Pair, machine: &[Vec<u8>], now: i64) -> Vec<Remark> {
    let (from, at) = (pair.leaf().not_before, pair.leaf().not_after);
    let soon = || {
        let file = pair.files.certificate.display().to_string();
        (at - now < SOON.min((at - from) / 3)).then(|| Remark::ExpiresSoon { file, at, days: (at - now) / DAY })
    };
    validity(pair, now).or_else(soon).into_iter().chain(of_chain(pair, machine)).collect()
}

/// The same for a place of one that is ordered: it is for us to renew it in time.
pub(super) fn of_ordered(pair: &Pair, ordered: &acme::Place, machine: &[Vec<u8>], now: i64) -> Vec<Remark> {
    if pair.stands_in {
        let acme::Place { names, directory, .. } = ordered.clone();
        return vec![Remark::StandsIn { names, directory }];
    }
    let (from, at) = (pair.leaf().not_before, pair.leaf().not_after);
    let overdue = || {
        let file = pair.files.certificate.display().to_string();
        (now >= acme::overdue(from, at)).then_some(Remark::RenewalOverdue { file, at })
    };
    let of_chain = of_chain(pair, machine).into_iter().map(|remark| match remark {
        Remark::Incomplete { file, last, issuer } => Remark::OfPrivateAuthority { file, last, issuer },
        remark => remark,
    });
    validity(pair, now).or_else(overdue).into_iter().chain(of_chain).collect()
}

fn of_chain(pair: &Pair, machine: &[Vec<u8>]) -> Vec<Remark> {
    let file = || pair.files.certificate.display().to_string();
    let last = pair.last_link();
    let unknown = !last.is_its_own_issuer() && !last.issuer_is_trusted_here(machine);
    let incomplete = || Remark::Incomplete { file: file(), last: last.subject.clone(), issuer: last.issuer.clone() };
    let sorted = || Remark::Sorted { file: file() };
    unknown.then(incomplete).into_iter().chain(pair.sorted.then(sorted)).collect()
}

/// Why clients would refuse a pair at this time.
pub(super) fn validity(pair: &Pair, now: i64) -> Option<Remark> {
    let file = pair.files.certificate.display().to_string();
    let leaf = pair.leaf();
    if now >= leaf.not_after {
        return Some(Remark::Expired { file, at: leaf.not_after });
    }
    (now < leaf.not_before).then_some(Remark::NotYetValid { file, at: leaf.not_before })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::super::testing::{self, Authority, DAY, now};
    use super::super::{Certificates, Shown};
    use super::*;

    /// What is wrong with a pair that is to carry these names.
    fn remarks(pair: &(String, String), names: &[&str], now: SystemTime) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let certificates = Arc::new(Certificates::load(&[testing::write(folder.path(), pair)]).unwrap());
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let shown = Shown { certificates, names, local: None };
        shown.remarks(now).iter().map(Remark::to_string).collect()
    }

    fn one(pair: &(String, String), names: &[&str], now: SystemTime) -> String {
        let mut remarks = remarks(pair, names, now);
        assert_eq!(remarks.len(), 1, "{remarks:?}");
        remarks.remove(0)
    }

    #[test]
    fn a_whole_chain_that_is_good_for_long_is_nothing_to_remark_upon() {
        let whole = Authority::new().whole(&["a.test", "*.b.test", "10.0.0.1"], 90);
        assert_eq!(remarks(&whole, &["A.test", "x.b.test", "10.0.0.1"], now()), [""; 0]);
    }

    #[test]
    fn time_is_remarked_upon_before_and_after() {
        let whole = Authority::new().whole(&["a.test"], 90);
        assert_eq!(remarks(&whole, &[], now() + 49 * DAY), [""; 0]);
        let soon = one(&whole, &[], now() + 51 * DAY);
        assert!(soon.contains("in 29 days"), "{soon}");
        let short = Authority::new().whole(&["a.test"], 30);
        assert_eq!(remarks(&short, &[], now() + 9 * DAY), [""; 0]);
        assert!(one(&short, &[], now() + 11 * DAY).contains("in 9 days"));
        let over = one(&whole, &[], now() + 80 * DAY);
        assert!(over.contains("expired at") && over.contains("x509: certificate has expired"), "{over}");
        let early = one(&whole, &[], now() - 11 * DAY);
        assert!(early.contains("is not valid before"), "{early}");
    }

    #[test]
    fn a_missing_intermediate_is_named_with_what_docker_will_say() {
        let authority = Authority::new();
        let (leaf, key) = authority.issue(&["a.test"], 90);
        let alone = one(&(leaf.clone(), key.clone()), &[], now());
        assert!(alone.contains("x509: certificate signed by unknown authority"), "{alone}");
        assert!(alone.contains("intermediate of the tests"), "{alone}");
        let mixed = [leaf, authority.root.pem(), authority.intermediate.pem()].concat();
        let sorted = one(&(mixed, key), &[], now());
        assert!(sorted.contains("out of order"), "{sorted}");
    }

    #[test]
    fn nobody_is_told_to_change_a_file_that_was_ordered() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let place = acme::Place::of_tests(folder.path(), &["a.test"]);
        let pair = crate::tls::files::read(&testing::write(folder.path(), &authority.issue(&["a.test"], 90))).unwrap();
        let machine = [b"somebody else".to_vec()];
        let remarks = of_ordered(&pair, &place, &machine, super::super::local::seconds(now()));
        let [remark] = &remarks[..] else { panic!("{remarks:?}") };
        let said = remark.to_string();
        assert!(said.contains("clients must be told to trust") && !said.contains("append"), "{said}");
        assert!(remark.is_note() && !remark.is_grave());
    }

    #[test]
    fn a_private_authority_beside_its_certificate_is_known() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let files = testing::write(folder.path(), &authority.issue(&["a.test"], 90));
        let shown = |of: &str| {
            testing::put(&folder.path().join("ca.crt"), of);
            let certificates = Arc::new(Certificates::load(std::slice::from_ref(&files)).unwrap());
            Shown { certificates, names: Vec::new(), local: None }.remarks(now()).len()
        };
        assert_eq!((shown(&authority.intermediate.pem()), shown(&Authority::new().intermediate.pem())), (0, 1));
    }

    #[test]
    fn names_that_no_certificate_carries_are_remarked_upon() {
        let whole = Authority::new().whole(&["a.test", "*.b.test"], 90);
        for name in ["c.test", "b.test", "x.y.b.test", "10.0.0.1", "[::1]"] {
            let said = one(&whole, &[name], now());
            assert!(said.contains(&format!("the name {name} ")), "{said}");
        }
    }
}
