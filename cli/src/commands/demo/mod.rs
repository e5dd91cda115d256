//! `passerby demo`: the main job on real input, with private servers, in one terminal.

mod camera;
pub(crate) mod report;

use std::{process::ExitCode, time::Duration};

use chrono::{TimeDelta, Utc};
use clap::Args;
use passerby_consumer::{
    Worker, WorkerConfig,
    store::{DatabaseUrl, Store},
};
use passerby_producer::{Producer, ProducerConfig};
use passerby_servers::{
    Binaries, PostgresOptions, PostgresServer, Progress, RedisOptions, RedisServer,
};
use passerby_shared::{ErrorChain, redis_connection::RedisUrl};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{
    camera::Recording,
    report::{CameraBooks, Report},
};
use super::{Failure, output, stop_on_signal};
use crate::{ingest::Speed, render::ProgressBars};

/// How long the worker may take for the last rows.
const PATIENCE: Duration = Duration::from_secs(60);

/// Watch a recorded street become rows, tracks and people counts in Postgres.
///
/// Starts a private Redis and a private Postgres, plays the detections of two cameras into them
/// through producers, a stream and a worker, and shows what is stored. Everything is gone afterwards.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  passerby demo --speed 1 --keep")]
pub(crate) struct DemoArgs {
    /// How fast to play: 1 is as recorded (80 s), 10 ten times as fast, 0 as fast as possible.
    #[arg(long, value_name = "FACTOR", default_value = "10")]
    speed: Speed,
    /// Keep the servers and the worker running afterwards, to look around, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: DemoArgs) -> Result<ExitCode, Failure> {
    let stop = CancellationToken::new();
    stop_on_signal(&stop);
    let servers = Servers::start(args.json).await?;
    let config = WorkerConfig::new(servers.redis_url()?, servers.database_url()?);
    let mut store = Store::connect(&config.database_url)
        .await
        .map_err(Failure::store)?;
    let worker = Worker::start(config.clone())
        .await
        .map_err(Failure::worker)?;
    let stats = worker.stats();
    let worker_stop = CancellationToken::new();
    let working = tokio::spawn(worker.run(worker_stop.clone()));
    if !args.json {
        output::line(&format!(
            "Running on {} and {}.\n",
            short(servers.redis.version_line()),
            short(servers.postgres.version_line())
        ));
    }

    let recordings = Recording::all(Utc::now() - TimeDelta::seconds(80))?;
    let total: u64 = recordings
        .iter()
        .map(|recording| recording.rows.len() as u64)
        .sum();
    let bars = if args.json {
        ProgressBars::hidden()
    } else {
        ProgressBars::stderr()
    };
    let mut playing = Vec::new();
    for recording in recordings {
        let producer = Producer::start(ProducerConfig::new(servers.redis_url()?))
            .map_err(|error| Failure::new(ErrorChain(&error)))?;
        let bar = bars.add(recording.camera_id, recording.rows.len() as u64);
        playing.push(tokio::spawn(camera::play(
            recording,
            producer,
            args.speed,
            bar,
            stop.clone(),
        )));
    }
    let stored_bar = bars.add("stored", total);
    let watching = async {
        loop {
            let done = stats.report().detections;
            stored_bar.update(done, done);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let cameras = tokio::select! {
        cameras = join(playing) => cameras?,
        () = watching => unreachable!("the watcher does not end"),
    };

    settle(&cameras, &mut store).await?;
    let report = Report::collect(&mut store, &cameras, stats.report()).await?;
    stored_bar.update(report.stored, report.stored);
    stored_bar.finish();
    bars.clear();
    if args.json {
        output::json(&report);
    } else {
        report.print(&mut store).await?;
    }
    let interrupted = stop.is_cancelled();
    if args.keep && !interrupted {
        print_keep(&servers);
        stop.cancelled().await;
        output::line("\nStopping; the servers and their data go with this command.");
    } else if !args.json {
        output::line("\nThe servers are gone with this command; `cargo demo --keep` keeps them.");
    }
    worker_stop.cancel();
    match working.await {
        Ok(done) => done.map_err(Failure::worker)?,
        Err(error) => return Err(Failure::new(format_args!("the worker panicked: {error}"))),
    };
    Ok(if report.is_balanced() && !interrupted {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// `Redis server v=7.0.15` of a line that goes on with checksums and builds.
fn short(version_line: &str) -> &str {
    let end = version_line
        .find(" sha=")
        .or_else(|| version_line.find(" (Debian"));
    &version_line[..end.unwrap_or(version_line.len())]
}

async fn join(
    playing: Vec<tokio::task::JoinHandle<Result<CameraBooks, Failure>>>,
) -> Result<Vec<CameraBooks>, Failure> {
    let mut cameras = Vec::new();
    for camera in playing {
        match camera.await {
            Ok(books) => cameras.push(books?),
            Err(error) => return Err(Failure::new(format_args!("a camera panicked: {error}"))),
        }
    }
    Ok(cameras)
}

/// Waits until everything that was accepted is accounted for in Postgres, and closes the sessions.
async fn settle(cameras: &[CameraBooks], store: &mut Store) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let n_settled = report::accounted(store, cameras).await?;
        let n_published: u64 = cameras.iter().map(|camera| camera.published).sum();
        if n_settled >= n_published || Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    loop {
        store
            .summarize_ended_sessions(Duration::ZERO)
            .await
            .map_err(Failure::store)?;
        let mut n_summaries = 0;
        for camera in cameras {
            let session = store
                .session(&camera.session_id)
                .await
                .map_err(Failure::store)?;
            n_summaries += usize::from(session.is_some_and(|session| session.summary.is_some()));
        }
        if n_summaries == cameras.len() || Instant::now() >= deadline {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The private servers; dropping them stops them.
struct Servers {
    redis: RedisServer,
    postgres: PostgresServer,
}

impl Servers {
    async fn start(quiet: bool) -> Result<Self, Failure> {
        let started = tokio::task::spawn_blocking(move || {
            let on_progress = Progress::new(move |text: &str| {
                if !quiet {
                    output::warning(text);
                }
            });
            let binaries = Binaries {
                on_progress,
                ..Binaries::default()
            };
            let redis = RedisServer::start(RedisOptions {
                binaries: binaries.clone(),
                ..RedisOptions::default()
            })?;
            let postgres = PostgresServer::start(PostgresOptions {
                binaries,
                ..PostgresOptions::default()
            })?;
            Ok::<_, passerby_servers::ServerError>(Self { redis, postgres })
        });
        match started.await {
            Ok(servers) => servers.map_err(|error| Failure::new(ErrorChain(&error))),
            Err(error) => Err(Failure::new(format_args!(
                "starting the servers panicked: {error}"
            ))),
        }
    }

    fn redis_url(&self) -> Result<RedisUrl, Failure> {
        self.redis.url().parse().map_err(Failure::new)
    }

    fn database_url(&self) -> Result<DatabaseUrl, Failure> {
        self.postgres.url("postgres").parse().map_err(Failure::new)
    }
}

fn print_keep(servers: &Servers) {
    let database_url = servers.postgres.url("postgres");
    let passerby = std::env::current_exe()
        .map_or_else(|_| "passerby".to_owned(), |path| path.display().to_string());
    let psql = servers
        .postgres
        .psql_path()
        .map_or_else(|| "psql".to_owned(), |path| path.display().to_string());
    output::line(&format!(
        "\nThe servers and a worker go on until Ctrl-C. In another terminal:\n\n  \
         export PASSERBY_REDIS_URL={}\n  export PASSERBY_DATABASE_URL={database_url}\n  \
         alias passerby={passerby}\n\n  \
         passerby query demographics --per minute\n  \
         passerby query tracks --camera-id campus\n  \
         passerby query detections --camera-id street --limit 10\n  \
         passerby pending\n  \
         {psql} \"$PASSERBY_DATABASE_URL\" -c 'SELECT * FROM demographics_by_session'",
        servers.redis.url(),
    ));
}
