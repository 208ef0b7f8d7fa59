//! How do spans reach the collector?
//!
//! They gather for a moment and go together. What the collector does not take within the exporter's time is given up and
//! counted; it is told of once, not for every batch.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use opentelemetry_http::HttpClient;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;

use super::{Config, Traces};
use crate::telemetry::Metrics;

/// How many spans may wait: some megabytes at most.
const QUEUE: usize = 4096;
/// How many go at once.
const BATCH: usize = 512;
/// How long spans gather.
const GATHER: Duration = Duration::from_secs(1);

/// Spans cannot be sent in the way that the configuration or the environment says.
#[derive(Debug, thiserror::Error)]
#[error("log.traces.endpoint: {0}")]
pub struct Unusable(#[from] ExporterBuildError);

/// The way to the collector. Somebody must [`run`](Export::run) it.
#[derive(Debug)]
pub struct Export {
    spans: mpsc::Receiver<SpanData>,
    exporter: SpanExporter,
    metrics: Metrics,
    /// Whether the last batch was lost.
    failing: bool,
}

/// Sends spans to the collector of the configuration, if it names one, through this client.
///
/// # Errors
/// The environment asks for what we do not do (`OTEL_EXPORTER_OTLP_COMPRESSION`).
pub fn open(
    config: &Config,
    client: impl HttpClient + 'static,
    metrics: Metrics,
) -> Result<(Traces, Option<Export>), Unusable> {
    let Some(endpoint) = &config.endpoint else { return Ok((Traces::off(), None)) };
    let exporter = SpanExporter::builder().with_http().with_http_client(client);
    let mut exporter = exporter.with_protocol(Protocol::HttpBinary).with_endpoint(endpoint).build()?;
    exporter.set_resource(&ourselves());
    let (sender, spans) = mpsc::channel(QUEUE);
    let traces = Traces::to(sender, config.sample, metrics.clone());
    Ok((traces, Some(Export { spans, exporter, metrics, failing: false })))
}

/// Who says so: we, and what the environment adds (`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`).
fn ourselves() -> Resource {
    let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty());
    let builder = Resource::builder();
    let builder = if named { builder } else { builder.with_service_name("pierhead") };
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    builder.with_attribute(version).build()
}

impl Export {
    /// Sends spans until it is told to stop, and then those that wait.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut batch = Vec::new();
        loop {
            let stopping = tokio::select! {
                taken = self.spans.recv_many(&mut batch, BATCH) => taken == 0,
                () = &mut stop => true,
            };
            let stopping = stopping
                || tokio::select! {
                    () = tokio::time::sleep(GATHER) => false,
                    () = &mut stop => true,
                };
            if stopping {
                break;
            }
            while batch.len() < BATCH
                && let Ok(span) = self.spans.try_recv()
            {
                batch.push(span);
            }
            self.send(std::mem::take(&mut batch)).await;
        }
        self.spans.close();
        loop {
            let room = BATCH.saturating_sub(batch.len());
            self.spans.recv_many(&mut batch, room).await; // after the close it gives what is left
            if batch.is_empty() {
                return;
            }
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        match self.exporter.export(batch).await {
            Ok(()) => {
                if std::mem::replace(&mut self.failing, false) {
                    tracing::info!("the collector takes spans again");
                }
                self.metrics.spans_sent(count);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "the collector does not take spans (log.traces.endpoint): they are dropped until it does");
                }
                self.metrics.spans_dropped(count);
            }
        }
    }
}
