//! `passerby tap`: what comes in, live.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use passerby_consumer::{
    args::{RedisArgs, parse_duration},
    ops::{Tap, TapFilter, Tapped},
};
use passerby_shared::Detection;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Failure, output, stop_on_signal, target};
use crate::{
    render::{counted, grouped},
    visible::visible,
};

/// Watch detections come in, live, without disturbing any worker.
///
/// Nothing is delivered, acknowledged or held: no group is involved. It is a sample: at most --rate rows a
/// second are shown, of a fast stream only the newest entries are read, and what was passed over is counted
/// at the end. It stops by itself.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  passerby tap --camera-id gate-1\n  passerby tap --for 5m --count 100000 --rate 1000 --json | jq .detection.confidence"
)]
pub(crate) struct TapArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// Only this camera.
    #[arg(long, alias = "camera", value_name = "ID")]
    camera_id: Option<String>,
    /// Only this session.
    #[arg(long, alias = "session", value_name = "ID")]
    session_id: Option<String>,
    /// Only this track.
    #[arg(long, alias = "track", value_name = "N", allow_negative_numbers = true)]
    track_id: Option<i64>,
    /// Stop after so long.
    #[arg(long = "for", value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    time: Duration,
    /// Stop after so many rows.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// At most so many rows a second.
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: TapArgs) -> Result<ExitCode, Failure> {
    let target = target(&args.redis)?;
    let filter = TapFilter {
        camera_id: args.camera_id.clone(),
        session_id: args.session_id.clone(),
        track_id: args.track_id,
    };
    let stop = CancellationToken::new();
    stop_on_signal(&stop);
    let mut tap = Tap::start(&target, filter).await.map_err(Failure::ops)?;
    let mut shown = Shown::new(&args);
    let ended = tokio::select! {
        ended = shown.watch(&mut tap) => ended,
        () = stop.cancelled() => Ok(()),
        () = sleep_until(shown_until(&args)) => Ok(()),
    };
    output::warning(&shown.in_words(&tap));
    ended.map(|()| ExitCode::SUCCESS)
}

fn shown_until(args: &TapArgs) -> Instant {
    Instant::now() + args.time
}

/// What is shown, and how much of it.
struct Shown {
    json: bool,
    left: u64,
    rate: u32,
    shown: u64,
    /// Rows that were asked for and are more than `rate`.
    withheld: u64,
    problems: u64,
}

impl Shown {
    fn new(args: &TapArgs) -> Self {
        Self {
            json: args.json,
            left: args.count,
            rate: args.rate,
            shown: 0,
            withheld: 0,
            problems: 0,
        }
    }

    /// Shows what comes in, until there was enough of it.
    async fn watch(&mut self, tap: &mut Tap) -> Result<(), Failure> {
        const TURN: Duration = Duration::from_millis(500);
        loop {
            let turn_ends = Instant::now() + TURN;
            // So many a turn, of which there are two a second.
            let mut room = u64::from(self.rate).div_ceil(2);
            while Instant::now() < turn_ends && room > 0 {
                for one in tap.next().await.map_err(Failure::ops)? {
                    if one.detection.is_none() {
                        self.problem(&one);
                    } else if room == 0 {
                        self.withheld += 1;
                    } else {
                        room -= 1;
                        self.show(&one);
                        if self.left == 0 {
                            return Ok(());
                        }
                    }
                }
            }
            if room == 0 {
                sleep_until(turn_ends).await;
                tap.skip_to_now().await.map_err(Failure::ops)?;
            }
        }
    }

    fn show(&mut self, one: &Tapped) {
        self.shown += 1;
        self.left -= 1;
        if self.json {
            output::json_line(one);
        } else if let Some(row) = &one.detection {
            output::line(&in_words(row));
        }
    }

    fn problem(&mut self, one: &Tapped) {
        // A flood of them says no more than a few.
        const MAX_PROBLEMS: u64 = 20;
        self.problems += 1;
        if self.problems > MAX_PROBLEMS {
            return;
        }
        if self.json {
            output::json_line(one);
        } else {
            output::line(&format!(
                "entry {} of {} cannot be stored as it is: {}",
                one.entry_id,
                visible(&one.stream),
                visible(one.problem.as_deref().unwrap_or_default())
            ));
        }
    }

    fn in_words(&self, tap: &Tap) -> String {
        let counts = tap.counts();
        let mut text = format!(
            "{} shown of {} in {}",
            counted(self.shown, "row"),
            grouped(counts.rows),
            entries(counts.entries),
        );
        if self.withheld > 0 {
            text.push_str(&format!(
                "; {} more matched and were too many for --rate",
                grouped(self.withheld)
            ));
        }
        if counts.skipped > 0 {
            text.push_str(&format!(
                "; {} passed over, as the stream is faster than --rate",
                entries(counts.skipped)
            ));
        }
        if self.problems > 0 {
            text.push_str(&format!(
                "; {} with something that cannot be stored",
                entries(self.problems)
            ));
        }
        text
    }
}

fn entries(n: u64) -> String {
    if n == 1 {
        "1 entry".to_owned()
    } else {
        format!("{} entries", grouped(n))
    }
}

/// `12:00:00.040  gate-1 ch 1  session-1 track 5  0.87  48×128 at 12,100  female 0.88`.
fn in_words(row: &Detection) -> String {
    let track = row
        .track_id
        .map_or_else(|| "no track".to_owned(), |track| format!("track {track}"));
    let confidence = row
        .confidence
        .map_or_else(|| "-".to_owned(), |confidence| format!("{confidence:.2}"));
    let gender = match (row.gender, row.gender_confidence) {
        (Some(gender), Some(confidence)) => format!("  {} {confidence:.2}", gender.as_str()),
        (Some(gender), None) => format!("  {}", gender.as_str()),
        (None, _) if row.degraded => "  degraded".to_owned(),
        (None, _) => String::new(),
    };
    format!(
        "{}  {} channel {}  {} {track}  {confidence}  {:.0}×{:.0} at {:.0},{:.0}{gender}",
        row.timestamp.format("%Y-%m-%d %H:%M:%S%.3f"),
        visible(&row.camera_id),
        row.channel_id,
        visible(&row.session_id),
        row.bbox_width,
        row.bbox_height,
        row.bbox_x,
        row.bbox_y,
    )
}
