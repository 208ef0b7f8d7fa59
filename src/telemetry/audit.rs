//! Who pushed, pulled or deleted what?
//!
//! One line for each operation as its user sees it, whatever number of requests it took: an upload is a push when its
//! last request completes it, not before. Questions (lists, HEAD, a blob that is there already) are none.
//!
//! Requests that were answered 401 without having shown anything are no operations either: that is how every client asks
//! where to log in. A login that failed, and a token that does not reach, are.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use super::access::{Access, milliseconds};
use super::lines::Line;
use crate::exchange::Kind;

/// One operation.
#[derive(Debug, Serialize)]
pub(super) struct Operation<'a> {
    /// When it ended, or its last request began.
    #[serde(serialize_with = "milliseconds")]
    time: Timestamp,
    /// What was done: `push`, `pull`, `delete`, `login`.
    audit: &'static str,
    /// `done`, or why not: `denied`, `refused`, `failed`, `broken_off`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    client: IpAddr,
    /// `manifest` or `blob`.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<&'a str>,
    /// Tag or digest as the client wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
    /// How large what was pushed or pulled is, as far as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    status: u16,
    request_id: &'a str,
}

impl<'a> Operation<'a> {
    /// What a request was the end of, if of anything.
    pub(super) fn of(access: &'a Access<'_>) -> Option<Self> {
        let begun = access.status == 202 || access.status == 304;
        let (audit, kind) = match (access.kind, access.method) {
            (Kind::Manifest, "PUT") => ("push", Some("manifest")),
            (Kind::Manifest, "GET") if !begun => ("pull", Some("manifest")),
            (Kind::Manifest, "DELETE") => ("delete", Some("manifest")),
            (Kind::Upload, "PUT") => ("push", Some("blob")),
            // A whole blob in one request, one taken over from another repository, or nothing but a beginning.
            (Kind::Upload, "POST") if !begun => ("push", Some("blob")),
            (Kind::Blob, "GET") if !begun => ("pull", Some("blob")),
            (Kind::Blob, "DELETE") => ("delete", Some("blob")),
            (Kind::Token, _) if access.credentials => ("login", None),
            // Where passwords are shown to the registry itself, this is what `docker login` asks.
            (Kind::Base, _) if access.login && access.credentials => ("login", None),
            _ => return None,
        };
        if access.status == 401 && !access.credentials {
            return None;
        }
        let bytes = match audit {
            "push" => Some(access.size.unwrap_or(access.bytes_in)),
            "pull" => Some(access.bytes_out),
            _ => None,
        };
        Some(Self {
            time: access.time,
            audit,
            outcome: outcome(access),
            subject: access.subject,
            client: access.client,
            kind,
            repository: access.repository,
            reference: access.reference,
            digest: access.digest,
            bytes,
            status: access.status,
            request_id: access.request_id,
        })
    }
}

fn outcome(access: &Access<'_>) -> &'static str {
    match access.status {
        401 | 403 | 429 => "denied",
        499 => "broken_off",
        500.. => "failed",
        400.. => "refused",
        _ if access.failure.is_some() => "failed",
        _ => "done",
    }
}

impl Line for Operation<'_> {
    fn text(&self) -> String {
        let Self { time, audit, outcome, client, status, request_id, .. } = self;
        let mut line = format!("{time:.3} {audit} {outcome}");
        for (name, value) in [
            ("subject", self.subject),
            ("kind", self.kind),
            ("repository", self.repository),
            ("reference", self.reference),
            ("digest", self.digest),
        ] {
            if let Some(value) = value {
                line.push_str(&format!(" {name}={value:?}"));
            }
        }
        if let Some(bytes) = self.bytes {
            line.push_str(&format!(" bytes={bytes}"));
        }
        line.push_str(&format!(" client={client} status={status} id={request_id}"));
        line
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    fn access(kind: Kind, method: &'static str, status: u16) -> Access<'static> {
        Access {
            time: "2026-11-21T10:00:00Z".parse().unwrap(),
            request_id: "r-1",
            client: Ipv4Addr::LOCALHOST.into(),
            subject: Some("alice \"the\nadmin\""),
            method,
            path: "/v2/a/manifests/latest",
            protocol: "HTTP/2.0",
            status,
            bytes_in: 7,
            bytes_out: 9,
            duration: Duration::from_millis(1),
            repository: Some("a"),
            reference: Some("latest"),
            digest: None,
            user_agent: None,
            failure: None,
            upstream: None,
            kind,
            limit: None,
            credentials: true,
            size: None,
            login: false,
        }
    }

    #[test]
    fn each_operation_is_told_once_and_questions_are_not() {
        let told = |kind, method, status| {
            let access = access(kind, method, status);
            Operation::of(&access).map(|operation| (operation.audit, operation.outcome, operation.bytes))
        };
        assert_eq!(told(Kind::Manifest, "PUT", 201), Some(("push", "done", Some(7))));
        assert_eq!(told(Kind::Manifest, "GET", 200), Some(("pull", "done", Some(9))));
        assert_eq!(told(Kind::Manifest, "DELETE", 202), Some(("delete", "done", None)));
        assert_eq!(told(Kind::Blob, "GET", 206), Some(("pull", "done", Some(9))));
        assert_eq!(told(Kind::Blob, "DELETE", 202), Some(("delete", "done", None)));
        assert_eq!(told(Kind::Upload, "PUT", 201), Some(("push", "done", Some(7))));
        assert_eq!(told(Kind::Upload, "POST", 201), Some(("push", "done", Some(7))));
        assert_eq!(told(Kind::Token, "GET", 200), Some(("login", "done", None)));
        for question in [
            (Kind::Manifest, "HEAD", 200),
            (Kind::Manifest, "GET", 304),
            (Kind::Blob, "HEAD", 200),
            (Kind::Upload, "POST", 202),
            (Kind::Upload, "PATCH", 202),
            (Kind::Upload, "GET", 204),
            (Kind::Tags, "GET", 200),
            (Kind::Base, "GET", 200),
        ] {
            assert_eq!(told(question.0, question.1, question.2), None, "{question:?}");
        }
    }

    #[test]
    fn a_password_that_the_registry_itself_looks_at_is_a_login() {
        let asked = |login, credentials, status| {
            let access = Access { login, credentials, ..access(Kind::Base, "GET", status) };
            Operation::of(&access).map(|operation| (operation.audit, operation.outcome))
        };
        assert_eq!(asked(true, true, 200), Some(("login", "done")));
        assert_eq!(asked(true, true, 401), Some(("login", "denied")));
        assert_eq!(asked(true, true, 429), Some(("login", "denied")));
        assert_eq!(asked(true, false, 401), None, "asking where to log in is none");
        assert_eq!(asked(false, true, 200), None, "showing a token is none");
    }

    #[test]
    fn how_it_ended_is_told_and_who_showed_nothing_is_not() {
        let outcome = |status| Operation::of(&access(Kind::Manifest, "PUT", status)).map(|told| told.outcome);
        let told = [401, 403, 404, 413, 499, 500].map(outcome).map(Option::unwrap);
        assert_eq!(told, ["denied", "denied", "refused", "refused", "broken_off", "failed"]);
        let nobody = Access { credentials: false, ..access(Kind::Manifest, "PUT", 401) };
        assert!(Operation::of(&nobody).is_none());
        let cut = Access { failure: Some("the disk"), ..access(Kind::Blob, "GET", 200) };
        assert_eq!(Operation::of(&cut).map(|told| told.outcome), Some("failed"));
    }

    #[test]
    fn a_text_line_cannot_be_broken_by_what_the_client_sends() {
        let access = Access { size: Some(100), ..access(Kind::Upload, "PUT", 201) };
        assert_eq!(
            Operation::of(&access).unwrap().text(),
            "2026-11-21T10:00:00.000Z push done subject=\"alice \\\"the\\nadmin\\\"\" kind=\"blob\" repository=\"a\" \
             reference=\"latest\" bytes=100 client=127.0.0.1 status=201 id=r-1"
        );
    }
}
