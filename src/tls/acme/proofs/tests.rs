//! Proofs in places that others serve: BIND as the DNS, a folder of another server, a program.

use std::path::{Path, PathBuf};

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};

use super::super::engine::authority;
use super::super::order::Wanted;
use super::super::testing::{Manners, Named, Pebble, account_key, names, only};
use super::update::Server;
use super::*;

fn server(named: &Named, key: Option<&str>) -> Server {
    Server { address: format!("127.0.0.1:{}", named.port), zone: None, key: key.map(|file| named.key(file)) }
}

/// The values at a name, as another program sees them.
fn seen(named: &Named, name: &str) -> Vec<String> {
    let at = ["@127.0.0.1", "-p", &named.port.to_string(), "+short", "TXT", name].map(str::to_owned);
    let output = std::process::Command::new("dig").args(at).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut values: Vec<String> = text.lines().map(|line| line.trim_matches('"').to_owned()).collect();
    values.sort();
    values
}

#[tokio::test]
async fn records_come_beside_each_other_and_exactly_one_goes() {
    let named = Named::start();
    let server = server(&named, Some("update.key"));
    let record = "_acme-challenge.deep.below.pierhead.test.";
    server.add(record, "one").await.unwrap();
    server.add(record, "two").await.unwrap();
    server.add(record, "two").await.unwrap();
    assert_eq!(seen(&named, record), ["one", "two"]);
    server.remove(record, "one").await.unwrap();
    assert_eq!(seen(&named, record), ["two"]);
    server.remove(record, "two").await.unwrap();
    server.remove(record, "two").await.unwrap();
    assert!(seen(&named, record).is_empty());
    let zone = Server { zone: Some("PIERHEAD.test".to_owned()), ..server.clone() };
    zone.add(record, "three").await.unwrap();
    assert_eq!(seen(&named, record), ["three"]);
}

#[tokio::test]
async fn a_record_is_put_where_an_alias_leads() {
    let named = Named::start();
    let server = server(&named, Some("update.key"));
    server.add("_acme-challenge.led.pierhead.test.", "value").await.unwrap();
    assert_eq!(seen(&named, "led.proofs.pierhead.test."), ["value"]);
    server.remove("_acme-challenge.led.pierhead.test.", "value").await.unwrap();
    assert!(seen(&named, "led.proofs.pierhead.test.").is_empty());
}

#[tokio::test]
async fn a_server_that_refuses_is_explained() {
    let named = Named::start();
    let record = "_acme-challenge.a.pierhead.test.";
    let said = |server: Server| async move { server.add(record, "value").await.unwrap_err() };
    let ours = server(&named, Some("update.key"));
    let table = [
        (server(&named, None), "it does not let us (no `tls.acme.dns.key`) change that"),
        (server(&named, Some("other.key")), "it does not know the key other."),
        (server(&named, Some("wrong.key")), "another secret or another algorithm for the key pierhead."),
        (server(&named, Some("zone")), "(`tls.acme.dns.key`): it holds no key"),
        (server(&named, Some("nowhere")), "(`tls.acme.dns.key`): cannot be read"),
        (Server { zone: Some("other.test".to_owned()), ..ours.clone() }, "is not in the zone other.test"),
        (Server { zone: Some("test".to_owned()), ..ours.clone() }, "it is not the primary server of test"),
        (Server { address: "127.0.0.1:1".to_owned(), ..ours.clone() }, "the DNS server 127.0.0.1:1"),
    ];
    for (server, part) in table {
        let said = said(server).await;
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = ours.add("_acme-challenge.elsewhere.org.", "value").await.unwrap_err();
    assert!(said.contains("knows no zone that _acme-challenge.elsewhere.org. is in"), "{said}");
    assert!(seen(&named, record).is_empty());
}

/// A DNS server that answers everything with "done", without a signature.
async fn believer() -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut asked).await.unwrap();
            let asked = Message::from_vec(&asked).unwrap();
            let mut answer = Message::new(asked.metadata.id, MessageType::Response, OpCode::Update);
            answer.metadata.response_code = ResponseCode::NoError;
            let bytes = answer.to_vec().unwrap();
            stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn an_answer_to_a_signed_update_must_be_signed() {
    let named = Named::start();
    let (zone, key) = (Some("pierhead.test".to_owned()), Some(named.key("update.key")));
    let server = Server { address: format!("127.0.0.1:{}", believer().await), zone, key };
    let said = server.add("_acme-challenge.a.pierhead.test.", "value").await.unwrap_err();
    assert!(said.contains("not signed as it must be"), "{said}");
}

async fn order(config: &Config, names_wanted: &[&str], by: Challenge) -> Result<Vec<String>, Failure> {
    let wanted: Vec<String> = names_wanted.iter().map(|name| (*name).to_owned()).collect();
    let wanted = Wanted { names: &wanted, ways: only(by), replaces: None };
    let authority = authority(config, account_key())?;
    let issued = authority.order(&wanted, &proofs(config)).await?;
    let mut names = names(&issued.chain).0;
    names.sort();
    Ok(names)
}

#[tokio::test]
async fn a_name_and_its_wildcard_are_proven_by_updates() {
    let named = Named::start();
    let pebble = Pebble::with_dns(Manners { rejects: 20, ..Manners::default() }, Some(named.port)).await;
    let dns =
        Dns::Update { server: format!("127.0.0.1:{}", named.port), zone: None, key: Some(named.key("update.key")) };
    let config = Config { dns: Some(dns), ..pebble.config(&[Challenge::Dns01]) };
    let names = order(&config, &["*.pierhead.test", "pierhead.test"], Challenge::Dns01).await.unwrap();
    assert_eq!(names, ["*.pierhead.test", "pierhead.test"]);
    assert!(seen(&named, "_acme-challenge.pierhead.test.").is_empty());
}

/// A program that tells the authority's DNS.
fn hook(folder: &Path, management: u16) -> PathBuf {
    let text = format!(
        "#!/bin/sh\nset -eu\necho \"$@\" >> '{}/told'\ncase $1 in\n\
         present) way=set-txt ;;\ncleanup) way=clear-txt ;;\nesac\n\
         exec curl -fsS --noproxy '*' -d \"{{\\\"host\\\":\\\"$2\\\",\\\"value\\\":\\\"$3\\\"}}\" http://127.0.0.1:{management}/$way\n",
        folder.display()
    );
    let path = folder.join("hook");
    crate::storage::durable::write(&path, text.as_bytes(), 0o700).unwrap();
    path
}

#[tokio::test]
async fn a_wildcard_is_proven_by_a_program() {
    let pebble = Pebble::start(Manners::default()).await;
    let program = hook(pebble.folder.path(), pebble.management);
    let config = Config { dns: Some(Dns::Hook { program }), ..pebble.config(&[Challenge::Dns01]) };
    let names = order(&config, &["*.pierhead.test"], Challenge::Dns01).await.unwrap();
    assert_eq!(names, ["*.pierhead.test"]);
    let told = std::fs::read_to_string(pebble.folder.path().join("told")).unwrap();
    let told: Vec<&str> = told.lines().map(|line| line.rsplit_once(' ').unwrap().0).collect();
    assert_eq!(told, ["present _acme-challenge.pierhead.test.", "cleanup _acme-challenge.pierhead.test."]);
}

#[tokio::test]
async fn a_name_is_proven_from_the_folder_of_another_server() {
    let pebble = Pebble::start(Manners::default()).await;
    let webroot = pebble.folder.path().join("webroot");
    let storage = pebble.folder.path().join("elsewhere");
    let config = Config { webroot: Some(webroot.clone()), storage, ..pebble.config(&[Challenge::Http01]) };
    let failure = order(&config, &["a.pierhead.test"], Challenge::Http01).await.unwrap_err();
    assert!(failure.kind == Kind::Ours && failure.reason.contains("tls.acme.webroot"), "{failure}");
    std::fs::create_dir(&webroot).unwrap();
    assert_eq!(order(&config, &["a.pierhead.test"], Challenge::Http01).await.unwrap(), ["a.pierhead.test"]);
    assert_eq!(webroot.join(".well-known/acme-challenge").read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn what_stayed_in_folders_is_taken_away_later_and_what_is_not_ours_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, webroot) = (folder.path().join("storage"), folder.path().join("webroot"));
    std::fs::create_dir(&webroot).unwrap();
    let config = super::super::testing::config("https://ca.test/dir", folder.path(), &[Challenge::Http01]);
    let no_folder = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
    let away = proofs(&Config { webroot: Some(no_folder.path().to_owned()), ..config.clone() });
    let places = proofs(&Config { webroot: Some(webroot.clone()), ..config });
    let proof = |by, token: &str| Proof {
        by,
        name: "a.test".to_owned(),
        token: token.to_owned(),
        key_authorization: format!("{token}.thumb"),
    };
    let below = webroot.join(".well-known/acme-challenge");
    let tokens = ["crashed", "half", "replaced", "unreachable", "running"];
    for token in tokens {
        places.present(&proof(Challenge::Http01, token)).await.unwrap();
    }
    places.present(&proof(Challenge::TlsAlpn01, "any")).await.unwrap();
    let fill = |name: &str, text: &str| {
        std::io::Write::write_all(&mut std::fs::File::create(below.join(name)).unwrap(), text.as_bytes()).unwrap();
    };
    fill("half", ""); // a power cut
    fill("replaced", "by somebody else");
    // Where the folder should be there is none when this one is withdrawn.
    away.withdraw(&proof(Challenge::Http01, "unreachable")).await;
    let answers = |way: &str| {
        let files = storage.join("challenges").join(way).read_dir().unwrap();
        let mut names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert!(answers("http-01").contains(&"unreachable".to_owned()), "it is known what is still to be taken away");

    let now = std::time::SystemTime::now();
    let ages = answers("http-01").into_iter().map(|name| format!("http-01/{name}"));
    for name in ages.chain(["tls-alpn-01/a.test".to_owned()]).filter(|name| !name.ends_with("running")) {
        let file = std::fs::File::options().write(true).open(storage.join("challenges").join(name)).unwrap();
        file.set_modified(now - std::time::Duration::from_secs(7200)).unwrap();
    }
    places.clean(now - std::time::Duration::from_secs(3600)).await;
    assert_eq!(answers("http-01"), ["running"]);
    assert!(answers("tls-alpn-01").is_empty());
    let left = |token: &&str| below.join(token).exists();
    assert_eq!(tokens.iter().copied().filter(left).collect::<Vec<_>>(), ["replaced", "running"]);
}

#[test]
fn a_webroot_that_hangs_takes_few_threads_and_keeps_no_other_proof_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    // Whoever opens it waits for somebody who writes.
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let [name, key_authorization] = ["a.test", "token.thumb"].map(str::to_owned);
    let proof = Proof { by: Challenge::Http01, name, token: pipe.display().to_string(), key_authorization };
    let by_tls = Proof { by: Challenge::TlsAlpn01, ..proof.clone() };
    let [turns, webroot_turns] = [(); 2].map(|()| Arc::new(Semaphore::new(AT_FOLDER)));
    let webroot = Some(folder.path().join("webroot"));
    let places = Places { answers: Answers::of(folder.path()), webroot, dns: None, turns, webroot_turns };
    let open = |_: &Places, proof: &Proof| std::fs::File::open(&proof.token).map(drop).map_err(|e| e.to_string());
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(AT_FOLDER + 1).build().unwrap();
    runtime.block_on(async {
        let mut all = futures_util::future::join_all((0..2 * AT_FOLDER).map(|_| places.apart(&proof, open)));
        let others = tokio::time::timeout(std::time::Duration::from_secs(20), async {
            for _ in 0..4 * AT_FOLDER {
                tokio::task::spawn_blocking(|| ()).await.unwrap(); // a thread for others, and a turn for who waits for one
            }
            places.apart(&by_tls, |_, _| Ok(())).await.unwrap();
        });
        let others = tokio::select! {
            biased;
            all = &mut all => panic!("nobody wrote: {all:?}"),
            others = others => others,
        };
        let _answer = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        assert!(all.await.iter().all(Result::is_ok));
        assert_eq!(others, Ok(()));
    });
}
