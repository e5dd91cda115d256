//! Chaos: everything dies at random while rows are recorded, and then every row is counted.
//!
//! Real servers, real processes, real faults; see `faults` for what goes wrong. A seed decides which
//! faults happen in which round and which rows are recorded. What a fault meets depends on the
//! machine, so that a failed round may have to be run several times to fail again.
//!
//! ```text
//! cargo chaos --rounds 20                      # a new seed
//! cargo chaos --seed 7 --only-round 12         # a round that failed
//! cargo chaos --regressions                    # rounds that found bugs: seeds.txt
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people who test; what fails in it ends it"
)]

mod balance;
mod books;
mod disk;
mod exported;
mod faults;
mod pipeline;
mod producers;
mod random;
mod report;
mod round;
mod rows;
mod schedule;
mod setup;
mod spool;
mod strangers;
mod verdict;
mod watch;
mod workers;
mod world;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::{Parser, Subcommand};
use passerby_consumer::args::parse_duration;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    faults::{Kind, Outcome},
    pipeline::PipelineArgs,
    producers::Producers,
    report::Report,
    round::{RoundReport, Run},
    schedule::{Schedule, Schedules},
    world::World,
};

/// Rounds that found bugs.
const SEEDS: &str = include_str!("seeds.txt");

/// Lets everything die at random while rows are recorded, and then counts every row.
#[derive(Debug, Parser)]
#[command(name = "cargo chaos", args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Hidden>,
    /// How many rounds.
    #[arg(long, default_value = "20")]
    rounds: u64,
    /// What decides the faults and the rows [default: the time of day].
    #[arg(long)]
    seed: Option<u64>,
    /// Only this round of the seed.
    #[arg(long, value_name = "K")]
    only_round: Option<u64>,
    /// How long rows are recorded in each round.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    round_seconds: Duration,
    /// Longest wait for the stream to be empty after a round.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    drain_limit: Duration,
    /// Leave these kinds of faults out; the others happen as they would have.
    #[arg(long, value_enum, value_delimiter = ',')]
    without: Vec<Kind>,
    /// Write the report here as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the logs and the servers' data when all is well, too.
    #[arg(long)]
    keep: bool,
    /// Go on after a failed round.
    #[arg(long)]
    keep_going: bool,
    /// Run the rounds that found bugs.
    #[arg(long, conflicts_with_all = ["seed", "only_round"])]
    regressions: bool,
    /// Only say what would happen.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// Runs as a pipeline's process.
    #[command(hide = true)]
    Pipeline(PipelineArgs),
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Hidden::Pipeline(args)) = &args.command {
        pipeline::run(args);
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::select! {
            is_good = run_all(&args) => ExitCode::from(u8::from(!is_good)),
            // Servers, workers and mounts go with what is dropped here.
            () = interrupted() => ExitCode::from(130),
        }
    })
}

async fn interrupted() {
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended.unwrap(),
        _ = terminate.recv() => {}
    }
}

async fn run_all(args: &Args) -> bool {
    if args.regressions {
        let mut is_good = true;
        for (seed, round) in regressions() {
            is_good &= run(args, seed, Some(round)).await;
        }
        return is_good;
    }
    let seed = args.seed.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    });
    run(args, seed, args.only_round).await
}

/// The lines `SEED ROUND # what it found`.
fn regressions() -> impl Iterator<Item = (u64, u64)> {
    let lines = SEEDS
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(|line| {
        let (seed, round) = line.split_once(' ').expect("seeds.txt: SEED ROUND");
        (seed.parse().unwrap(), round.trim().parse().unwrap())
    })
}

async fn run(args: &Args, seed: u64, only_round: Option<u64>) -> bool {
    let mut schedules = Schedules::new(seed, args.round_seconds);
    let last = only_round.unwrap_or(args.rounds);
    let schedules: Vec<Schedule> = (0..last)
        .map(|_| schedules.deal())
        .filter(|schedule| only_round.is_none_or(|only| schedule.round == only))
        .collect();
    if args.dry_run {
        for schedule in &schedules {
            println!("round {}", schedule.round);
            for planned in &schedule.faults {
                println!("  {planned}");
            }
        }
        return true;
    }
    let dir = tempfile::Builder::new()
        .prefix("passerby-chaos.")
        .tempdir()
        .unwrap();
    println!("seed {seed}, logs in {}", dir.path().display());
    let world = Arc::new(World::start(dir).await);
    let producers = Producers::start(&world.producers_redis_url());
    let mut run = Run {
        seed,
        length: args.round_seconds,
        drain_limit: args.drain_limit,
        world: Arc::clone(&world),
        producers,
        open: Vec::new(),
        piped: balance::Accepted::default(),
        stored: BTreeMap::new(),
    };
    let mut report = Report::new(seed);
    for schedule in schedules {
        let round = run.round(schedule, &args.without).await;
        report.add(&round);
        print_round(&round);
        if !round.verdict.is_good() {
            explain(args, seed, &round, &world);
            if !args.keep_going {
                break;
            }
        }
    }
    if !report.has_failed() {
        for wrong in run.check_summaries().await {
            println!("summary missing or wrong: {wrong}");
            report.fail();
        }
    }
    report.finish(&world).await;
    if report.has_failed() || args.keep {
        let kept = world.keep_data().await;
        println!("logs and data are kept in {}", kept.display());
    }
    println!("\n{}", report.table());
    if let Some(path) = &args.json {
        std::fs::write(path, format!("{:#}\n", report.json())).unwrap();
    }
    !report.has_failed()
}

fn print_round(round: &RoundReport) {
    let kinds: Vec<String> = round
        .outcomes
        .iter()
        .map(|(planned, outcome)| match outcome {
            Outcome::Happened => planned.fault.kind().name(),
            Outcome::Skipped(_) => format!("({})", planned.fault.kind().name()),
        })
        .collect();
    println!(
        "round {:>3}  {}  accepted {:>6}, stored {:>6}, dead {:>4}, dropped {:>4}, suppressed {:>4}, \
         claimed {:>4}, drained in {:>4.1} s  {}",
        round.schedule.round,
        if round.verdict.is_good() {
            "ok    "
        } else {
            "FAILED"
        },
        round.verdict.n_accepted,
        round.verdict.n_stored,
        round.verdict.n_dead,
        round.verdict.n_dropped,
        round.findings.n_duplicates,
        round.findings.n_claimed,
        round.drained_in.as_secs_f64(),
        kinds.join(" "),
    );
}

fn explain(args: &Args, seed: u64, round: &RoundReport, world: &World) {
    let number = round.schedule.round;
    println!("\nround {number} of seed {seed} failed:\n{}", round.verdict);
    for (planned, outcome) in &round.outcomes {
        println!(
            "  {planned}  {}",
            if *outcome == Outcome::Happened {
                ""
            } else {
                "(skipped)"
            }
        );
    }
    println!("  workers' logs: {}", world.workers.logs());
    let mut again = format!("cargo chaos --seed {seed} --only-round {number}");
    if args.round_seconds != Duration::from_secs(5) {
        again.push_str(&format!(
            " --round-seconds {}s",
            args.round_seconds.as_secs_f64()
        ));
    }
    if !args.without.is_empty() {
        let kinds: Vec<String> = args.without.iter().map(|kind| kind.name()).collect();
        again.push_str(&format!(" --without {}", kinds.join(",")));
    }
    println!("  again: {again}\n");
}
