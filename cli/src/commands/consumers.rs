//! `passerby consumers`: who reads in the group, and taking out who is gone.

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use passerby_consumer::{
    ConsumerName,
    args::{DatabaseArgs, RedisArgs, parse_duration},
    ops::{self, ClaimFilter, ClaimReport, ConsumerStatus, OpsError, Retired, Target},
    store::Store,
};
use serde::Serialize;

use super::{Failure, confirm, output, target};
use crate::{
    render::{Cell, Column, Output, grouped},
    visible::visible,
};

/// Look at the consumers of the group, and take out those that are gone.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  passerby consumers list")]
pub(crate) struct ConsumersArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the consumers: what each holds, when it was last heard of, where it runs.
    #[command(after_help = "Example:\n  passerby consumers list")]
    List(ListArgs),
    /// Take a consumer out of the group that is gone for good.
    ///
    /// Workers do so by themselves with one that holds nothing and was not heard of for an hour. One that shows
    /// signs of life is never taken out. What it holds is never thrown away: say with --store-now or --claim-to
    /// what is to become of it.
    #[command(
        after_help = "Examples:\n  passerby consumers retire gate-host-1f2e3d4c\n  passerby consumers retire gate-host-1f2e3d4c --store-now"
    )]
    Retire(RetireArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// Take one for gone that was not heard of for so long, as `passerby status` does.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    gone_after: Duration,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct RetireArgs {
    /// The consumer.
    #[arg(value_name = "NAME")]
    consumer: String,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Store what it holds first, at once.
    #[arg(long, conflicts_with = "claim_to")]
    store_now: bool,
    /// Hand what it holds to this consumer first.
    #[arg(long, value_name = "NAME")]
    claim_to: Option<ConsumerName>,
    /// Take it for gone when it was not heard of for so long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    gone_after: Duration,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: ConsumersArgs) -> Result<ExitCode, Failure> {
    match args.what {
        What::List(args) => list(&args).await,
        What::Retire(args) => retire(&args).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

const COLUMNS: &[Column] = &[
    Column::text("consumer"),
    Column::text("alive"),
    Column::text("state"),
    Column::number("pending"),
    Column::number("oldest_ms"),
    Column::number("heard_of_ms"),
    Column::text("host"),
    Column::number("pid"),
];

async fn list(args: &ListArgs) -> Result<(), Failure> {
    let mut target = target(&args.redis)?;
    let report = ops::consumers(&mut target, args.gone_after)
        .await
        .map_err(Failure::ops)?;
    if args.json {
        output::json(&report);
    } else if report.consumers.is_empty() {
        output::line(&format!(
            "the group {} has no consumer: no worker reads",
            visible(&report.group)
        ));
    } else {
        output::table(COLUMNS, Output::Table, report.consumers.iter().map(cells));
    }
    Ok(())
}

fn cells(consumer: &ConsumerStatus) -> Vec<Cell> {
    let span = |ms: Option<u64>| ms.map(Duration::from_millis).into();
    let shown = consumer.shown.as_ref();
    // What one was at that is gone is no news, but that it gave up is.
    let state = shown.map(|shown| match shown.state {
        "failed" => shown.state,
        _ if consumer.sign_of_life.is_none() => "silent",
        state => state,
    });
    vec![
        Cell::Text(consumer.consumer.clone()),
        Cell::Flag(consumer.sign_of_life.is_some()),
        state.into(),
        Cell::Count(i64::try_from(consumer.pending).unwrap_or(i64::MAX)),
        span(consumer.oldest_entry_id.map(|_| consumer.oldest_age_ms)),
        span(least(consumer.idle_ms, shown.map(|shown| shown.seen_ms))),
        shown.map(|shown| shown.host.clone()).into(),
        shown.map_or(Cell::Absent, |shown| Cell::Id(i64::from(shown.pid))),
    ]
}

fn least(one: Option<u64>, two: Option<u64>) -> Option<u64> {
    one.into_iter().chain(two).min()
}

/// What was done with a consumer.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct RetireReport {
    /// The consumer.
    consumer: String,
    /// Entries it held.
    held: u64,
    /// What became of these, where it was said what is to become of them.
    moved: Option<ClaimReport>,
    /// Whether it is out of the group; `None` when somebody only asks.
    retired: Option<Retired>,
}

async fn retire(args: &RetireArgs) -> Result<(), Failure> {
    let mut target = target(&args.redis)?;
    let report = ops::consumers(&mut target, args.gone_after)
        .await
        .map_err(Failure::ops)?;
    let name = visible(&args.consumer);
    let Some(found) = report
        .consumers
        .iter()
        .find(|one| one.consumer == args.consumer)
    else {
        return Err(Failure::new(format_args!(
            "the group {} has no consumer {name}: `passerby consumers list` shows whom it has",
            visible(&report.group)
        )));
    };
    if let Some(sign) = &found.sign_of_life {
        return Err(alive(&name, sign));
    }
    if args
        .claim_to
        .as_ref()
        .is_some_and(|to| to.as_str() == args.consumer)
    {
        return Err(Failure::usage(
            "--claim-to names the consumer that is to go",
        ));
    }
    let moves = args.store_now || args.claim_to.is_some();
    if found.pending > 0 && !moves {
        return Err(holds(&name, found.pending));
    }
    let what = in_words(&name, found.pending, args);
    let mut done = RetireReport {
        consumer: args.consumer.clone(),
        held: found.pending,
        moved: None,
        retired: None,
    };
    if args.dry_run {
        if args.json {
            output::json(&done);
        } else {
            output::line(&format!("would {what}"));
        }
        return Ok(());
    }
    confirm(args.yes, &what)?;
    if found.pending > 0 {
        done.moved = Some(empty(&mut target, args).await?);
    }
    let retired = ops::retire(&mut target, &args.consumer, args.gone_after)
        .await
        .map_err(Failure::ops)?;
    match &retired {
        Retired::Alive { sign } => return Err(alive(&name, sign)),
        Retired::Holds { n_entries } => return Err(holds(&name, *n_entries)),
        Retired::Done | Retired::Unknown => {}
    }
    done.retired = Some(retired);
    if args.json {
        output::json(&done);
        return Ok(());
    }
    if let Some(moved) = &done.moved {
        output::line(&match &args.claim_to {
            Some(to) => format!("{} entries handed to {to}", grouped(moved.claimed as u64)),
            None => format!(
                "{} entries claimed: {} committed with {} rows and {} dead letters, {} stored before",
                grouped(moved.claimed as u64),
                grouped(moved.stored as u64),
                grouped(moved.detections),
                grouped(moved.dead_letters as u64),
                grouped(moved.duplicates as u64),
            ),
        });
    }
    output::line(&format!("{name} is out of the group"));
    Ok(())
}

fn alive(name: &str, sign: &str) -> Failure {
    Failure::new(format_args!(
        "{name} shows signs of life: {}; stop it first",
        visible(sign)
    ))
}

fn holds(name: &str, n_entries: u64) -> Failure {
    Failure::new(format_args!(
        "{name} holds {} entries, which would be thrown away: add --store-now or --claim-to NAME",
        grouped(n_entries)
    ))
}

fn in_words(name: &str, pending: u64, args: &RetireArgs) -> String {
    let take_out = format!("take {name} out of the group");
    if pending == 0 {
        return take_out;
    }
    let n = grouped(pending);
    match &args.claim_to {
        Some(to) => format!("hand the {n} entries of {name} to {to} and {take_out}"),
        None => format!("store the {n} entries that {name} holds and {take_out}"),
    }
}

/// Takes from the consumer whatever it holds.
async fn empty(target: &mut Target, args: &RetireArgs) -> Result<ClaimReport, Failure> {
    let filter = ClaimFilter {
        consumer: Some(args.consumer.clone()),
        limit: usize::MAX,
        ..ClaimFilter::default()
    };
    let moved: Result<ClaimReport, OpsError> = match &args.claim_to {
        Some(to) => ops::hand_over(target, to, &filter).await,
        None => {
            let url = args.database.database_url().map_err(Failure::usage)?;
            let mut store = Store::connect(&url).await.map_err(Failure::store)?;
            store.check_schema().await.map_err(Failure::store)?;
            ops::claim(target, &mut store, &filter).await
        }
    };
    moved.map_err(Failure::ops)
}
