//! Where does a client go on?
//!
//! Every `Location` is made here: a whole URL under the origin that the client used, or, with `relative_urls`, its path.
//!
//! With a secret, the `Location` of an upload also says what Distribution wants to be told again of it (`_state`, its
//! `registry/handlers/hmac.go`), so that a client may go on with our uploads on a node of Distribution's that has the same
//! secret:
//!
//! ```text
//! base64url( HMAC-SHA256(secret, state) | state )      state: {"Name":…,"UUID":…,"Offset":…,"StartedAt":…}
//! ```
//!
//! Absent on purpose: reading it. What it says lies in the tree, where every node of ours looks, and the right to an
//! upload is that to its repository.

use aws_lc_rs::hmac;
use data_encoding::BASE64URL;
use http::StatusCode;
use http::header::{HeaderName, LOCATION, RANGE};
use jiff::Timestamp;

use super::{DOCKER_CONTENT_DIGEST, Error, Registry, Secret, begun};
use crate::exchange::{Answer, Caller};
use crate::oci::{Digest, RepositoryName, UploadId};

pub(super) const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

impl Registry {
    /// Where `path` is for this client.
    pub(super) fn location(&self, caller: &Caller, path: &str) -> String {
        if self.config.relative_urls { path.to_owned() } else { format!("{}{path}", caller.origin) }
    }

    /// A blob has come in.
    pub(super) fn created(&self, caller: &Caller, name: &RepositoryName, digest: &Digest) -> Answer {
        Answer::new(StatusCode::CREATED)
            .header(LOCATION, self.location(caller, &format!("/v2/{name}/blobs/{digest}")))
            .header(DOCKER_CONTENT_DIGEST, digest.to_string())
    }

    /// An upload has come so far.
    pub(super) async fn progress(
        &self,
        caller: &Caller,
        name: &RepositoryName,
        id: UploadId,
        size: u64,
    ) -> Result<Progress, Error> {
        let mut location = self.location(caller, &format!("/v2/{name}/blobs/uploads/{id}"));
        if let Some(secret) = &self.config.secret {
            // Distribution reads the time and does not use it, so any will do for an upload that does not say.
            let started_at = begun::started_at(&self.store, name, id).await?.unwrap_or(Timestamp::UNIX_EPOCH);
            let state = State { name: name.as_str(), uuid: id, offset: size, started_at };
            // The padding is of a character that a query escapes.
            location += &format!("?_state={}", state.signed(secret).replace('=', "%3D"));
        }
        Ok(Progress { location, id, size })
    }
}

/// Where an upload is and how far it has come, as every answer about one says.
#[derive(Debug)]
pub struct Progress {
    location: String,
    id: UploadId,
    size: u64,
}

impl Progress {
    /// `Range` is that of what has arrived, both ends included. Of nothing it is `0-0` too: Docker's client wants it so.
    pub(super) fn headers(&self, answer: Answer) -> Answer {
        answer
            .header(LOCATION, &self.location)
            .header(RANGE, format!("0-{}", self.size.saturating_sub(1)))
            .header(DOCKER_UPLOAD_UUID, self.id.to_string())
    }
}

/// What Distribution remembers of an upload between requests, in the order of its members there.
#[derive(Debug)]
struct State<'a> {
    name: &'a str,
    uuid: UploadId,
    offset: u64,
    started_at: Timestamp,
}

impl State<'_> {
    fn signed(&self, secret: &Secret) -> String {
        let Self { name, uuid, offset, started_at } = self;
        // None of them has a character that JSON escapes. As Go writes a time: in UTC with a `Z`, and with as many digits
        // of a second as it takes.
        let state = format!(r#"{{"Name":"{name}","UUID":"{uuid}","Offset":{offset},"StartedAt":"{started_at}"}}"#);
        let state = state.as_bytes();
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret.0), state);
        BASE64URL.encode(&[mac.as_ref(), state].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_the_one_that_distribution_writes() {
        // Of Distribution 2.8.2 with this secret, for an upload that was begun on us and went on there.
        let theirs = "MsZSEsPobuv68uAdE4vMwD3X_7cpbP8Dma-qEHXEHgp7Ik5hbWUiOiJnL3AiLCJVVUlEIjoiZmE0MGZlZWEtNWMxOC00NmFjLWEyNzg\
                      tNDAxODRkNDhjYzM3IiwiT2Zmc2V0Ijo3LCJTdGFydGVkQXQiOiIyMDI2LTExLTIxVDE0OjU5OjA4WiJ9";
        let uuid = "fa40feea-5c18-46ac-a278-40184d48cc37".parse().unwrap();
        let started_at = "2026-11-21T14:59:08Z".parse().unwrap();
        let state = State { name: "g/p", uuid, offset: 7, started_at };
        assert_eq!(state.signed(&Secret(b"fake-secret".to_vec())), theirs);
    }
}
