use std::path::PathBuf;

use rcgen::ExtendedKeyUsagePurpose;

use super::super::testing::put;
use super::testing::{Client, ClientAuthority, DAY};
use super::*;

fn rule(ca: PathBuf, names: &[&str]) -> NamedClients {
    NamedClients {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        clients: Clients::MustProve(vec![ca]),
        depth: 1,
        revoked: Vec::new(),
        header: "X-SSL-Client-S-DN".to_owned(),
    }
}

fn read(rule: &NamedClients) -> Result<Verifier, Error> {
    Verifier::read(rule).map(Option::unwrap)
}

fn verify(verifier: &Verifier, client: &Client) -> Result<(), rustls::Error> {
    let (own, others) = client.chain.split_first().unwrap();
    verifier.verify_client_cert(own, others, UnixTime::now()).map(|_| ())
}

#[test]
fn only_those_come_whom_the_authority_signed_for_that_and_for_now() {
    let folder = tempfile::tempdir().unwrap();
    let authority = ClientAuthority::new("ours", 0);
    let verifier = read(&rule(authority.file(folder.path(), "ca.crt"), &[])).unwrap();
    verify(&verifier, &authority.client("runner", 7)).unwrap();
    let server = authority.client_for("runner", 8, ExtendedKeyUsagePurpose::ServerAuth, 2 * DAY);
    let expired = authority.client_for("runner", 9, ExtendedKeyUsagePurpose::ClientAuth, DAY / 2);
    let stranger = ClientAuthority::new("ours", 0).client("runner", 7);
    for bad in [server, expired, stranger] {
        verify(&verifier, &bad).unwrap_err();
    }
    let long = authority.client(&"x".repeat(5000), 10);
    verify(&verifier, &long).unwrap_err();
}

#[test]
fn no_more_than_so_many_lie_between_whatever_else_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    for between in 0..4 {
        let authority = ClientAuthority::new("ours", between);
        let ca = authority.file(folder.path(), &format!("{between}.crt"));
        let client = authority.client("runner", 7);
        let mut more = authority.client("runner", 7);
        let stranger = ClientAuthority::new("ours", 3);
        more.chain.push(authority.line[0].der().clone());
        more.chain.extend(stranger.line.iter().map(|authority| authority.der().clone()));
        let mut mixed = authority.client("runner", 7);
        mixed.chain[1..].reverse();
        mixed.chain.push(CertificateDer::from(b"no certificate".to_vec()));
        for depth in 0..4 {
            let verifier = read(&NamedClients { depth, ..rule(ca.clone(), &[]) }).unwrap();
            for client in [&client, &more, &mixed] {
                assert_eq!(verify(&verifier, client).is_ok(), between <= depth, "{between} between, {depth} allowed");
            }
        }
    }
}

#[test]
fn what_was_withdrawn_is_refused_and_so_is_what_cannot_be_known() {
    let folder = tempfile::tempdir().unwrap();
    let authority = ClientAuthority::new("ours", 1);
    let ca = authority.file(folder.path(), "ca.crt");
    let list = folder.path().join("lists.pem");
    let with = |lists: &[String]| {
        put(&list, &lists.concat());
        read(&NamedClients { revoked: vec![list.clone()], ..rule(ca.clone(), &[]) }).unwrap()
    };
    let may = |verifier: &Verifier, serial| verify(verifier, &authority.client("runner", serial)).is_ok();
    let good = 30 * DAY;
    let of_root = authority.withdrawn(0, &[1], good);
    let verifier = with(&[of_root.clone(), authority.withdrawn(1, &[7, 9], good)]);
    assert!(may(&verifier, 8) && !may(&verifier, 7) && !may(&verifier, 9));
    let verifier = with(&[authority.withdrawn(1, &[], good)]);
    assert!(!may(&verifier, 8), "nobody says that the authority between is still good");
    let verifier = with(&[of_root.clone(), authority.withdrawn(1, &[], DAY / 2)]);
    assert!(!may(&verifier, 8), "the list has run out");
    let forged = ClientAuthority::new("ours", 1).withdrawn(1, &[], good);
    assert!(!may(&with(&[of_root, forged]), 8), "somebody else's list");
}

#[test]
fn a_list_that_changes_counts_at_once_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let authority = ClientAuthority::new("ours", 0);
    let list = folder.path().join("list.pem");
    put(&list, &authority.withdrawn(0, &[], 30 * DAY));
    let rule = NamedClients { revoked: vec![list.clone()], ..rule(authority.file(folder.path(), "ca.crt"), &[]) };
    let verifier = read(&rule).unwrap();
    let client = authority.client("runner", 7);
    verify(&verifier, &client).unwrap();
    put(&list, &authority.withdrawn(0, &[7], 30 * DAY));
    verify(&verifier, &client).unwrap();
    verifier.look();
    verify(&verifier, &client).unwrap_err();
    for bad in ["", "garbage", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"] {
        put(&list, bad);
        verifier.look();
        verify(&verifier, &client).unwrap_err();
        verify(&verifier, &authority.client("runner", 8)).unwrap();
    }
    std::fs::remove_file(&list).unwrap();
    verifier.look();
    verify(&verifier, &client).unwrap_err();
    assert!(read(&rule).unwrap_err().to_string().contains("list.pem"));
    put(&list, &authority.withdrawn(0, &[], 30 * DAY));
    verifier.look();
    verify(&verifier, &client).unwrap();
}

#[test]
fn the_first_rule_with_the_name_counts() {
    let folder = tempfile::tempdir().unwrap();
    let ca = ClientAuthority::new("ours", 0).file(folder.path(), "ca.crt");
    let rules = [
        NamedClients { clients: Clients::Anyone, ..rule(ca.clone(), &["open.example.com"]) },
        NamedClients { clients: Clients::MayProve(vec![ca.clone()]), ..rule(ca.clone(), &["may.example.com"]) },
        rule(ca.clone(), &["*.example.com", "must.test"]),
    ];
    let demands = |rules: &[NamedClients]| {
        let rules = rules.iter().map(|rule| Rule::read(rule).unwrap()).collect();
        Demands::new(rules, &Arc::new(Certificates::load(&[]).unwrap()), Policy::Intermediate).unwrap()
    };
    let some = demands(&rules);
    let of = |demands: &Demands, name| demands.of(name).map(|demand| demand.is_required());
    for (name, required) in [
        ("open.example.com", None),
        ("OPEN.example.com.", None),
        ("may.example.com", Some(false)),
        ("May.Example.Com", Some(false)),
        ("a.example.com", Some(true)),
        ("A.EXAMPLE.com.", Some(true)),
        ("must.test", Some(true)),
        ("a.must.test", None),
        ("a.b.example.com", None),
        ("example.com", None),
        ("192.0.2.1", None),
        ("", None),
    ] {
        assert_eq!(of(&some, Some(name)), required, "{name}");
    }
    assert_eq!(of(&some, None), None);
    let all = demands(&[&rules[..], &[rule(ca, &[])]].concat());
    assert_eq!((of(&all, Some("open.example.com")), of(&all, Some("x.test"))), (None, Some(true)));
    assert_eq!((of(&all, None), of(&all, Some("[::1]"))), (Some(true), Some(true)));
    for spelled in ["x-ssl-client-s-dn", "X_SSL_Client_S_DN", "x-ssl_client-s-dn", "X.SSL.Client.S.DN"] {
        assert!(some.is_ours(spelled), "{spelled}");
    }
    assert!(!some.is_ours("x-ssl-client-s-d") && !some.is_ours("x-ssl-client-s-dn-2"));
}

#[test]
fn a_proof_holds_for_as_long_as_its_certificate_would_be_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let authority = ClientAuthority::new("ours", 0);
    let list = folder.path().join("list.pem");
    put(&list, &authority.withdrawn(0, &[], 30 * DAY));
    let rule = NamedClients { revoked: vec![list.clone()], ..rule(authority.file(folder.path(), "ca.crt"), &[]) };
    let demand = |rule: &NamedClients| {
        let certificates = Arc::new(Certificates::load(&[]).unwrap());
        let demands = Demands::new(vec![Rule::read(rule).unwrap()], &certificates, Policy::Intermediate).unwrap();
        demands.of(None).unwrap().clone()
    };
    let after = |time: Duration| UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + time);
    let (now, first) = (after(Duration::ZERO), demand(&rule));
    let proof = |serial| Asking::by(first.clone()).done(Some(&authority.client("runner", serial).chain));
    let (seventh, eighth) = (proof(7), proof(8));
    assert_eq!(seventh.subject(&first, now), Some("CN=runner"));
    assert_eq!(Asking::by(first.clone()).done(None).subject(&first, now), None);
    assert_eq!(seventh.subject(&first, after(2 * DAY)), None, "it has run out");
    assert_eq!(seventh.subject(&first, now), Some("CN=runner"));

    let asked_before = Asking::by(first.clone());
    put(&list, &authority.withdrawn(0, &[7], 30 * DAY));
    first.verifier.look();
    assert_eq!((seventh.subject(&first, now), eighth.subject(&first, now)), (None, Some("CN=runner")));
    let meanwhile = asked_before.done(Some(&authority.client("runner", 7).chain));
    assert_eq!(meanwhile.subject(&first, now), None, "the list changed during the handshake");

    let same = demand(&rule);
    assert!(same.is_as(&first));
    assert_eq!((seventh.subject(&same, now), eighth.subject(&same, now)), (None, Some("CN=runner")));
    ClientAuthority::new("ours", 0).file(folder.path(), "ca.crt");
    let others = demand(&NamedClients { revoked: Vec::new(), ..rule.clone() });
    assert!(!others.is_as(&first), "another authority in the same file");
    assert_eq!(eighth.subject(&others, now), None);
}
