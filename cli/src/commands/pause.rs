//! `passerby pause` and `passerby resume`: whether workers read.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use passerby_consumer::{
    Paused,
    args::RedisArgs,
    ops::{self, Target},
};
use passerby_shared::books::Stamped;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{Failure, confirm, operator, output, target};
use crate::{
    render::{counted, duration},
    visible::visible,
};

/// Longest wait for the workers to have stopped reading.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

/// Have all workers of the group stop reading, within a second.
///
/// What they have read they store. The group stays paused, across restarts of workers and of Redis, until
/// somebody types `passerby resume`; meanwhile producers go on, and the stream grows. Workers with --drain end
/// at once.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  passerby pause --reason 'vacuum full until nine'")]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// Why, for whoever looks at `passerby status`.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    steering: Steering,
}

/// Have the workers of a paused group read again.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  passerby resume")]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    steering: Steering,
}

#[derive(Debug, Args)]
struct Steering {
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

/// What became of it.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Steered {
    /// The group.
    group: String,
    /// Whether something was changed.
    is_changed: bool,
    /// Who had paused the group before, and why; `updated_ms` is since when.
    was_paused: Option<Stamped<Paused>>,
    /// Workers that run.
    workers: u64,
    /// Of these, those that were seen to read nothing any more.
    paused_workers: u64,
}

/// Runs `passerby pause`.
pub(crate) async fn pause(args: PauseArgs) -> Result<ExitCode, Failure> {
    let mut target = target(&args.redis)?;
    let was_paused = ops::paused(&mut target).await.map_err(Failure::ops)?;
    let (workers, _) = workers(&mut target).await?;
    let group = target.group.clone();
    let mut steered = Steered {
        group: group.clone(),
        is_changed: false,
        was_paused,
        workers,
        paused_workers: 0,
    };
    let of = format!("group {}: {}", visible(&group), counted(workers, "worker"));
    if args.steering.dry_run {
        if args.steering.json {
            output::json(&steered);
        } else {
            output::line(&format!("would pause {of}"));
            before(&steered, &mut target).await?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    confirm(args.steering.yes, &format!("pause {of}"))?;
    let paused = Paused {
        by: operator(),
        reason: args.reason,
    };
    ops::pause(&mut target, &paused)
        .await
        .map_err(Failure::ops)?;
    steered.is_changed = true;
    let until = Instant::now() + PATIENCE;
    loop {
        let (n_workers, n_paused) = self::workers(&mut target).await?;
        (steered.workers, steered.paused_workers) = (n_workers, n_paused);
        if n_paused >= n_workers || Instant::now() >= until {
            break;
        }
        sleep(POLL).await;
    }
    if args.steering.json {
        output::json(&steered);
        return Ok(ExitCode::SUCCESS);
    }
    before(&steered, &mut target).await?;
    output::line(&format!(
        "paused group {}: {} of {} stopped reading",
        visible(&group),
        steered.paused_workers,
        counted(steered.workers, "worker")
    ));
    Ok(ExitCode::SUCCESS)
}

/// Runs `passerby resume`.
pub(crate) async fn resume(args: ResumeArgs) -> Result<ExitCode, Failure> {
    let mut target = target(&args.redis)?;
    let was_paused = ops::paused(&mut target).await.map_err(Failure::ops)?;
    let (workers, paused_workers) = workers(&mut target).await?;
    let group = target.group.clone();
    let of = format!("group {}: {}", visible(&group), counted(workers, "worker"));
    let mut steered = Steered {
        group: group.clone(),
        is_changed: false,
        was_paused,
        workers,
        paused_workers,
    };
    let is_paused = steered.was_paused.is_some();
    if is_paused && !args.steering.dry_run {
        confirm(args.steering.yes, &format!("resume {of}"))?;
        steered.is_changed = ops::resume(&mut target).await.map_err(Failure::ops)?;
    }
    if args.steering.json {
        output::json(&steered);
    } else if !is_paused {
        output::line(&format!("group {} is not paused", visible(&group)));
    } else {
        let done = if steered.is_changed {
            "resumed"
        } else {
            "would resume"
        };
        output::line(&format!("{done} {of}"));
        before(&steered, &mut target).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Workers that run, and those of them that read nothing.
async fn workers(target: &mut Target) -> Result<(u64, u64), Failure> {
    let workers = ops::running_workers(target).await.map_err(Failure::ops)?;
    Ok((workers.running, workers.paused))
}

/// Says who had paused the group.
async fn before(steered: &Steered, target: &mut Target) -> Result<(), Failure> {
    let Some(paused) = &steered.was_paused else {
        return Ok(());
    };
    let now_ms = ops::running_workers(target)
        .await
        .map_err(Failure::ops)?
        .now_ms;
    let mut line = "it was paused".to_owned();
    if paused.updated_ms > 0 {
        let since = Duration::from_millis(now_ms.saturating_sub(paused.updated_ms));
        line.push_str(&format!(" for {}", duration(since)));
    }
    if !paused.told.by.is_empty() {
        line.push_str(&format!(" by {}", visible(&paused.told.by)));
    }
    if let Some(reason) = &paused.told.reason {
        line.push_str(&format!(": {}", visible(reason)));
    }
    output::line(&line);
    Ok(())
}
