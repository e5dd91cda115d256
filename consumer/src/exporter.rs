//! Serves what a worker tells of itself over HTTP.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | all metrics, for Prometheus |
//! | `/livez` | 200 while the worker's loops turn, else 503: only a new process helps |
//! | `/readyz` | 200 while the worker can store, else 503 and which part of it cannot |
//!
//! The last two answer in one line, or in JSON when that is asked for (`Accept: application/json`). They cost
//! the servers nothing: see [`health`](crate::health).
//!
//! ```no_run
//! # async fn example(config: passerby_consumer::WorkerConfig) -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use passerby_consumer::{Health, Worker, exporter::Exporter};
//! use tokio_util::sync::CancellationToken;
//!
//! let (health, ended) = (Arc::<Health>::default(), CancellationToken::new());
//! let exporter = Exporter::bind("127.0.0.1:9464".parse()?).await?; // before the worker
//! let serving = tokio::spawn(exporter.serve(Arc::clone(&health), ended.clone()));
//! let worker = Worker::start_watched(config, health).await?;
//! worker.run(CancellationToken::new()).await?;
//! ended.cancel();
//! serving.await?;
//! # Ok(()) }
//! ```

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::interval};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    Health,
    metrics::{self, ProcessGauges},
};

/// Until then samples of histograms are kept one by one.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// An HTTP server for `/metrics`, and the recorder behind it.
pub struct Exporter {
    listener: TcpListener,
    recorder: PrometheusHandle,
}

/// An exporter that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process has a recorder already.
    #[error("install a recorder for metrics")]
    Install(#[source] Box<BuildError>),
}

impl ExporterError {
    /// What an operator can do, in a few words.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => Some(
                "another program has the port, perhaps another worker: give each worker of a host its \
                 own --listen, or port 0 for any that is free",
            ),
            _ => None,
        }
    }
}

impl Exporter {
    /// Listens, and installs the recorder of this process: what is registered from then on is exported.
    ///
    /// # Errors
    ///
    /// [`ExporterError`] when the address is taken, or another recorder is installed.
    pub async fn bind(address: SocketAddr) -> Result<Self, ExporterError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ExporterError::Bind { address, source })?;
        let recorder = builder()
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(|source| ExporterError::Install(Box::new(source)))?;
        Ok(Self { listener, recorder })
    }

    /// Answers until `ended` fires: still while the worker finishes what it has read.
    pub async fn serve(self, health: Arc<Health>, ended: CancellationToken) {
        let Self { listener, recorder } = self;
        if let Ok(address) = listener.local_addr() {
            info!(%address, "serving /metrics, /livez and /readyz");
        }
        let app = router(recorder.clone(), health);
        let serving = axum::serve(listener, app).into_future();
        tokio::select! {
            // It ends with the process, or never: errors of a connection are its client's.
            _ = serving => {}
            () = keep_up(&recorder) => {}
            () = ended.cancelled() => {}
        }
    }
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in metrics::ALL {
        if let Some(buckets) = metric.buckets() {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.into()), buckets)?;
        }
    }
    Ok(builder)
}

/// Drains the samples of histograms: the recorder keeps each until then.
async fn keep_up(recorder: &PrometheusHandle) {
    let mut tick = interval(UPKEEP_EVERY);
    loop {
        tick.tick().await;
        recorder.run_upkeep();
    }
}

fn router(recorder: PrometheusHandle, health: Arc<Health>) -> Router {
    let lives = Arc::clone(&health);
    let livez = async move |headers: HeaderMap| {
        let live = lives.check_live();
        let line = live.map_or_else(|stuck| stuck.to_string(), |()| "live".to_owned());
        let json = json!({ "live": live.is_ok(), "reason": live.err().map(|s| s.to_string()) });
        answer(&headers, live.is_ok(), &line, json)
    };
    let readyz = async move |headers: HeaderMap| {
        let readiness = health.readiness();
        let json = json!(readiness);
        answer(&headers, readiness.is_ready(), &readiness.to_string(), json)
    };
    let process = Arc::new(ProcessGauges::register());
    let metrics = async move || {
        process.measure();
        let content = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        (content, recorder.render()).into_response()
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
}

fn answer(headers: &HeaderMap, is_well: bool, line: &str, json: Value) -> Response {
    let status = if is_well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("application/json")) {
        (status, Json(json)).into_response()
    } else {
        (status, format!("{line}\n")).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{COMMIT_SECONDS, resident_memory};

    #[cfg(target_os = "linux")]
    #[test]
    fn samples_do_not_pile_up_while_nobody_scrapes() {
        // Memory is the process's, so it must do nothing else.
        let alone = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "exporter::tests::ten_million_samples_alone",
            ])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&alone.stdout);
        assert!(
            alone.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }

    #[cfg(target_os = "linux")]
    #[ignore = "started by another test, in a process of its own"]
    #[tokio::test(start_paused = true)]
    async fn ten_million_samples_alone() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        let histogram = ::metrics::with_local_recorder(&recorder, || COMMIT_SECONDS.histogram(&[]));
        let before = resident_memory().unwrap();

        let recording = async {
            for _ in 0..100 {
                for _ in 0..100_000 {
                    histogram.record(0.001);
                }
                tokio::time::sleep(UPKEEP_EVERY).await;
            }
        };
        tokio::select! {
            () = keep_up(&handle) => unreachable!("it never ends"),
            () = recording => {}
        }

        // The samples by themselves are 80 MB.
        let grown = resident_memory().unwrap() - before;
        assert!(grown < 40e6, "{grown} bytes");
        let text = handle.render();
        assert!(
            text.contains("consumer_commit_duration_seconds_count 10000000"),
            "{text}"
        );
    }
}
