//! How does a record come into the DNS by a dynamic update (RFC 2136)?
//!
//! ```text
//! CNAME?  at the record's name, followed: a zone of its own for proofs is a good idea
//! SOA?    the zone, if the configuration names none
//! update  one TXT record more (others stay: a name and its wildcard are proven at the same place at once)
//! TXT?    until the server answers with it
//! ```
//!
//! All over TCP, with the configured server only. Whether the zone's other servers have it yet is not known here: notify
//! them (BIND does by default), or name a zone with one server.
//!
//! **Invariant:** an answer to a signed update counts only if it is signed too (RFC 8945 5.3), by the same key.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hickory_proto::op::{Message, Query, ResponseCode, update_message};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::TsigError;
use hickory_proto::rr::{Name, RData, Record, RecordSet, RecordType, TSigner};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::key;

/// How long one question may take, connection and all.
const QUESTION: Duration = Duration::from_secs(10);
/// How long a record may take until the server answers with it.
const SEEN: Duration = Duration::from_secs(60);
/// The pauses between looks: from, to.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long others may remember the record, in seconds.
const TTL: u32 = 60;
/// How many CNAMEs are followed.
const HOPS: usize = 8;

/// A server that takes updates.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// `HOST:PORT`
    pub(super) address: String,
    /// The zone; else the server is asked.
    pub(super) zone: Option<String>,
    /// The file of the key that updates are signed with.
    pub(super) key: Option<PathBuf>,
}

impl Server {
    /// Adds a TXT record, and returns when the server answers with it.
    pub(super) async fn add(&self, record: &str, value: &str) -> Result<(), String> {
        let owner = self.owner(record).await?;
        let zone = self.zone(&owner).await?;
        self.update(&zone, |zone| update_message::append(set(&owner, value), zone, false, false)).await?;
        self.seen(&owner, value).await
    }

    /// Takes exactly this record away.
    pub(super) async fn remove(&self, record: &str, value: &str) -> Result<(), String> {
        let owner = self.owner(record).await?;
        let zone = self.zone(&owner).await?;
        self.update(&zone, |zone| update_message::delete_by_rdata(set(&owner, value), zone, false)).await
    }

    /// Where the record belongs: at the end of CNAMEs.
    async fn owner(&self, record: &str) -> Result<Name, String> {
        let mut owner = name(record)?;
        for _ in 0..HOPS {
            let answer = self.ask(&owner, RecordType::CNAME).await?;
            let next = answer.answers.iter().find_map(|record| match &record.data {
                RData::CNAME(to) if record.name == owner => Some(to.0.clone()),
                _ => None,
            });
            match next {
                Some(next) => owner = next,
                None => return Ok(owner),
            }
        }
        Err(format!("{record} leads through more than {HOPS} CNAMEs at {}", self.address))
    }

    /// The closest zone above that this server knows.
    async fn zone(&self, owner: &Name) -> Result<Name, String> {
        if let Some(zone) = &self.zone {
            let zone = name(zone)?;
            return if zone.zone_of(owner) {
                Ok(zone)
            } else {
                Err(format!("{owner} is not in the zone {zone} (`tls.acme.dns.zone`)"))
            };
        }
        let mut at = owner.clone();
        while !at.is_root() {
            let answer = self.ask(&at, RecordType::SOA).await?;
            let is_zone = |record: &&Record| record.record_type() == RecordType::SOA && record.name.zone_of(owner);
            // A name in a zone is answered with the zone's SOA too (RFC 2308 3).
            if let Some(found) = answer.answers.iter().chain(&answer.authorities).find(is_zone) {
                return Ok(found.name.clone());
            }
            at = at.base_name();
        }
        Err(format!("{} knows no zone that {owner} is in: is it the primary server? (`tls.acme.dns`)", self.address))
    }

    async fn seen(&self, owner: &Name, value: &str) -> Result<(), String> {
        let (began, mut pause) = (Instant::now(), PAUSES.0);
        while began.elapsed() < SEEN {
            let answer = self.ask(owner, RecordType::TXT).await?;
            let is_it = |record: &Record| match &record.data {
                RData::TXT(text) => text.txt_data.concat() == value.as_bytes(),
                _ => false,
            };
            if answer.answers.iter().any(is_it) {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        Err(format!(
            "{} took the record at {owner} and does not answer with it within {} s",
            self.address,
            SEEN.as_secs()
        ))
    }

    async fn update(&self, zone: &Name, message: impl FnOnce(Name) -> Message) -> Result<(), String> {
        let signer = self.key.as_deref().map(signer).transpose()?;
        let mut message = message(zone.clone());
        let failed = |error: String| format!("the update of {zone} at {}: {error}", self.address);
        let mut verifier = None;
        if let Some(signer) = &signer {
            let signed = message.finalize(signer, seconds(SystemTime::now()));
            verifier = signed.map_err(|error| failed(format!("cannot be signed: {error}")))?;
        }
        let bytes = self.exchange(&message).await?;
        let answer =
            Message::from_vec(&bytes).map_err(|error| failed(format!("the answer makes no sense: {error}")))?;
        if let Some(refused) = refused(&answer, zone, signer.as_ref()) {
            return Err(failed(refused));
        }
        match verifier {
            Some(mut verifier) => match verifier.verify(&bytes) {
                Ok(_) => Ok(()),
                Err(error) => Err(failed(format!("the answer is not signed as it must be: {error}"))),
            },
            None => Ok(()),
        }
    }

    async fn ask(&self, owner: &Name, kind: RecordType) -> Result<Message, String> {
        let mut message = Message::query();
        message.metadata.recursion_desired = false;
        message.add_query(Query::query(owner.clone(), kind));
        let bytes = self.exchange(&message).await?;
        let broken = |error| format!("the answer of {} makes no sense: {error}", self.address);
        Message::from_vec(&bytes).map_err(broken)
    }

    async fn exchange(&self, message: &Message) -> Result<Vec<u8>, String> {
        let spoken = tokio::time::timeout(QUESTION, speak(&self.address, message)).await;
        let answer = match spoken {
            Ok(answer) => answer.map_err(|error| format!("the DNS server {}: {error}", self.address))?,
            Err(_) => {
                return Err(format!("the DNS server {} does not answer within {} s", self.address, QUESTION.as_secs()));
            }
        };
        // RFC 1035 4.1.1: the first two bytes are the question's.
        if answer.get(..2) != Some(&message.metadata.id.to_be_bytes()[..]) {
            return Err(format!("the DNS server {} answers something else", self.address));
        }
        Ok(answer)
    }
}

/// RFC 1035 4.2.2: a length, then the message; no message is longer than 64 KiB.
async fn speak(address: &str, message: &Message) -> std::io::Result<Vec<u8>> {
    let bytes = message.to_vec().map_err(std::io::Error::other)?;
    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Why a server did not do it, and what to do; `None` when it did.
fn refused(answer: &Message, zone: &Name, signer: Option<&TSigner>) -> Option<String> {
    let code = answer.metadata.response_code;
    let who = signer
        .map_or_else(|| "us (no `tls.acme.dns.key`)".to_owned(), |signer| format!("the key {}", signer.signer_name()));
    let signature = answer.signature.as_ref().and_then(|signature| signature.data.error);
    let why = match (signature, code) {
        (Some(TsigError::BadKey), _) => format!("it does not know {who}"),
        (Some(TsigError::BadSig), _) => format!("it has another secret or another algorithm for {who}"),
        (Some(TsigError::BadTime), _) => "its clock and ours differ by more than five minutes".to_owned(),
        (_, ResponseCode::NoError) => return None,
        (_, ResponseCode::Refused) => {
            format!("it does not let {who} change that (BIND: update-policy or allow-update of the zone {zone})")
        }
        (_, ResponseCode::NotAuth) => format!("it is not the primary server of {zone}, or does not know {who}"),
        (_, ResponseCode::NotImp) => "it takes no updates".to_owned(),
        (_, ResponseCode::ServFail) => "it failed: its log says why (may it write the zone's files?)".to_owned(),
        (_, other) => format!("it says {other}"),
    };
    Some(why)
}

fn set(owner: &Name, value: &str) -> RecordSet {
    let record = Record::from_rdata(owner.clone(), TTL, RData::TXT(TXT::new(vec![value.to_owned()])));
    RecordSet::from(record)
}

fn signer(path: &Path) -> Result<TSigner, String> {
    key::read(path).map_err(|error| format!("{} (`tls.acme.dns.key`): {error}", path.display()))
}

/// A name from the root.
fn name(text: &str) -> Result<Name, String> {
    let mut name = Name::from_ascii(text).map_err(|error| format!("{text} is no name of the DNS: {error}"))?;
    name.set_fqdn(true);
    Ok(name)
}

fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{MessageType, OpCode};
    use hickory_proto::rr::rdata::tsig::{TSIG, TsigAlgorithm};

    use super::*;

    #[test]
    fn what_a_server_says_of_an_update_is_explained() {
        let zone = name("pierhead.test").unwrap();
        let said = |code: ResponseCode, error: Option<TsigError>| {
            let mut answer = Message::new(1, MessageType::Response, OpCode::Update);
            answer.metadata.response_code = code;
            if let Some(error) = error {
                let tsig = TSIG::new(TsigAlgorithm::HmacSha256, 0, 300, Vec::new(), 1, Some(error), Vec::new());
                answer.set_signature(Box::new(Record::from_rdata(zone.clone(), 0, tsig)));
            }
            refused(&answer, &zone, None)
        };
        assert_eq!(said(ResponseCode::NoError, None), None);
        let table = [
            (ResponseCode::NotAuth, Some(TsigError::BadTime), "clock"),
            (ResponseCode::NotAuth, Some(TsigError::BadKey), "does not know"),
            (ResponseCode::NoError, Some(TsigError::BadSig), "another secret"),
            (ResponseCode::NotAuth, None, "not the primary server of pierhead.test"),
            (ResponseCode::Refused, None, "update-policy"),
            (ResponseCode::ServFail, None, "its log"),
            (ResponseCode::NotImp, None, "takes no updates"),
            (ResponseCode::YXDomain, None, "it says"),
        ];
        for (code, error, part) in table {
            let said = said(code, error).unwrap();
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
