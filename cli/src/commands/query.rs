//! `passerby query`: detections, tracks, and how many people, when, where.

use std::{pin::pin, process::ExitCode};

use clap::{Args, Subcommand};
use futures_util::TryStreamExt;
use passerby_consumer::{
    args::DatabaseArgs,
    store::{
        Bucket, Counted, Demographics, DemographicsFilter, DetectionFilter, Store, TrackFilter,
    },
};
use passerby_shared::{Detection, Gender, Track};

use super::{Failure, output, span::Span};
use crate::render::{Cell, Column, Output, TableWriter, Terminal};

/// Ask what is stored.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  passerby query demographics --last 24h --per hour")]
pub(crate) struct QueryArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Detections of a span of time, oldest first.
    #[command(
        after_help = "Example:\n  passerby query detections --last 10m --camera-id gate-1 --csv"
    )]
    Detections(DetectionsArgs),
    /// Tracks that began in a span of time, oldest first.
    #[command(
        after_help = "Example:\n  passerby query tracks --last 10m --camera-id gate-1 --json"
    )]
    Tracks(TracksArgs),
    /// How many people each camera saw, by gender, in spans of time. People are tracks, not rows.
    #[command(after_help = "Example:\n  passerby query demographics --last 24h --per hour")]
    Demographics(DemographicsArgs),
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Only this camera.
    #[arg(long, value_name = "ID")]
    camera_id: Option<String>,
    /// Only this session.
    #[arg(long, value_name = "ID")]
    session_id: Option<String>,
    /// Print one JSON object a line.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values.
    #[arg(long)]
    csv: bool,
}

#[derive(Debug, Args)]
struct DetectionsArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    span: Span,
    /// Only this track.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    track_id: Option<i64>,
    /// At most so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
}

#[derive(Debug, Args)]
struct TracksArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    span: Span,
    /// Only this track.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    track_id: Option<i64>,
    /// At most so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
}

#[derive(Debug, Args)]
struct DemographicsArgs {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    span: Span,
    /// Width of the spans: minute, hour, day, or all for one number.
    #[arg(long, value_name = "SPAN", default_value = "hour")]
    per: Bucket,
    /// Whether a person counts in every span they were seen in, by their detections, or once, where they
    /// arrived, by the tracks that the pipeline reports, which takes milliseconds: seen or arrived.
    #[arg(long, value_name = "WHEN", default_value = "seen")]
    count: Counted,
}

/// Runs the command.
pub(crate) async fn run(args: QueryArgs) -> Result<ExitCode, Failure> {
    match args.what {
        What::Detections(args) => detections(args).await,
        What::Tracks(args) => tracks(args).await,
        What::Demographics(args) => demographics(args).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn open(common: &Common) -> Result<(Store, Output), Failure> {
    let url = common.database.database_url().map_err(Failure::usage)?;
    let store = Store::connect(&url).await.map_err(Failure::store)?;
    Ok((store, output::form(common.json, common.csv)))
}

const DETECTIONS: &[Column] = &[
    Column::text("timestamp"),
    Column::text("session_id"),
    Column::text("camera_id"),
    Column::number("channel_id"),
    Column::number("detection_id"),
    Column::number("track_id"),
    Column::number("confidence"),
    Column::number("bbox_x"),
    Column::number("bbox_y"),
    Column::number("bbox_width"),
    Column::number("bbox_height"),
    Column::text("gender"),
    Column::number("gender_confidence"),
    Column::number("frame_number"),
    Column::text("degraded"),
];

async fn detections(args: DetectionsArgs) -> Result<(), Failure> {
    let (mut store, form) = open(&args.common).await?;
    let filter = DetectionFilter {
        camera_id: args.common.camera_id,
        session_id: args.common.session_id,
        track_id: args.track_id,
        limit: args.limit,
    };
    let rows = store
        .query_detections_by_time(args.span.range(), &filter)
        .await
        .map_err(Failure::store)?;
    let mut rows = pin!(rows);
    let stdout = std::io::BufWriter::new(std::io::stdout());
    let mut table = TableWriter::new(stdout, DETECTIONS, form, Terminal::stdout());
    while let Some(detection) = rows.try_next().await.map_err(Failure::store)? {
        if let Err(error) = table.row(detection_cells(&detection)) {
            return closed(&error);
        }
    }
    table
        .finish()
        .map_or_else(|error| closed(&error), |_| Ok(()))
}

/// A reader that went away, as `head` does, is no failure.
fn closed(error: &std::io::Error) -> Result<(), Failure> {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(Failure::new(format_args!("write the result: {error}")))
}

fn detection_cells(d: &Detection) -> Vec<Cell> {
    vec![
        Cell::Time(d.timestamp),
        Cell::Text(d.session_id.clone()),
        Cell::Text(d.camera_id.clone()),
        Cell::Id(i64::from(d.channel_id)),
        Cell::Id(d.detection_id),
        optional(d.track_id, Cell::Id),
        optional(d.confidence, Cell::Real),
        Cell::Real(d.bbox_x),
        Cell::Real(d.bbox_y),
        Cell::Real(d.bbox_width),
        Cell::Real(d.bbox_height),
        gender(d.gender),
        optional(d.gender_confidence, Cell::Real),
        Cell::Id(d.frame_number),
        Cell::Flag(d.degraded),
    ]
}

fn optional<T>(value: Option<T>, cell: impl FnOnce(T) -> Cell) -> Cell {
    value.map_or(Cell::Absent, cell)
}

fn gender(value: Option<Gender>) -> Cell {
    optional(value, |gender| Cell::Text(gender.as_str().to_owned()))
}

const TRACKS: &[Column] = &[
    Column::text("session_id"),
    Column::text("camera_id"),
    Column::number("track_id"),
    Column::text("start_time"),
    Column::text("end_time"),
    Column::number("detection_count"),
    Column::number("avg_confidence"),
    Column::text("gender"),
    Column::number("gender_confidence"),
    Column::number("trajectory_points"),
];

/// A track as [`TRACKS`] has it.
#[cfg(feature = "schema")]
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "says what the columns hold")]
pub(crate) struct ListedTrack {
    session_id: String,
    camera_id: String,
    track_id: i64,
    start_time: chrono::DateTime<chrono::Utc>,
    end_time: chrono::DateTime<chrono::Utc>,
    detection_count: i64,
    avg_confidence: Option<f32>,
    gender: Option<Gender>,
    gender_confidence: Option<f32>,
    trajectory_points: u64,
}

async fn tracks(args: TracksArgs) -> Result<(), Failure> {
    let (mut store, form) = open(&args.common).await?;
    let filter = TrackFilter {
        session_id: args.common.session_id,
        camera_id: args.common.camera_id,
        track_id: args.track_id,
        started: Some(args.span.range()),
        limit: args.limit,
    };
    let tracks = store.query_tracks(&filter).await.map_err(Failure::store)?;
    output::table(TRACKS, form, tracks.iter().map(track_cells));
    Ok(())
}

fn track_cells(t: &Track) -> Vec<Cell> {
    vec![
        Cell::Text(t.session_id.clone()),
        Cell::Text(t.camera_id.clone()),
        Cell::Id(t.track_id),
        Cell::Time(t.start_time),
        Cell::Time(t.end_time),
        Cell::Count(t.detection_count),
        optional(t.avg_confidence, Cell::Real),
        gender(t.gender),
        optional(t.gender_confidence, Cell::Real),
        Cell::Count(i64::try_from(t.trajectory.len()).unwrap_or(i64::MAX)),
    ]
}

/// People per camera and span.
pub(crate) const DEMOGRAPHICS: &[Column] = &[
    Column::text("start"),
    Column::text("camera_id"),
    Column::number("people"),
    Column::number("male"),
    Column::number("female"),
    Column::number("unknown"),
    Column::number("detections"),
];

async fn demographics(args: DemographicsArgs) -> Result<(), Failure> {
    let (mut store, form) = open(&args.common).await?;
    let filter = DemographicsFilter {
        camera_id: args.common.camera_id,
        session_id: args.common.session_id,
        counted: args.count,
    };
    let rows = store
        .demographics(args.span.range(), args.per, &filter)
        .await
        .map_err(Failure::store)?;
    output::table(DEMOGRAPHICS, form, rows.iter().map(demographics_cells));
    Ok(())
}

pub(crate) fn demographics_cells(d: &Demographics) -> Vec<Cell> {
    vec![
        optional(d.start, Cell::Time),
        Cell::Text(d.camera_id.clone()),
        Cell::Count(d.people),
        Cell::Count(d.male),
        Cell::Count(d.female),
        Cell::Count(d.unknown),
        Cell::Count(d.detections),
    ]
}
