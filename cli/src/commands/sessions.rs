//! `passerby sessions`: lists them, and ends those that nobody has ended.

use std::{process::ExitCode, time::Duration};

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use passerby_consumer::{
    args::{DatabaseArgs, parse_duration},
    store::{ListedSession, SessionFilter, SessionRecord, Store},
};
use passerby_shared::Session;
use serde::Serialize;

use super::{Failure, confirm, output};
use crate::{
    render::{Cell, Column, counted, duration},
    visible::visible,
};

/// Look at sessions, and end those whose pipeline never did.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  passerby sessions list --open")]
pub(crate) struct SessionsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List sessions with their summaries, the latest first.
    #[command(after_help = "Example:\n  passerby sessions list --open --camera-id gate-1")]
    List(ListArgs),
    /// End sessions that their pipelines never ended, so that their summaries are made.
    ///
    /// A session ends with its last row unless --ended-at. Rows that come in later are stored and counted all the
    /// same: the summary is then made again. What the pipeline itself says of the end, should it come back, wins.
    #[command(after_help = "Example:\n  passerby sessions close 2026-11-27-morning")]
    Close(CloseArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Only those that nobody has ended.
    #[arg(long, conflicts_with = "closed")]
    open: bool,
    /// Only those that have ended.
    #[arg(long)]
    closed: bool,
    /// Only those that have ended, and whose summary is missing or out of date.
    #[arg(long, conflicts_with = "open")]
    without_summary: bool,
    /// Only those with a row of this camera.
    #[arg(long, value_name = "ID")]
    camera_id: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    /// Print one JSON object a line.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values.
    #[arg(long)]
    csv: bool,
}

#[derive(Debug, Args)]
struct CloseArgs {
    /// The sessions.
    #[arg(value_name = "SESSION_ID", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    database: DatabaseArgs,
    /// When it ended, RFC 3339 [default: with its last row].
    #[arg(long, value_name = "TIME")]
    ended_at: Option<DateTime<Utc>>,
    /// Refuse when its last row is younger than this, since its pipeline is alive then.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    quiet: Duration,
    /// End it also when its last row is younger.
    #[arg(long)]
    force: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Print the result as JSON, one object a line.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: SessionsArgs) -> Result<ExitCode, Failure> {
    match args.what {
        What::List(args) => list(args).await,
        What::Close(args) => close(args).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn open(database: &DatabaseArgs) -> Result<Store, Failure> {
    let url = database.database_url().map_err(Failure::usage)?;
    let mut store = Store::connect(&url).await.map_err(Failure::store)?;
    store.check_schema().await.map_err(Failure::store)?;
    Ok(store)
}

const COLUMNS: &[Column] = &[
    Column::text("session_id"),
    Column::text("state"),
    Column::text("first"),
    Column::text("last"),
    Column::number("tracks"),
    Column::number("people"),
    Column::number("male"),
    Column::number("female"),
    Column::number("unknown"),
    Column::number("rows"),
];

async fn list(args: ListArgs) -> Result<(), Failure> {
    let mut store = open(&args.database).await?;
    let filter = SessionFilter {
        open: args.open,
        closed: args.closed,
        without_summary: args.without_summary,
        camera_id: args.camera_id,
        limit: args.limit,
    };
    let sessions = store.list_sessions(&filter).await.map_err(Failure::store)?;
    if args.json {
        for session in &sessions {
            output::json_line(session);
        }
        return Ok(());
    }
    output::table(
        COLUMNS,
        output::form(false, args.csv),
        sessions.iter().map(cells),
    );
    Ok(())
}

fn cells(listed: &ListedSession) -> Vec<Cell> {
    let SessionRecord { session, summary } = &listed.session;
    let count = |n: Option<i64>| n.map(Cell::Count).into();
    let state = match (session.ended_at, summary) {
        (None, _) => "open",
        (Some(_), Some(_)) => "closed",
        (Some(_), None) => "no summary",
    };
    vec![
        session.session_id.clone().into(),
        state.into(),
        session.started_at.or(listed.first_track_at).into(),
        session.ended_at.or(listed.last_track_at).into(),
        Cell::Count(listed.tracks),
        count(summary.map(|s| s.people)),
        count(summary.map(|s| s.male)),
        count(summary.map(|s| s.female)),
        count(summary.map(|s| s.unknown)),
        count(summary.map(|s| s.detections)),
    ]
}

/// What `close` prints of a session.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct ClosedSession {
    #[serde(flatten)]
    session: SessionRecord,
    /// When its last row was seen.
    last_row_at: Option<DateTime<Utc>>,
    /// It was ended now; else it had been, or it was a dry run.
    closed: bool,
}

async fn close(args: CloseArgs) -> Result<(), Failure> {
    let mut store = open(&args.database).await?;
    let mut wanted = Vec::new();
    for id in &args.ids {
        let session = store.session(id).await.map_err(Failure::store)?;
        let Some(session) = session else {
            return Err(Failure::new(format_args!(
                "there is no session `{}`: `passerby sessions list` shows what there is; nothing was changed",
                visible(id)
            )));
        };
        let last_row_at = store
            .last_row_of_session(id)
            .await
            .map_err(Failure::store)?;
        if session.session.ended_at.is_none() {
            refuse_live(&args, id, last_row_at)?;
        }
        wanted.push((session, last_row_at));
    }
    let n_open = wanted
        .iter()
        .filter(|(s, _)| s.session.ended_at.is_none())
        .count();
    if !args.dry_run && n_open > 0 {
        confirm(
            args.yes,
            &format!("end {}", counted(n_open as u64, "session")),
        )?;
    }
    for (session, last_row_at) in wanted {
        let closed = close_one(&args, &mut store, session, last_row_at).await?;
        if args.json {
            output::json_line(&closed);
        } else {
            output::line(&line(&args, &closed));
        }
    }
    Ok(())
}

/// Refuses a session whose rows still come in.
fn refuse_live(
    args: &CloseArgs,
    id: &str,
    last_row_at: Option<DateTime<Utc>>,
) -> Result<(), Failure> {
    let age = last_row_at.map(|last| (Utc::now() - last).to_std().unwrap_or_default());
    match age.filter(|age| *age < args.quiet && !args.force) {
        Some(age) => Err(Failure::new(format_args!(
            "session `{}` had a row {} ago: its pipeline is alive; add --force to end it all the same \
             (nothing was changed)",
            visible(id),
            duration(age)
        ))),
        None => Ok(()),
    }
}

async fn close_one(
    args: &CloseArgs,
    store: &mut Store,
    mut session: SessionRecord,
    last_row_at: Option<DateTime<Utc>>,
) -> Result<ClosedSession, Failure> {
    let was_open = session.session.ended_at.is_none();
    let ended_at = args.ended_at.or(last_row_at).unwrap_or_else(Utc::now);
    if was_open {
        session.session.ended_at = Some(ended_at);
    }
    if !args.dry_run {
        let id = session.session.session_id.clone();
        if was_open {
            let end = Session {
                session_id: id.clone(),
                started_at: None,
                ended_at: Some(ended_at),
                source: None,
            };
            store.announce_session(&end).await.map_err(Failure::store)?;
        }
        if session.summary.is_none() {
            // Rows that come in meanwhile leave it to the workers, who make it when they are stored.
            session.summary = store.summarize_session(&id).await.map_err(Failure::store)?;
        }
    }
    Ok(ClosedSession {
        closed: was_open && !args.dry_run,
        session,
        last_row_at,
    })
}

fn line(args: &CloseArgs, closed: &ClosedSession) -> String {
    let SessionRecord { session, summary } = &closed.session;
    let ended_at = session.ended_at.map_or_else(String::new, |at| {
        at.format(" at %Y-%m-%d %H:%M:%S").to_string()
    });
    let what = match (closed.closed, args.dry_run) {
        (true, _) => "ended",
        (false, true) if closed.session.summary.is_none() => "would end",
        (false, _) => "had ended",
    };
    let summary = match summary {
        Some(s) => format!(
            ": {} ({} male, {} female, {} unknown) in {}",
            counted(s.people.unsigned_abs(), "track"),
            s.male,
            s.female,
            s.unknown,
            counted(s.detections.unsigned_abs(), "row")
        ),
        None if args.dry_run => String::new(),
        None => ": rows are coming in, and workers make its summary after them".to_owned(),
    };
    format!("{} {what}{ended_at}{summary}", visible(&session.session_id))
}
