//! `passerby status`: where every row is, and whether all is well.

mod page;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use passerby_consumer::{
    args::{DatabaseArgs, RedisArgs, parse_duration},
    ops::{self, Severity, StatusReport, Symptom, Target, Thresholds},
    store::{Store, StoreTimeouts},
};
use passerby_shared::redis_connection::{RedisLink, RedisTimeouts};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub(crate) use page::verdict;

use super::{Failure, UNHEALTHY, output, stop_on_signal};
use crate::render::{Paint, Terminal};

/// Longest wait for a server: who looks wants to know now, also when one of both is away.
const PATIENCE: Duration = Duration::from_secs(3);

/// Show where every row is, who works on it and how fast, and whether all is well.
///
/// Redis is asked first and Postgres then, each for one moment. Rows go on their way in between, and what
/// producers tell is up to a second old: numbers of the two differ by as much. When one server is away the
/// other half is shown.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  passerby status\n  passerby status --watch\n  passerby status --check \
                  --max-backlog 5m || page somebody\n\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 \
                  unhealthy (with --check)."
)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Show it again and again, every 2 s or as often as told: redrawn on a terminal, one below the other
    /// elsewhere.
    #[arg(
        long,
        value_name = "INTERVAL",
        num_args = 0..=1,
        default_missing_value = "2s",
        value_parser = parse_duration
    )]
    watch: Option<Duration>,
    /// Print only what is not well, and end with code 3 if anything is.
    #[arg(long, conflicts_with = "watch")]
    check: bool,
    /// Not well when the oldest entry has waited for longer to be stored.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    max_backlog: Duration,
    /// Not well when an entry was given to a worker longer ago and is not acknowledged.
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = parse_duration)]
    max_pending: Duration,
    /// Not well when Redis is full in less time, at the rates of the moment.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    min_time_to_full: Duration,
    /// Not well when more of what workers settle become dead letters, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "1")]
    max_dead_letters: f64,
    /// So many rows are lost and known to be, of an accident that is over: only more of them are not well.
    #[arg(
        long,
        env = "PASSERBY_KNOWN_LOST",
        value_name = "ROWS",
        default_value = "0"
    )]
    known_lost: u64,
    /// A group that is paused is well.
    #[arg(long)]
    allow_paused: bool,
    /// Having no worker is well, as where they run by the hour.
    #[arg(long)]
    allow_no_worker: bool,
    /// Print the whole as JSON; with --watch, one object a line.
    #[arg(long)]
    json: bool,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Printed {
    /// Whether all is well.
    is_healthy: bool,
    /// What is not as it should be, the worst first.
    symptoms: Vec<Symptom>,
    #[serde(flatten)]
    report: StatusReport,
}

impl Printed {
    fn new(report: StatusReport, args: &StatusArgs) -> Self {
        let mut symptoms = report.symptoms(&args.thresholds());
        symptoms.retain(|symptom| match symptom.code {
            "paused" => !args.allow_paused,
            "no-worker" => !args.allow_no_worker,
            _ => true,
        });
        Self {
            is_healthy: symptoms.iter().all(|s| s.severity < Severity::Unhealthy),
            symptoms,
            report,
        }
    }
}

impl StatusArgs {
    fn thresholds(&self) -> Thresholds {
        Thresholds {
            backlog: self.max_backlog,
            pending: self.max_pending,
            full_in: self.min_time_to_full,
            dead_letters_percent: self.max_dead_letters,
            known_lost: self.known_lost,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(args: StatusArgs) -> Result<ExitCode, Failure> {
    let timeouts = RedisTimeouts {
        connect: PATIENCE,
        response: PATIENCE,
    };
    let mut target = Target {
        link: RedisLink::new(args.redis.redis_url().map_err(Failure::usage)?, timeouts),
        ..super::target(&args.redis)?
    };
    let url = args.database.database_url().map_err(Failure::usage)?;
    let mut store = Store::new(
        url,
        StoreTimeouts {
            connect: PATIENCE / 2,
            silence: PATIENCE,
            operation: PATIENCE,
        },
    );
    if let Some(every) = args.watch {
        watch(&args, &mut target, &mut store, every).await;
        return Ok(ExitCode::SUCCESS);
    }
    let report = ops::status(&mut target, &mut store).await;
    let printed = Printed::new(report, &args);
    if args.json {
        output::json(&printed);
    } else if args.check {
        output::line(&page::headline(&printed, Paint::stdout()));
        for line in page::symptoms(&printed) {
            output::line(&line);
        }
    } else {
        output::raw(&page::page(&printed, Terminal::stdout(), Paint::stdout()));
    }
    Ok(if args.check && !printed.is_healthy {
        ExitCode::from(UNHEALTHY)
    } else {
        ExitCode::SUCCESS
    })
}

/// Shows it until somebody presses Ctrl-C.
async fn watch(args: &StatusArgs, target: &mut Target, store: &mut Store, every: Duration) {
    let stop = CancellationToken::new();
    stop_on_signal(&stop);
    let is_terminal = io::stdout().is_terminal();
    let mut earlier: Option<StatusReport> = None;
    let mut tick = tokio::time::interval(every.max(Duration::from_millis(100)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let mut report = tokio::select! {
            () = stop.cancelled() => return,
            report = ops::status(target, store) => report,
        };
        if let Some(earlier) = &earlier {
            report.compare(earlier);
        }
        earlier = Some(report.clone());
        let printed = Printed::new(report, args);
        if args.json {
            match serde_json::to_string(&printed) {
                Ok(line) => output::line(&line),
                Err(error) => output::warning(&format!("cannot be written as JSON: {error}")),
            }
            continue;
        }
        let page = page::page(&printed, Terminal::stdout(), Paint::stdout());
        let time = printed.report.at.format("%Y-%m-%d %H:%M:%S UTC");
        if is_terminal {
            output::raw(&redrawn(&format!("{time}, every {every:?}\n{page}")));
        } else {
            output::raw(&format!("{time}\n{page}\n"));
        }
    }
}

/// Draws over what is there, without clearing it first: that would flicker over a slow line.
fn redrawn(page: &str) -> String {
    const HOME: &str = "\u{1b}[H";
    const CLEAR_LINE: &str = "\u{1b}[K";
    const CLEAR_BELOW: &str = "\u{1b}[J";
    let lines = page.replace('\n', &format!("{CLEAR_LINE}\n"));
    format!("{HOME}{lines}{CLEAR_BELOW}")
}
