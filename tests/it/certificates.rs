//! Promise: certificates never bite. What changes is shown, what is bad is not, and whoever looks is told why.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::support::certificates::Certificates;
use crate::support::command::{Output, command};
use crate::support::content::Content;
use crate::support::machine::on_a_fresh_machine;
use crate::support::pierhead::{Pierhead, Site};
use crate::support::{soak, wait_for};

/// What the log says of a change that is not shown.
const REFUSED: &str = "a changed certificate is not shown";
/// The site's own pair.
const OWN: &str = "tls: { local: certs, certificates: [{ certificate: own.crt, key: own.key }] }";

/// A site whose clients trust an authority of the test's.
fn site(authority: &Certificates) -> Site {
    let site = Site::new();
    trust(&site, authority);
    site
}

/// The site's clients trust what lies where the local authority would.
fn trust(site: &Site, authority: &Certificates) {
    fs::create_dir_all(site.directory().join("certs")).expect("ours");
    put(site.directory(), "certs/ca.crt", &authority.pem());
}

/// Puts a file in place as a careful program does.
fn put(folder: &Path, name: &str, text: &str) {
    let unfinished = folder.join(format!("{name}.new"));
    fs::write(&unfinished, text).expect("written");
    fs::rename(unfinished, folder.join(name)).expect("renamed");
}

/// A new pair for localhost in place of the one before: its certificate.
fn swap(site: &Site, authority: &Certificates) -> CertificateDer<'static> {
    let (certificate, key) = authority.issue("localhost", ServerAuth);
    put(site.directory(), "own.crt", &(certificate.clone() + &authority.pem()));
    put(site.directory(), "own.key", &key);
    der(&certificate)
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

fn client(authority: &Certificates) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(der(&authority.pem())).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(builder.expect("versions").with_root_certificates(roots).with_no_client_auth())
}

/// A connection of its own: what was shown, and whether a ticket of an earlier one was taken.
fn shake(client: &Arc<ClientConfig>, port: u16) -> std::io::Result<(CertificateDer<'static>, bool)> {
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::clone(client), name).map_err(std::io::Error::other)?;
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let shown = stream.conn.peer_certificates().and_then(<[_]>::first).cloned();
    Ok((shown.expect("a certificate"), stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)))
}

/// The shown certificate when no ticket is taken.
fn shown(authority: &Certificates, site: &Site) -> CertificateDer<'static> {
    shake(&client(authority), site.port()).expect("a handshake").0
}

fn refusals(server: &Pierhead) -> usize {
    server.process.stderr().matches(REFUSED).count()
}

#[test]
fn certificates_are_swapped_under_load_without_a_failed_handshake_and_bad_ones_are_refused_once() {
    let swaps = if soak() { 100 } else { 20 };
    let authority = Certificates::new();
    let site = site(&authority);
    site.configure(&[OWN]);
    let mut current = swap(&site, &authority);
    let server = site.start();
    let repository = site.admin().repository("swapped/app", "pull,push");
    let (ended, handshakes, resumed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let port = site.port();
    std::thread::scope(|threads| {
        for tickets in [true, true, false] {
            let (ended, handshakes, resumed, authority) = (&ended, &handshakes, &resumed, &authority);
            threads.spawn(move || {
                let mut config = client(authority);
                while !ended.load(Ordering::Relaxed) {
                    if !tickets {
                        config = client(authority);
                    }
                    let (_, again) = shake(&config, port).unwrap_or_else(|error| {
                        ended.store(true, Ordering::Relaxed);
                        panic!("a handshake failed: {error}");
                    });
                    handshakes.fetch_add(1, Ordering::Relaxed);
                    resumed.fetch_add(usize::from(again), Ordering::Relaxed);
                }
            });
        }
        // Connections that are open go on.
        let (ended, repository) = (&ended, &repository);
        threads.spawn(move || {
            for seed in 0.. {
                repository.push_blob(Content::new(seed, 100_000)).expect("pushes go on");
                if ended.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let finish = End(ended);
        for number in 1..=swaps {
            if number % 10 == 0 {
                // The key of a pair whose certificate does not come, until the next swap.
                let before = refusals(&server);
                put(site.directory(), "own.key", &authority.issue("localhost", ServerAuth).1);
                wait_for("the refusal", 20, || (refusals(&server) > before).then_some(()));
                assert_eq!(shown(&authority, &site), current, "the one before stays");
            } else {
                current = swap(&site, &authority);
                wait_for("the new certificate", 20, || (shown(&authority, &site) == current).then_some(()));
            }
        }
        drop(finish);
    });
    let (handshakes, resumed) = (handshakes.into_inner(), resumed.into_inner());
    eprintln!("{swaps} swaps, {handshakes} handshakes ({resumed} resumed), 0 failed, {} refused", refusals(&server));
    assert!(handshakes > swaps && resumed > handshakes / 3, "tickets stay good: {resumed} of {handshakes}");
    let log = server.process.stderr();
    let clear =
        log.lines().filter(|line| line.contains(REFUSED) && line.contains("does not belong to the certificate"));
    assert_eq!((clear.count(), refusals(&server)), (swaps / 10, swaps / 10), "{log}");
    let status: Value = serde_json::from_str(&site.run(&["cert", "status", "--output", "json"]).ok().stdout).unwrap();
    let refused = status[0]["refused"]["reason"].as_str().unwrap_or_default();
    assert!(refused.contains("does not belong"), "{status}");
    assert_eq!(server.stop().code(), Some(0));
}

/// Ends the load, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What `openssl s_client` is shown for a name.
fn s_client(site: &Site, name: Option<&str>) -> (Vec<CertificateDer<'static>>, String) {
    let mut openssl = command("openssl");
    openssl.args(["s_client", "-connect", &format!("127.0.0.1:{}", site.port()), "-showcerts"]);
    openssl.args(["-CAfile", "certs/ca.crt"]).current_dir(site.directory());
    match name {
        Some(name) => openssl.args(["-servername", name]),
        None => openssl.arg("-noservername"),
    };
    let said = Output::of(&mut openssl).ok().stdout;
    let certificates = CertificateDer::pem_slice_iter(said.as_bytes()).collect::<Result<_, _>>();
    (certificates.expect("certificates"), said)
}

#[test]
fn each_name_is_shown_its_certificate_with_its_whole_chain() {
    let authority = Certificates::new();
    let intermediate = authority.intermediate();
    let site = site(&authority);
    let names = ["localhost", "*.wild.test", "exact.wild.test", "*.deep.wild.test"];
    let mut own = Vec::new();
    let mut listed = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let (certificate, key) = intermediate.issue(name, ServerAuth);
        put(site.directory(), &format!("{number}.crt"), &(certificate.clone() + &intermediate.pem()));
        put(site.directory(), &format!("{number}.key"), &key);
        own.push(der(&certificate));
        listed.push(format!("{{ certificate: {number}.crt, key: {number}.key }}"));
    }
    site.configure(&[&format!("tls: {{ local: certs, certificates: [{}] }}", listed.join(", "))]);
    let _server = site.start();
    for (asked, place) in [
        (Some("localhost"), 0),
        (Some("LocalHost"), 0),
        (Some("any.wild.test"), 1),
        (Some("exact.wild.test"), 2),
        (Some("EXACT.wild.test"), 2),
        (Some("any.deep.wild.test"), 3),
        (Some("deep.wild.test"), 1),
        (Some("a.b.deep.wild.test"), 0),
        (Some("wild.test"), 0),
        (Some("stranger.test"), 0),
        (None, 0),
    ] {
        let (shown, said) = s_client(&site, asked);
        assert_eq!(shown, [own[place].clone(), der(&intermediate.pem())], "{asked:?}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    }
}

#[test]
fn an_encrypted_key_is_read_with_the_password_of_a_file() {
    let authority = Certificates::new();
    let site = site(&authority);
    let certificate = swap(&site, &authority);
    put(site.directory(), "own.password", "a secret of the test\n");
    let mut encrypt = command("openssl");
    encrypt.args(["pkcs8", "-topk8", "-in", "own.key", "-out", "hidden.key", "-passout", "file:own.password"]);
    Output::of(encrypt.current_dir(site.directory())).ok();
    let pair = "certificate: own.crt, key: hidden.key";
    site.configure(&[&format!("tls: {{ local: certs, certificates: [{{ {pair} }}] }}")]);
    let said = site.run(&["check"]);
    assert!(said.code() == Some(78) && said.stderr.contains("hidden.key is encrypted"), "{said}");
    site.configure(&[&format!("tls: {{ local: certs, certificates: [{{ {pair}, password: own.password }}] }}")]);
    let server = site.start();
    assert_eq!(shown(&authority, &site), certificate);
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn what_is_wrong_with_certificates_is_said_at_the_start_in_check_and_by_cert_check() {
    let authority = Certificates::new();
    let intermediate = authority.intermediate();
    let site = site(&authority);
    swap(&site, &authority);
    site.configure(&[OWN]);
    assert!(site.run(&["cert", "check"]).ok().stdout.contains("nothing is wrong"));
    // A chain without its intermediate, and an alias that nobody carries.
    let (certificate, key) = intermediate.issue("localhost", ServerAuth);
    put(site.directory(), "own.crt", &certificate);
    put(site.directory(), "own.key", &key);
    site.configure(&[OWN, "aliases: [https://other.test]"]);
    let wanted = ["x509: certificate signed by unknown authority", "no certificate carries the name other.test"];
    let said = site.run(&["cert", "check"]);
    assert_eq!(said.code(), Some(1), "{said}");
    let checked = site.run(&["check"]).ok();
    put(site.directory(), "certs/ca.crt", &intermediate.pem()); // or the probe would not trust it
    let server = site.start();
    for words in wanted {
        assert!(said.stderr.contains(words) && checked.stderr.contains(words), "{words}: {said} {checked}");
        assert!(server.process.stderr().contains(words), "{words}");
    }
    let table = site.run(&["cert", "status"]).ok().stdout;
    assert!(table.contains("localhost") && table.contains("own.crt"), "{table}");
    assert_eq!(server.stop().code(), Some(0));
    let table = site.run(&["cert", "status"]).ok();
    assert!(table.stdout.contains("own.crt") && table.stderr.contains("no server runs here"), "{table}");
}

#[test]
fn a_reload_takes_what_the_watch_refused_and_warns_of_it() {
    let authority = Certificates::new();
    let site = site(&authority);
    let before = swap(&site, &authority);
    site.configure(&[OWN]);
    let server = site.start();
    let (certificate, key) = authority.issue("other.test", ServerAuth);
    put(site.directory(), "own.crt", &certificate);
    put(site.directory(), "own.key", &key);
    let lost = "carries no longer the name localhost";
    wait_for("the refusal", 20, || server.process.stderr().contains(lost).then_some(()));
    assert_eq!(shown(&authority, &site), before);
    let answer = site.run(&["reload"]).ok();
    assert!(answer.stdout.contains("warning: no certificate carries the name localhost"), "{answer}");
    assert_eq!(s_client(&site, Some("localhost")).0, [der(&certificate)]);
    let status = site.run(&["cert", "status"]).ok().stdout;
    assert!(status.contains("other.test") && !status.contains("refused"), "{status}");
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn an_authority_of_ones_own_is_made_and_its_certificate_served() {
    let site = Site::new();
    let made = site.run(&["cert", "make-ca", "certs", "--name", "localhost", "--name", "registry.test"]).ok();
    for file in ["ca.key", "server.key"] {
        let mode = fs::metadata(site.directory().join("certs").join(file)).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let port = site.port();
    for words in [
        format!("/etc/docker/certs.d/localhost:{port}/ca.crt"),
        format!("/etc/containers/certs.d/localhost:{port}/ca.crt"),
        format!("/etc/containerd/certs.d/localhost:{port}/hosts.toml"),
        "/etc/gitlab-runner/certs/localhost.crt".to_owned(),
    ] {
        assert!(made.stdout.contains(&words), "{words}: {made}");
    }
    site.configure(&["tls: { certificates: [{ certificate: certs/server.crt, key: certs/server.key }] }"]);
    site.run(&["cert", "check"]).ok();
    let server = site.start();
    let (shown, said) = s_client(&site, Some("localhost"));
    assert!(shown.len() == 1 && said.contains("Verify return code: 0 (ok)"), "{said}");
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_key_that_is_roots_is_read_at_the_start_and_that_changes_need_a_restart_is_said() {
    on_a_fresh_machine(|_| {
        let authority = Certificates::new();
        let site = site(&authority);
        fs::set_permissions(site.directory(), fs::Permissions::from_mode(0o755)).expect("ours");
        let before = swap(&site, &authority);
        let only_root = || {
            fs::set_permissions(site.directory().join("own.key"), fs::Permissions::from_mode(0o600)).expect("ours");
        };
        only_root();
        site.configure(&["user: nobody", OWN]);
        let mut server = site.start();
        let log = server.process.stderr();
        assert!(log.contains("own.key was read by root") && log.contains("restart the server"), "{log}");
        let (certificate, key) = authority.issue("localhost", ServerAuth);
        put(site.directory(), "own.key", &key);
        only_root();
        put(site.directory(), "own.crt", &certificate);
        server.process.wait_until("refuse it", 20, |process| process.stderr().contains(REFUSED));
        assert!(server.process.stderr().contains("own.key: Permission denied"));
        assert_eq!(shown(&authority, &site), before);
        assert_eq!(server.stop().code(), Some(0));
        let server = site.start();
        assert_eq!(shown(&authority, &site), der(&certificate));
        assert_eq!(server.stop().code(), Some(0));
    });
}

#[test]
fn gitlabs_certificate_is_found_and_said_and_not_given_up_when_it_is_out_of_sight() {
    on_a_fresh_machine(|_| {
        let authority = Certificates::new();
        let site = site(&authority);
        fs::set_permissions(site.directory(), fs::Permissions::from_mode(0o755)).expect("ours");
        let place = Path::new("/etc/gitlab/ssl");
        fs::create_dir_all(place).expect("the machine is ours");
        fs::set_permissions(place, fs::Permissions::from_mode(0o700)).expect("ours");
        let (certificate, key) = authority.issue("localhost", ServerAuth);
        put(place, "localhost.crt", &certificate);
        put(place, "localhost.key", &key);
        site.configure(&["user: nobody", "tls: { local: certs }"]);
        let checked = site.run(&["check"]).ok();
        assert!(checked.stderr.contains("found in GitLab's place"), "{checked}");
        assert!(checked.stdout.contains("certificate: /etc/gitlab/ssl/localhost.crt"), "{checked}");
        let server = site.start();
        assert!(server.process.stderr().contains("localhost.crt, found in GitLab's place"));
        assert_eq!(shown(&authority, &site), der(&certificate));
        let reloaded = site.run(&["reload"]);
        assert!(reloaded.code() == Some(78) && reloaded.stderr.contains("was found at the start"), "{reloaded}");
        assert_eq!(shown(&authority, &site), der(&certificate));
        assert_eq!(server.stop().code(), Some(0));
    });
}

#[test]
fn the_pair_of_the_internal_port_is_watched_as_well() {
    let authority = Certificates::new();
    let site = site(&authority);
    let before = swap(&site, &authority);
    let (certificate, key) = authority.issue("localhost", ServerAuth);
    put(site.directory(), "internal.crt", &certificate);
    put(site.directory(), "internal.key", &key);
    let port = site.internal_port();
    let registry = format!(
        "registry: {{ storage: {{ filesystem: {{ rootdirectory: tree }} }}, http: {{ addr: \"127.0.0.1:{port}\", tls: \
         {{ certificate: internal.crt, key: internal.key }} }} }}"
    );
    site.configure(&[OWN, &registry]);
    let server = site.start();
    let client = || client(&authority);
    assert_eq!(shake(&client(), port).expect("a handshake").0, der(&certificate));
    let (certificate, key) = authority.issue("localhost", ServerAuth);
    put(site.directory(), "internal.crt", &certificate);
    put(site.directory(), "internal.key", &key);
    wait_for("the new certificate", 20, || {
        (shake(&client(), port).expect("a handshake").0 == der(&certificate)).then_some(())
    });
    assert_eq!(shown(&authority, &site), before);
    assert_eq!(server.stop().code(), Some(0));
}
