//! The commands: each parses its switches, calls the library, and renders what comes back.

pub(crate) mod claim;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod consumers;
pub(crate) mod dead_letters;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod entry;
pub(crate) mod ingest;
pub(crate) mod ledger;
pub(crate) mod migrate;
pub(crate) mod output;
pub(crate) mod partitions;
pub(crate) mod pause;
pub(crate) mod pending;
pub(crate) mod query;
pub(crate) mod replay;
pub(crate) mod sessions;
pub(crate) mod span;
pub(crate) mod spool;
pub(crate) mod status;
pub(crate) mod support_bundle;
pub(crate) mod tap;
pub(crate) mod top;
pub(crate) mod trim;

use std::{fmt, io::IsTerminal};

use passerby_consumer::{
    WorkerError,
    args::RedisArgs,
    ops::{OpsError, Target},
    store::StoreError,
};
use passerby_shared::{
    ErrorChain,
    redis_connection::{RedisLink, RedisTimeouts},
};
use tokio_util::sync::CancellationToken;

/// The exit code of a command that found something wrong, and did its own work well.
pub(crate) const UNHEALTHY: u8 = 3;

/// Why a command failed: one line that says what was tried, what came back and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    is_usage: bool,
}

impl Failure {
    /// Something was typed wrong: exit code 2.
    pub(crate) fn usage(what: impl fmt::Display) -> Self {
        Self {
            text: what.to_string(),
            is_usage: true,
        }
    }

    /// Something did not work: exit code 1.
    pub(crate) fn new(what: impl fmt::Display) -> Self {
        Self {
            text: what.to_string(),
            is_usage: false,
        }
    }

    fn with_advice(error: &dyn std::error::Error, advice: Option<String>) -> Self {
        let advice = advice
            .map(|advice| format!("; {advice}"))
            .unwrap_or_default();
        Self::new(format_args!("{}{advice}", ErrorChain(error)))
    }

    pub(crate) fn store(error: StoreError) -> Self {
        Self::with_advice(&error, error.advice())
    }

    pub(crate) fn ops(error: OpsError) -> Self {
        Self::with_advice(&error, error.advice())
    }

    pub(crate) fn worker(error: WorkerError) -> Self {
        Self::with_advice(&error, error.advice())
    }

    /// A chain of causes, of which one may know what to do.
    pub(crate) fn from_chain(error: anyhow::Error) -> Self {
        let advice = error.chain().find_map(|cause| {
            cause
                .downcast_ref::<StoreError>()
                .and_then(StoreError::advice)
        });
        let source: &dyn std::error::Error = error.as_ref();
        Self::with_advice(source, advice)
    }

    /// Whether it is a matter of wrong usage.
    pub(crate) fn is_usage(&self) -> bool {
        self.is_usage
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

/// The streams and the group that the switches name.
pub(crate) fn target(args: &RedisArgs) -> Result<Target, Failure> {
    Ok(Target {
        link: RedisLink::new(
            args.redis_url().map_err(Failure::usage)?,
            RedisTimeouts::default(),
        ),
        key_prefix: args.key_prefix.clone(),
        streams: args.key_prefix.streams(args.shards),
        group: args.group.clone(),
    })
}

/// Asks before something is changed; on no terminal only `--yes` says yes.
pub(crate) fn confirm(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format_args!(
            "not confirmed: add --yes to {what}"
        )));
    }
    output::question(&format!("{what}? [y/N] "));
    let mut answer = String::new();
    match std::io::stdin().read_line(&mut answer) {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::new("not confirmed: nothing was changed")),
    }
}

/// Who types the command, for what is kept of it.
pub(crate) fn operator() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    format!("{user}@{host}")
}

/// Fires `stop` at the first Ctrl-C; the second one ends the process as usual.
pub(crate) fn stop_on_signal(stop: &CancellationToken) {
    let stop = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        }
    });
}
