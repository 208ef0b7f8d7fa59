//! An [`Exchange`] without a socket: a request from memory, and the answer kept for looking at.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

use bytes::{Bytes, BytesMut};

use super::{BodyError, Caller, Exchange, Gone, Notes, Origin, RequestId};

/// Where requests made by hand come from.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A request made by hand and the response that came of it.
#[derive(Debug)]
pub struct Recorded {
    head: http::request::Parts,
    caller: Caller,
    notes: Notes,
    body: VecDeque<Result<Bytes, BodyError>>,
    response: Option<http::response::Parts>,
    written: BytesMut,
    ended: bool,
}

impl Recorded {
    /// A request whose body arrives in one piece, from 127.0.0.1, asking `https://localhost:5050`.
    pub fn new(request: http::Request<Bytes>) -> Self {
        let (head, body) = request.into_parts();
        let pieces = if body.is_empty() { Vec::new() } else { vec![Ok(body)] };
        Self::with_pieces(http::Request::from_parts(head, ()), pieces)
    }

    /// A request whose body arrives in these pieces; an error among them is the client's misfortune.
    pub fn with_pieces(request: http::Request<()>, pieces: Vec<Result<Bytes, BodyError>>) -> Self {
        let (head, ()) = request.into_parts();
        #[allow(clippy::expect_used, reason = "a constant that parses")]
        let origin: Origin = "https://localhost:5050".parse().expect("a valid origin");
        Self {
            head,
            caller: Caller { address: HERE, network: Some(HERE), origin, request_id: RequestId::random() },
            notes: Notes::default(),
            body: pieces.into(),
            response: None,
            written: BytesMut::new(),
            ended: false,
        }
    }

    /// The same through a proxy that does not say for whom it speaks.
    #[must_use]
    pub fn through_a_proxy(mut self) -> Self {
        self.caller.network = None;
        self
    }

    /// The response head, once there is one.
    pub fn response(&self) -> Option<&http::response::Parts> {
        self.response.as_ref()
    }

    /// Everything that was written as response body.
    pub fn written(&self) -> &[u8] {
        &self.written
    }

    /// Whether the response was brought to its end.
    pub fn ended(&self) -> bool {
        self.ended
    }
}

impl Exchange for Recorded {
    fn head(&self) -> &http::request::Parts {
        &self.head
    }

    fn caller(&self) -> &Caller {
        &self.caller
    }

    fn notes(&mut self) -> &mut Notes {
        &mut self.notes
    }

    async fn read(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.body.pop_front().transpose()
    }

    async fn respond(&mut self, head: http::response::Parts, end: bool) -> Result<(), Gone> {
        self.response = Some(head);
        self.ended = end;
        Ok(())
    }

    async fn write(&mut self, bytes: Bytes, end: bool) -> Result<(), Gone> {
        self.written.extend_from_slice(&bytes);
        self.ended = end;
        Ok(())
    }
}
