//! `passerby-worker`: drains Redis Streams into Postgres until it is told to stop.

use std::{process::ExitCode, sync::Arc, time::Duration};

#[cfg(feature = "otel")]
use passerby_consumer::otel;
use passerby_consumer::{
    Health, Worker, WorkerConfig, WorkerError,
    args::InvalidArgs,
    command_line::{DEFAULT_LISTEN, Listen, WorkerCommandLine},
    config_file::{self, CommandLine, CommandLineError, Program},
    exporter::{Exporter, ExporterError},
    logs, probe, systemd,
};
use passerby_shared::ErrorChain;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

fn main() -> ExitCode {
    let line = match config_file::read::<WorkerCommandLine>(Program::Worker, &[]) {
        Ok(line) => line,
        Err(CommandLineError::Usage(error)) => error.exit(),
        Err(CommandLineError::File(error)) => return usage(&ErrorChain(&error).to_string()),
    };
    let cli = &line.args;
    #[cfg(feature = "otel")]
    let spans = match cli.otlp_endpoint.as_deref().map(otel::Spans::to_collector) {
        Some(Ok(spans)) => Some(spans),
        Some(Err(error)) => return usage(&format!("--otlp-endpoint: {}", ErrorChain(&error))),
        None => None,
    };
    #[cfg(feature = "otel")]
    let logging = match &spans {
        Some(spans) => logs::init_with_spans(&cli.log, cli.log_format, spans),
        None => logs::init(&cli.log, cli.log_format),
    };
    #[cfg(not(feature = "otel"))]
    let logging = logs::init(&cli.log, cli.log_format);
    let repetitions = match logging {
        Ok(repetitions) => repetitions,
        Err(error) => return usage(&format!("--log: {error}")),
    };
    if cli.check_ready {
        return check_ready(cli.listen);
    }
    let config = match WorkerConfig::try_from(cli.worker.clone()) {
        Ok(config) => config,
        Err(InvalidArgs::Url(error)) => return usage(&error.to_string()),
        Err(InvalidArgs::Config(error)) => return usage(&error.to_string()),
    };
    if let Some(ignored) = line.file.ignored() {
        warn!("{ignored}");
    }
    if cli.print_config {
        print_config(&line);
        return ExitCode::SUCCESS;
    }
    // One thread: it waits for two servers and computes half a microsecond a row, for which a second one is no help. But
    // waking one costs 0.1 ms on many a virtual machine, and Postgres would wait for that several times a
    // batch.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("start the runtime: {error}")),
    };
    let ended = runtime.block_on(async {
        tokio::spawn(repetitions.clone().keep_telling());
        run(config, cli.listen, cli.observe_every).await
    });
    repetitions.tell_counted(true);
    #[cfg(feature = "otel")]
    if let Some(spans) = spans {
        spans.close();
    }
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let advice = match failure.advice() {
                Some(advice) => format!("; {advice}"),
                None => String::new(),
            };
            let what = match &failure {
                Failure::Worker(error) => error.without_values(),
                Failure::Exporter(error) => ErrorChain(error).to_string(),
            };
            let code = failure.exit_code();
            fail(&format!("{what}{advice}"));
            code
        }
    }
}

/// What a container's health check runs.
fn check_ready(listen: Option<Listen>) -> ExitCode {
    // Whoever has the default port may be another worker.
    let Some(Listen::At(address)) = listen else {
        return usage("--check-ready: no --listen says where the worker is");
    };
    match probe::ready(address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&ErrorChain(&error).to_string()),
    }
}

/// Why the program ends before it is told to.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error(transparent)]
    Exporter(#[from] ExporterError),
}

impl Failure {
    /// A supervisor is not to start a worker again that would dead-letter most of what it reads: each time it
    /// may dead-letter some before it stops.
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Worker(WorkerError::MostlyBad(_)) => ExitCode::from(3),
            Self::Worker(_) | Self::Exporter(_) => ExitCode::from(1),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Worker(error) => error.advice(),
            Self::Exporter(error) => error.advice().map(str::to_owned),
        }
    }
}

async fn run(
    mut config: WorkerConfig,
    listen: Option<Listen>,
    observe_every: Duration,
) -> Result<(), Failure> {
    let health = Arc::<Health>::default();
    let ended = CancellationToken::new();
    let mut watchers = JoinSet::new();
    // Before the worker: it registers its metrics when it is started.
    if let Some(exporter) = bind(listen).await? {
        watchers.spawn(exporter.serve(Arc::clone(&health), ended.clone()));
    }
    if systemd::is_listening() {
        watchers.spawn(systemd::notify(Arc::clone(&health), ended.clone()));
    }
    let is_watched = !watchers.is_empty();
    config.observe = is_watched.then_some(observe_every);
    let worked = work(config, health).await;
    ended.cancel();
    while watchers.join_next().await.is_some() {}
    Ok(worked?)
}

/// `None` where nothing is to be served, or where nobody asked for it and the port is another's.
async fn bind(listen: Option<Listen>) -> Result<Option<Exporter>, ExporterError> {
    let address = match listen {
        Some(Listen::Nowhere) => return Ok(None),
        Some(Listen::At(address)) => return Exporter::bind(address).await.map(Some),
        None => DEFAULT_LISTEN,
    };
    match Exporter::bind(address).await {
        Ok(exporter) => Ok(Some(exporter)),
        // Nobody has asked for it: no reason not to work.
        Err(ExporterError::Bind { source, .. }) => {
            warn!(
                %address,
                error = %source,
                "not serving /metrics, /livez and /readyz: --listen gives this worker an address of its own"
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn work(config: WorkerConfig, health: Arc<Health>) -> Result<(), WorkerError> {
    let stop = CancellationToken::new();
    let signals = tokio::spawn(watch_signals(stop.clone()));
    let worker = tokio::select! {
        worker = Worker::start_watched(config, health) => worker?,
        () = stop.cancelled() => return Ok(()),
    };
    worker.run(stop).await?;
    signals.abort();
    Ok(())
}

/// The first signal stops reading; the second one ends the process.
async fn watch_signals(stop: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return error!("signals cannot be watched: only SIGKILL will end this worker");
    };
    for n in 1_u8.. {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if n > 1 {
            warn!("second signal: stopping at once; entries that were read stay pending");
            std::process::exit(1);
        }
        stop.cancel();
    }
}

/// The settings that hold, as a file that says the same.
#[expect(clippy::print_stdout, reason = "it was asked for")]
fn print_config(line: &CommandLine<WorkerCommandLine>) {
    for shown in config_file::show(
        Program::Worker,
        &line.command,
        &line.file,
        Some(&line.matches),
    ) {
        println!("{}", shown.line());
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the one line a failed start is explained in"
)]
fn fail(what: &str) -> ExitCode {
    eprintln!("error: {what}");
    ExitCode::from(1)
}

#[expect(
    clippy::print_stderr,
    reason = "wrong usage is answered where it is typed"
)]
fn usage(what: &str) -> ExitCode {
    eprintln!("error: {what}\n\nFor more information, try '--help'.");
    ExitCode::from(2)
}
