//! What the demo shows in the end, counted in Postgres and not by those who wrote it.

use std::pin::pin;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use passerby_consumer::{
    WorkerReport,
    store::{
        Bucket, DeadLetterCount, DeadLetterFilter, DemographicsFilter, DetectionFilter, Store,
    },
};
use passerby_producer::Stats;
use passerby_shared::SessionSummary;
use serde::Serialize;

use super::super::{Failure, output};
use crate::render::{Cell, Column, Output, Terminal, TimeBins, grouped, write_histogram};

/// What one camera's producer says of its detections.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct CameraBooks {
    pub(super) camera_id: String,
    pub(super) session_id: String,
    pub(super) accepted: u64,
    pub(super) published: u64,
    pub(super) dropped: u64,
    pub(super) buffered: u64,
    /// Entries of all kinds, and their bytes, that the producer wrote into the stream.
    entries: u64,
    bytes: u64,
}

impl CameraBooks {
    pub(super) fn new(camera_id: &str, session_id: String, stats: &Stats) -> Self {
        let detections = &stats.detections;
        Self {
            camera_id: camera_id.to_owned(),
            session_id,
            accepted: detections.accepted,
            published: detections.published,
            dropped: detections.accepted - detections.published - detections.buffered,
            buffered: detections.buffered,
            entries: stats.entries_published,
            bytes: stats.bytes_published,
        }
    }
}

/// One camera, as Postgres has it.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct CameraReport {
    camera_id: String,
    session_id: String,
    detections: u64,
    people: SessionSummary,
}

/// The end of a demo.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Report {
    accepted: u64,
    pub(super) stored: u64,
    dead_lettered: u64,
    dropped: u64,
    buffered: u64,
    in_stream: u64,
    cameras: Vec<CameraReport>,
    producers: Vec<CameraBooks>,
    worker: WorkerReport,
}

const EVER: DateTime<Utc> = DateTime::UNIX_EPOCH;
const NEVER: DateTime<Utc> = DateTime::<Utc>::MAX_UTC;

/// How many detections Postgres accounts for: stored, or among the dead letters.
pub(super) async fn accounted(store: &mut Store, cameras: &[CameraBooks]) -> Result<u64, Failure> {
    let mut n_rows = dead_lettered(store).await?;
    for camera in cameras {
        n_rows += stored(store, &camera.camera_id).await?;
    }
    Ok(n_rows)
}

async fn stored(store: &mut Store, camera_id: &str) -> Result<u64, Failure> {
    let filter = DemographicsFilter {
        camera_id: Some(camera_id.to_owned()),
        ..DemographicsFilter::default()
    };
    let rows = store
        .demographics(EVER..far(), Bucket::All, &filter)
        .await
        .map_err(Failure::store)?;
    Ok(rows
        .iter()
        .map(|row| u64::try_from(row.detections).unwrap_or(0))
        .sum())
}

async fn dead_lettered(store: &mut Store) -> Result<u64, Failure> {
    let counts = store
        .count_dead_letters(&DeadLetterFilter::default())
        .await
        .map_err(Failure::store)?;
    Ok(counts.iter().map(DeadLetterCount::total).sum())
}

/// Postgres' times end before chrono's.
fn far() -> DateTime<Utc> {
    DateTime::from_timestamp(4_102_444_800, 0).unwrap_or(NEVER)
}

impl Report {
    pub(super) async fn collect(
        store: &mut Store,
        books: &[CameraBooks],
        worker: WorkerReport,
    ) -> Result<Self, Failure> {
        let mut cameras = Vec::new();
        for camera in books {
            let session = store
                .session(&camera.session_id)
                .await
                .map_err(Failure::store)?;
            cameras.push(CameraReport {
                camera_id: camera.camera_id.clone(),
                session_id: camera.session_id.clone(),
                detections: stored(store, &camera.camera_id).await?,
                people: session
                    .and_then(|session| session.summary)
                    .unwrap_or_default(),
            });
        }
        let sum = |of: fn(&CameraBooks) -> u64| books.iter().map(of).sum::<u64>();
        let stored: u64 = cameras.iter().map(|camera| camera.detections).sum();
        let dead_lettered = dead_lettered(store).await?;
        Ok(Self {
            accepted: sum(|camera| camera.accepted),
            stored,
            dead_lettered,
            dropped: sum(|camera| camera.dropped),
            buffered: sum(|camera| camera.buffered),
            in_stream: sum(|camera| camera.published).saturating_sub(stored + dead_lettered),
            cameras,
            producers: books.to_vec(),
            worker,
        })
    }

    /// Whether every accepted detection is accounted for, and none twice.
    pub(super) fn is_balanced(&self) -> bool {
        self.accepted
            == self.stored + self.dead_lettered + self.dropped + self.buffered + self.in_stream
            && self.in_stream == 0
    }

    pub(super) async fn print(&self, store: &mut Store) -> Result<(), Failure> {
        let per_camera: Vec<String> = self
            .cameras
            .iter()
            .map(|camera| {
                format!(
                    "{} from camera {}",
                    grouped(camera.detections),
                    camera.camera_id
                )
            })
            .collect();
        output::line(&format!(
            "{} detections stored: {}.\n",
            grouped(self.stored),
            per_camera.join(", ")
        ));
        self.print_table();
        output::raw("\n");
        print_histogram(store).await?;
        let n = |count: u64| grouped(count);
        output::line(&format!(
            "\nBooks: accepted {} = stored {} + dead-lettered {} + dropped {} + buffered {} + in \
             stream {}: {}",
            n(self.accepted),
            n(self.stored),
            n(self.dead_lettered),
            n(self.dropped),
            n(self.buffered),
            n(self.in_stream),
            if self.is_balanced() {
                "balanced"
            } else {
                "NOT BALANCED"
            },
        ));
        let entries: u64 = self.producers.iter().map(|camera| camera.entries).sum();
        let bytes: u64 = self.producers.iter().map(|camera| camera.bytes).sum();
        output::line(&format!(
            "Way:   {} entries of {} bytes in the stream, {} transactions in Postgres,\n       {} track \
             rows written, {} duplicates suppressed",
            n(entries),
            n(bytes),
            n(self.worker.batches),
            n(self.worker.tracks),
            n(self.worker.duplicates),
        ));
        Ok(())
    }

    fn print_table(&self) {
        const COLUMNS: &[Column] = &[
            Column::text("camera"),
            Column::text("session"),
            Column::number("detections"),
            Column::number("people"),
            Column::number("male"),
            Column::number("female"),
            Column::number("unknown"),
        ];
        let count = |n: i64| Cell::Count(n);
        output::table(
            COLUMNS,
            Output::Table,
            self.cameras.iter().map(|camera| {
                vec![
                    Cell::Text(camera.camera_id.clone()),
                    Cell::Text(camera.session_id.clone()),
                    Cell::Count(i64::try_from(camera.detections).unwrap_or(i64::MAX)),
                    count(camera.people.people),
                    count(camera.people.male),
                    count(camera.people.female),
                    count(camera.people.unknown),
                ]
            }),
        );
        output::line(
            "People are tracks, not rows. The recordings carry no gender, so none is known.",
        );
    }
}

/// People in view over time: each person once in each span, however often detected.
async fn print_histogram(store: &mut Store) -> Result<(), Failure> {
    let rows = store
        .query_detections_by_time(EVER..far(), &DetectionFilter::default())
        .await
        .map_err(Failure::store)?;
    let rows: Vec<_> = pin!(rows).try_collect().await.map_err(Failure::store)?;
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return Ok(());
    };
    let terminal = Terminal::stdout();
    let end = last.timestamp + chrono::TimeDelta::milliseconds(1);
    let mut bins = TimeBins::covering(first.timestamp..end, terminal.drawing_width().min(72));
    for row in &rows {
        bins.add_once(row.timestamp, (&row.session_id, row.track_id));
    }
    let mut drawn = Vec::new();
    write_histogram(
        &mut drawn,
        "People in view of both cameras",
        &bins,
        terminal,
    )
    .map_err(Failure::new)?;
    output::raw(&String::from_utf8_lossy(&drawn));
    Ok(())
}
