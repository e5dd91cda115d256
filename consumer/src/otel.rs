//! Spans of batches for an OpenTelemetry collector, linked to the traces that their entries belong to.
//!
//! A batch has entries of many traces, and is a part of none of them: its span is linked to each, up to 128.
//! Spans go out by OTLP over plain HTTP, from a thread of their own; a collector that is away costs spans and
//! nothing else. A collector behind TLS is reached through one on this machine.

use std::{
    future::Future,
    io::{self, Read, Write},
    net::TcpStream,
    pin::Pin,
    time::Duration,
};

use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState, TracerProvider as _},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use passerby_shared::Traceparent;
use tracing::{Span, Subscriber, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::batch::Batch;

/// The target of spans that go to the collector, and of no others.
const TARGET: &str = "passerby_consumer::otel";
/// A collector that has not taken spans within this time does not get them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where spans go.
#[derive(Debug, Clone)]
pub struct Spans(SdkTracerProvider);

impl Spans {
    /// Sends spans to a collector: `http://127.0.0.1:4318`, say.
    ///
    /// # Errors
    ///
    /// What is wrong with the address.
    pub fn to_collector(url: &str) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(PlainHttp)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", url.trim_end_matches('/')))
            .with_timeout(PATIENCE)
            .build()?;
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", "passerby-worker"),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_batch_exporter(exporter)
            .build();
        Ok(Self(provider))
    }

    /// Takes spans of batches from the log's stream of spans.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let scope = InstrumentationScope::builder("passerby").build();
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer_with_scope(scope))
            .with_filter(filter_fn(|metadata| metadata.target() == TARGET))
    }

    /// Sends what has not been sent, for a moment at most.
    pub fn close(&self) {
        // Whoever ends waits for nobody's traces.
        drop(self.0.shutdown_with_timeout(PATIENCE));
    }
}

/// The span of a batch's way through a committer.
pub(crate) fn batch_span(batch: &Batch) -> Span {
    let span = info_span!(
        target: TARGET,
        "commit",
        n_entries = batch.entries().len(),
        n_rows = batch.n_detections(),
        first_entry_id = batch.first_entry_id().map(tracing::field::display),
    );
    for trace in &batch.traces {
        span.add_link(context_of(trace));
    }
    span
}

fn context_of(trace: &Traceparent) -> SpanContext {
    let flags = if trace.is_sampled() {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::default()
    };
    SpanContext::new(
        TraceId::from_bytes(trace.trace_id()),
        SpanId::from_bytes(trace.span_id()),
        flags,
        true,
        TraceState::default(),
    )
}

/// HTTP/1.0 without TLS, which is all that a collector on this machine needs.
#[derive(Debug)]
struct PlainHttp;

impl HttpClient for PlainHttp {
    fn send_bytes<'this, 'future>(
        &'this self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'future>>
    where
        'this: 'future,
        Self: 'future,
    {
        // On the exporter's own thread, where waiting holds up nobody.
        Box::pin(async move { post(&request).map_err(HttpError::from) })
    }
}

fn post(request: &Request<Bytes>) -> io::Result<Response<Bytes>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let uri = request.uri();
    if uri.scheme_str() != Some("http") {
        return Err(bad("only http:// is spoken to a collector"));
    }
    let host = uri.host().ok_or_else(|| bad("the address has no host"))?;
    let mut stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80)))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = format!(
        "POST {} HTTP/1.0\r\nhost: {host}\r\ncontent-length: {}\r\n",
        uri.path(),
        request.body().len()
    );
    for (name, value) in request.headers() {
        if let Ok(value) = value.to_str() {
            head += &format!("{name}: {value}\r\n");
        }
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    stream.write_all(request.body())?;
    let mut reply = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut reply)?;
    let text = String::from_utf8_lossy(&reply);
    let status = text
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok());
    let status: u16 = status.ok_or_else(|| bad("the collector does not speak HTTP"))?;
    Response::builder()
        .status(status)
        .body(Bytes::new())
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use passerby_shared::IdempotencyKey;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::batch::BatchBuilder;

    /// A collector that takes one request, and returns what was posted where.
    fn collector() -> (String, std::thread::JoinHandle<(String, Vec<u8>)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let receiving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut read = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                let head_end = read.windows(4).position(|window| window == b"\r\n\r\n");
                if let Some(at) = head_end {
                    let head = String::from_utf8_lossy(&read[..at]).to_lowercase();
                    let length = head.split("content-length: ").nth(1).unwrap();
                    let length: usize = length.split_whitespace().next().unwrap().parse().unwrap();
                    if read.len() >= at + 4 + length {
                        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
                        return (head, read[at + 4..].to_vec());
                    }
                }
                let n_bytes = stream.read(&mut buffer).unwrap();
                read.extend_from_slice(&buffer[..n_bytes]);
            }
        });
        (url, receiving)
    }

    fn has(body: &[u8], bytes: &[u8]) -> bool {
        body.windows(bytes.len()).any(|window| window == bytes)
    }

    #[test]
    fn a_batch_is_a_span_that_is_linked_to_the_traces_of_its_entries() {
        let (url, receiving) = collector();
        let spans = Spans::to_collector(&url).unwrap();
        let traces = [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        ];
        let mut builder = BatchBuilder::default();
        for trace in traces {
            builder.belongs_to(trace.as_bytes());
            builder.push_entry(IdempotencyKey::generate(), &[]);
        }
        let batch = builder.build();

        let subscriber = tracing_subscriber::registry().with(spans.layer());
        tracing::subscriber::with_default(subscriber, || {
            // What else is going on is for the log alone.
            let _other = info_span!("worker").entered();
            drop(batch_span(&batch));
        });
        spans.close();

        let (head, body) = receiving.join().unwrap();
        assert!(head.starts_with("post /v1/traces "), "{head}");
        assert!(
            head.contains("content-type: application/x-protobuf"),
            "{head}"
        );
        for text in ["passerby-worker", "commit", "n_entries"] {
            assert!(has(&body, text.as_bytes()), "{text}");
        }
        for trace in traces {
            let trace: Traceparent = trace.parse().unwrap();
            assert!(has(&body, &trace.trace_id()), "{trace}");
            assert!(has(&body, &trace.span_id()), "{trace}");
        }
        // A span's name is its field 5.
        assert!(has(&body, b"\x2a\x06commit"));
        assert!(
            !has(&body, b"\x2a\x06worker"),
            "spans of the log are not sent"
        );
    }

    #[test]
    fn a_collector_that_is_away_costs_nothing_but_spans() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let spans = Spans::to_collector(&url).unwrap();
        let subscriber = tracing_subscriber::registry().with(spans.layer());
        tracing::subscriber::with_default(subscriber, || {
            drop(batch_span(&BatchBuilder::default().build()));
        });
        spans.close();
    }
}
