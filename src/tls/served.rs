//! The certificates that are shown now, and which of them to whom.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, Guard};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::config::{Files, Local};
use super::facts::{Facts, is_wildcard_for, trusted_by_this_machine};
use super::files::{self, Pair};
use super::remark::{self, Remark};
use super::{Error, acme, local};

/// The certificates that we can show, in the operator's order. Each keeps its place; what is in a place may be replaced
/// while it is shown.
#[derive(Debug)]
pub struct Certificates {
    served: ArcSwap<Vec<Arc<Pair>>>,
    /// The last places are for these, which are ordered.
    ordered: Vec<acme::Place>,
}

impl Certificates {
    /// Reads certificates and keys from files.
    ///
    /// # Errors
    /// A file that cannot be read or used, or a key that belongs to another certificate.
    pub fn load(files: &[Files]) -> Result<Self, Error> {
        Ok(Self::of(files.iter().map(files::read).collect::<Result<_, _>>()?))
    }

    /// The same, and behind them places for certificates that are ordered. Each shows what was ordered for it, if that
    /// is there and can be used; else, or if that is worse, what was ordered and has been shown `before`; else the pair
    /// of `stand_in`, the local authority's.
    ///
    /// # Errors
    /// The stand-in cannot be read or used.
    pub fn with_ordered(
        mut self,
        ordered: Vec<acme::Place>,
        before: &[Shown],
        stand_in: &Files,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let mut pairs = Vec::clone(&self.pairs());
        for place in &ordered {
            let before = before.iter().find_map(|shown| shown.certificates.shown_for(place));
            let pair = files::read_ordered(place, before.as_deref(), stand_in, local::seconds(now))?;
            pairs.push(Arc::new(pair));
        }
        self.served.store(Arc::new(pairs));
        self.ordered = ordered;
        Ok(self)
    }

    /// What was ordered and is shown for a place: from its file, or for one of its names.
    fn shown_for(&self, place: &acme::Place) -> Option<Arc<Pair>> {
        let pairs = self.pairs();
        let ordered = || {
            let real = |(number, pair): &(usize, &Arc<Pair>)| self.ordered(*number).is_some() && !pair.stands_in;
            pairs.iter().enumerate().filter(real).map(|(_, pair)| pair)
        };
        let same_file = ordered().find(|pair| pair.files.certificate == place.pem);
        let same_name = || ordered().find(|pair| place.names.iter().any(|name| pair.leaf().covers(name)));
        same_file.or_else(same_name).map(Arc::clone)
    }

    pub(super) fn of(pairs: Vec<Pair>) -> Self {
        Self { served: ArcSwap::from_pointee(pairs.into_iter().map(Arc::new).collect()), ordered: Vec::new() }
    }

    /// What is ordered for a place, if that is where it comes from.
    pub(super) fn ordered(&self, place: usize) -> Option<&acme::Place> {
        self.ordered.get(place.checked_sub(self.pairs().len() - self.ordered.len())?)
    }

    /// What is shown now, by place.
    pub(super) fn pairs(&self) -> Guard<Arc<Vec<Arc<Pair>>>> {
        self.served.load()
    }

    /// Shows another in a place from the next handshake on.
    pub(super) fn replace(&self, place: usize, pair: Pair) {
        let pair = Arc::new(pair);
        self.served.rcu(|served| {
            let mut served = Vec::clone(served);
            served[place] = Arc::clone(&pair); // places are those of `pairs`, which never become fewer
            served
        });
    }

    /// Whether whoever asks for the one name is shown the same certificate as for the other.
    pub fn same_for(&self, one: &str, other: &str) -> bool {
        let shown = |name| self.choose(Some(name), |_| true);
        match (shown(one), shown(other)) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one, &other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// The certificate for a server name that the client can verify: an exact name wins over a wildcard, earlier wins
    /// over later; when nothing fits, the first that the client can verify, else the first. One that stands in for
    /// another is for those who would get nothing better.
    fn choose(&self, name: Option<&str>, verifiable: impl Fn(&CertifiedKey) -> bool) -> Option<Arc<CertifiedKey>> {
        let pairs = self.pairs();
        let usable = |stands_in| {
            pairs.iter().filter(move |pair| pair.stands_in == stands_in).filter(|pair| verifiable(&pair.certified))
        };
        let with = |stands_in, fits: &dyn Fn(&str) -> bool| {
            usable(stands_in).find(|pair| pair.leaf().names.iter().any(|name| fits(name)))
        };
        let named = |wanted: &str| {
            let exact = |name: &str| name.eq_ignore_ascii_case(wanted);
            let wildcard = |name: &str| is_wildcard_for(name, wanted);
            let among = |stands_in| with(stands_in, &exact).or_else(|| with(stands_in, &wildcard));
            among(false).or_else(|| among(true))
        };
        let any = || usable(false).next().or_else(|| usable(true).next());
        name.and_then(named).or_else(any).or(pairs.first()).map(|pair| Arc::clone(&pair.certified))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), |key| key.key.choose_scheme(hello.signature_schemes()).is_some())
    }
}

/// Certificates, and what they are for.
#[derive(Debug, Clone)]
pub struct Shown {
    /// What is shown.
    pub certificates: Arc<Certificates>,
    /// The names that clients come by, which some certificate must carry.
    pub names: Vec<String>,
    /// Whether they are all of our own authority, and which: no machine trusts it by itself, and it is for us to renew
    /// them.
    pub local: Option<Local>,
}

impl Shown {
    /// What is wrong with them, although they can be shown.
    pub fn remarks(&self, now: SystemTime) -> Vec<Remark> {
        let now = local::seconds(now);
        let pairs = self.certificates.pairs();
        let trusted = if self.local.is_some() { Vec::new() } else { trusted_by_this_machine() };
        let of_pair = |(place, pair): (usize, &Arc<Pair>)| {
            let mut remarks = match self.certificates.ordered(place) {
                Some(ordered) => remark::of_ordered(pair, ordered, &trusted, now),
                None => remark::of(pair, &trusted, now),
            };
            remarks.retain(|remark| !matches!(remark, Remark::Incomplete { .. }) || !has_its_authority_beside_it(pair));
            remarks
        };
        let of_pairs = pairs.iter().enumerate().flat_map(of_pair);
        let uncovered = self.uncovered(pairs.iter().map(|pair| pair.leaf()));
        let uncovered = uncovered.into_iter().map(|name| Remark::Uncovered { name });
        of_pairs.chain(uncovered).collect()
    }

    /// Names that none of these carries.
    pub(super) fn uncovered<'f>(&self, certificates: impl Iterator<Item = &'f Facts>) -> Vec<String> {
        let certificates: Vec<&Facts> = certificates.collect();
        let covered = |name: &&String| certificates.iter().any(|certificate| certificate.covers(name));
        self.names.iter().filter(|name| !covered(name)).cloned().collect()
    }
}

/// Whether a chain ends below the authority in `ca.crt` beside it, as `cert make-ca` leaves it: whoever put it there knows
/// that clients must be told of it.
fn has_its_authority_beside_it(pair: &Pair) -> bool {
    let authority = files::leaf(&pair.files.certificate.with_file_name("ca.crt"));
    authority.is_ok_and(|authority| authority.may_have_issued(pair.last_link()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, DAY, now, put};
    use super::*;

    /// Certificates with these names, each its own authority.
    fn list(names: &[&[&str]]) -> Certificates {
        Certificates::of(names.iter().map(|names| Pair::of_tests(names)).collect())
    }

    #[test]
    fn exact_names_win_over_wildcards_and_strangers_get_the_first() {
        let list = list(&[&["first.test"], &["*.example.test"], &["registry.example.test"]]);
        let chosen = |name: Option<&str>| {
            let key = list.choose(name, |_| true).unwrap();
            list.pairs().iter().position(|pair| Arc::ptr_eq(&pair.certified, &key)).unwrap()
        };
        assert_eq!(chosen(Some("Registry.Example.Test")), 2);
        assert_eq!(chosen(Some("other.example.test")), 1);
        assert_eq!(chosen(Some("deep.other.example.test")), 0, "a wildcard stands for one label");
        assert_eq!(chosen(None), 0);
        assert_eq!(chosen(Some("stranger.test")), 0);
        assert!(list.same_for("a.example.test", "B.example.test") && list.same_for("first.test", "stranger.test"));
        assert!(!list.same_for("a.example.test", "registry.example.test"));
    }

    #[test]
    fn a_certificate_that_the_client_cannot_verify_is_passed_over() {
        let list = list(&[&["a.test"], &["a.test"]]);
        let first = list.pairs()[0].certified.clone();
        let chosen = list.choose(Some("a.test"), |key| !std::ptr::eq(key, &raw const *first)).unwrap();
        assert!(Arc::ptr_eq(&chosen, &list.pairs()[1].certified));
    }

    #[test]
    fn one_that_stands_in_is_for_those_who_would_get_nothing_better() {
        let mut stand_in = Pair::of_tests(&["first.test", "registry.example.test", "other.test"]);
        stand_in.stands_in = true;
        let real = Pair::of_tests(&["*.example.test"]);
        let list = Certificates::of(vec![stand_in, real]);
        let chosen = |name| Arc::ptr_eq(&list.choose(name, |_| true).unwrap(), &list.pairs()[0].certified);
        assert!(chosen(Some("other.test")));
        assert!(!chosen(Some("registry.example.test")) && !chosen(Some("stranger.test")) && !chosen(None));
    }

    #[test]
    fn a_certificate_in_a_place_is_replaced_for_the_next_handshake() {
        let list = list(&[&["a.test"], &["b.test"]]);
        let before = list.choose(Some("b.test"), |_| true).unwrap();
        list.replace(1, Pair::of_tests(&["b.test", "c.test"]));
        let after = list.choose(Some("b.test"), |_| true).unwrap();
        assert!(!Arc::ptr_eq(&before, &after) && list.same_for("b.test", "c.test"));
        assert_eq!(list.pairs().len(), 2);
    }

    #[test]
    fn what_was_ordered_and_is_shown_stays_until_there_is_something_as_good() {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let local = Local { directory: folder.path().join("local"), names: vec!["a.test".to_owned()] };
        let stand_in = local::ensure(&local, now()).unwrap().server;
        let of = |file: &str, names: &[&str]| {
            let mut place = acme::Place::of_tests(folder.path(), names);
            place.pem = folder.path().join(file);
            place
        };
        let reload = |place: acme::Place, before: &[Shown]| {
            let names = place.names.clone();
            let certificates = Certificates::load(&[]).unwrap().with_ordered(vec![place], before, &stand_in, now());
            [Shown { certificates: Arc::new(certificates.unwrap()), names, local: None }]
        };
        let pair = |shown: &[Shown]| Arc::clone(&shown[0].certificates.pairs()[0]);
        let place = of("a.pem", &["a.test", "b.test"]);
        let put = |(certificate, key): (String, String)| put(&place.pem, &format!("{key}{certificate}"));
        let nothing = reload(place.clone(), &[]);
        assert!(pair(&nothing).stands_in && pair(&reload(place.clone(), &nothing)).stands_in);
        put(authority.whole(&["a.test", "b.test"], 90));
        let shown = reload(place.clone(), &nothing);
        let expired = || authority.issue_from(&["a.test", "b.test"], now() - 100 * DAY, 90);
        let bad: [&dyn Fn(); 4] = [
            &|| std::fs::remove_file(&place.pem).unwrap(),
            &|| put((String::new(), "no pair".to_owned())),
            &|| put(expired()),
            &|| put(authority.whole(&["a.test"], 90)),
        ];
        for (number, bad) in bad.iter().enumerate() {
            bad();
            let again = reload(place.clone(), &shown);
            assert!(!pair(&again).stands_in && pair(&again).shows_the_same(&pair(&shown)), "{number}");
        }
        let more = of("c.pem", &["c.test", "a.test"]);
        let grown = reload(more.clone(), &shown);
        assert!(pair(&grown).shows_the_same(&pair(&shown)) && pair(&grown).files.certificate == more.pem);
        assert!(pair(&reload(of("c.pem", &["c.test"]), &shown)).stands_in);
        put(authority.whole(&["a.test", "b.test"], 120));
        assert!(!pair(&reload(place.clone(), &shown)).shows_the_same(&pair(&shown)), "a good one is taken");
    }
}
