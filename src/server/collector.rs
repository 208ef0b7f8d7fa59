//! How do spans leave the process?
//!
//! By a request of Pingora's, each on a connection of its own: at most one a second, and there is no second HTTP or TLS
//! library in the program for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST};
use http::uri::Scheme;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::telemetry::Reports;
use crate::telemetry::traces::{self, Config, Unusable};

/// How long one request may take.
const TIME: Duration = Duration::from_secs(10);
/// How much of an answer is read: it says which spans were refused, in a sentence.
const ANSWER: usize = 64 << 10;
/// How long the end of the process waits for the last spans to go.
const FAREWELL: Duration = Duration::from_secs(5);

/// Spans on their way.
pub(super) struct Exporting(Option<(oneshot::Sender<()>, JoinHandle<()>)>);

/// Tells a collector of requests, if the configuration names one.
pub(super) fn begin(config: &Config, reports: Reports) -> Result<(Reports, Exporting), Unusable> {
    let client = Client(Arc::new(Connector::new(None)));
    let (traces, export) = traces::open(config, client, reports.metrics.clone())?;
    let exporting = export.map(|export| {
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            let _ = stopped.await; // nobody who could stop it is a reason to stop as well
        };
        (stop, tokio::spawn(export.run(stopped)))
    });
    Ok((Reports { traces, ..reports }, Exporting(exporting)))
}

impl Exporting {
    /// Sends what waits, for at most a few seconds.
    pub(super) async fn finish(self) {
        let Some((stop, task)) = self.0 else { return };
        let _ = stop.send(()); // it has ended already: then nothing waits
        if tokio::time::timeout(FAREWELL, task).await.is_err() {
            tracing::warn!("the last spans were lost: the collector does not take them");
        }
    }
}

/// One request, one connection.
struct Client(Arc<Connector>);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        tokio::time::timeout(TIME, send(&self.0, request)).await?
    }
}

async fn send(connector: &Connector, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (parts, body) = request.into_parts();
    let authority = parts.uri.authority().ok_or("the URL has no host")?.clone();
    let secure = parts.uri.scheme() == Some(&Scheme::HTTPS);
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let host = authority.host().trim_matches(['[', ']']);
    let address = tokio::net::lookup_host((host, port)).await?.next().ok_or("the host has no address")?;
    let peer = HttpPeer::new(address, secure, host.to_owned());

    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut head = RequestHeader::build(parts.method, target.as_bytes(), None)?;
    for (name, value) in &parts.headers {
        head.append_header(name.clone(), value)?;
    }
    head.insert_header(HOST, authority.as_str())?;
    head.insert_header(CONTENT_LENGTH, body.len())?;
    head.insert_header(CONNECTION, "close")?;

    let (mut session, _) = connector.get_http_session(&peer).await?;
    session.write_request_header(Box::new(head)).await?;
    session.write_request_body(body, true).await?;
    session.finish_request_body().await?;
    session.read_response_header().await?;
    let head = session.response_header().ok_or("the collector did not answer")?;
    let mut response = Response::builder().status(head.status);
    if let Some(after) = head.headers.get(http::header::RETRY_AFTER) {
        response = response.header(http::header::RETRY_AFTER, after);
    }
    let mut answer = BytesMut::new();
    while answer.len() < ANSWER
        && let Some(piece) = session.read_response_body().await?
    {
        answer.extend_from_slice(&piece);
    }
    session.shutdown().await;
    Ok(response.body(answer.freeze())?)
}
