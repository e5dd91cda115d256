//! The command line of `passerby-worker`.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use clap::{Parser, ValueEnum};

use crate::args::{WorkerArgs, parse_duration};

/// Stores detections from Redis Streams in Postgres, each exactly once.
///
/// Any number of workers may share the streams. SIGTERM and SIGINT make a worker finish what it has
/// read; a second one stops it at once, and another worker takes over.
#[derive(Debug, Parser)]
#[command(
    name = "passerby-worker",
    version,
    after_help = "Example:\n  passerby-worker --redis-url redis://localhost --database-url \
                  postgresql://localhost/passerby\n\nExit codes: 0 done, 1 failed, 2 wrong usage, \
                  3 stopped as most of what is read cannot be stored."
)]
pub struct WorkerCommandLine {
    /// What it is to do.
    #[command(flatten)]
    pub worker: WorkerArgs,
    /// Serve /metrics, /livez and /readyz here over HTTP, or `nowhere`; port 0 takes any that is free, and
    /// the log says which [default: 127.0.0.1:9464, unless another worker of this host has it].
    ///
    /// Whoever reaches the address can read what is served: it holds no row and no password, but nobody
    /// is asked for one either.
    #[arg(long, env = "PASSERBY_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<Listen>,
    /// How often to measure what all workers see alike, as the backlog, for /metrics and /readyz.
    #[arg(long, env = "PASSERBY_OBSERVE_EVERY", value_name = "TIME", default_value = "5s",
          value_parser = parse_observe_every)]
    pub observe_every: Duration,
    /// How log lines look.
    #[arg(long, env = "PASSERBY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or filters as `passerby_consumer=debug`.
    #[arg(
        long,
        env = "PASSERBY_LOG",
        value_name = "FILTER",
        default_value = "info,refinery_core=warn,tokio_postgres=warn"
    )]
    pub log: String,
    /// Send a span of each batch to an OpenTelemetry collector, as http://127.0.0.1:4318 [default: to none].
    #[cfg(feature = "otel")]
    #[arg(long, env = "PASSERBY_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Settings in a TOML file; empty for none [default: /etc/passerby/passerby.toml, if it is there].
    #[arg(long, env = "PASSERBY_CONFIG", value_name = "FILE")]
    pub config: Option<OsString>,
    /// Ask the worker that listens at --listen, which must be given, whether it is ready, and tell by the exit
    /// code: 0 when it is, else 1. For the health check of a container, which has no other program to ask with.
    #[arg(long)]
    pub check_ready: bool,
    /// Print the settings that hold, checked, and where each comes from; then stop.
    #[arg(long)]
    pub print_config: bool,
}

/// More often would be work for the servers and news for nobody.
fn parse_observe_every(text: &str) -> Result<Duration, String> {
    let every = parse_duration(text)?;
    if every < Duration::from_millis(100) {
        return Err("at least 100ms".to_owned());
    }
    Ok(every)
}

/// Where a worker serves what it tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// It does not.
    Nowhere,
    /// Here.
    At(SocketAddr),
}

/// Where a worker listens when nobody says.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "nowhere" {
            return Ok(Self::Nowhere);
        }
        text.parse().map(Self::At).map_err(|_| {
            "an IP address and a port, as 127.0.0.1:9464 or [::1]:9464, or `nowhere`".to_owned()
        })
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}
