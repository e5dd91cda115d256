//! A camera of the demo: a recording, played through a producer as a pipeline would.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use passerby_producer::{Producer, RecordError, Recorded};
use passerby_shared::{Detection, ErrorChain, Session, TrackBuilder};
use tokio_util::sync::CancellationToken;

use super::{super::Failure, report::CameraBooks};
use crate::{
    ingest::{ChunkReader, FileFormat, Pacer, SourceParams, Speed},
    render::Progress,
};

/// A track is reported whenever so many detections have come on it.
const REPORT_EVERY: i64 = 10;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// What one camera saw.
pub(super) struct Recording {
    pub(super) camera_id: &'static str,
    pub(super) session_id: String,
    source: &'static str,
    pub(super) rows: Vec<Detection>,
}

impl Recording {
    /// The two recordings, beginning at the same moment.
    pub(super) fn all(start_time: DateTime<Utc>) -> Result<Vec<Self>, Failure> {
        const STREET: &str = include_str!("../../../data/vtest-hog.mot.txt");
        const CAMPUS: &str = include_str!("../../../data/TUD-Campus.mot.txt");
        Ok(vec![
            Self::read("street", "vtest-hog.mot.txt", STREET, "10", start_time)?,
            Self::read("campus", "TUD-Campus.mot.txt", CAMPUS, "25", start_time)?,
        ])
    }

    fn read(
        camera_id: &'static str,
        source: &'static str,
        text: &'static str,
        fps: &str,
        start_time: DateTime<Utc>,
    ) -> Result<Self, Failure> {
        let session_id = format!("demo-{camera_id}");
        let params = SourceParams {
            camera_id: camera_id.to_owned(),
            channel_id: 0,
            session_id: session_id.clone(),
            fps: fps.parse().map_err(Failure::new)?,
            start_time,
        };
        let mut rows = Vec::new();
        for chunk in ChunkReader::new(text.as_bytes(), source, FileFormat::Mot, params) {
            rows.extend(chunk.map_err(Failure::new)?.rows);
        }
        Ok(Self {
            camera_id,
            session_id,
            source,
            rows,
        })
    }
}

/// What was dropped, and why, is in the producer's books; only what can never be recorded is an error.
fn put(outcome: Result<Recorded, RecordError>) -> Result<(), Failure> {
    outcome
        .map(drop)
        .map_err(|error| Failure::new(ErrorChain(&error)))
}

/// Plays a recording, then closes its session and the producer.
pub(super) async fn play(
    recording: Recording,
    producer: Producer,
    speed: Speed,
    bar: Progress,
    stop: CancellationToken,
) -> Result<CameraBooks, Failure> {
    let mut session = Session {
        session_id: recording.session_id.clone(),
        started_at: recording.rows.first().map(|row| row.timestamp),
        ended_at: None,
        source: Some(recording.source.to_owned()),
    };
    put(producer.session(session.clone()))?;
    let mut pacer = Pacer::new(speed);
    let mut tracks = HashMap::<i64, TrackBuilder>::new();
    let mut n_recorded = 0;
    for row in recording.rows {
        tokio::select! {
            () = pacer.release(row.timestamp) => {}
            () = stop.cancelled() => break,
        }
        session.ended_at = Some(row.timestamp);
        if let Some(track_id) = row.track_id {
            let snapshot = match tracks.get_mut(&track_id) {
                Some(track) => {
                    track.add(&row);
                    Some(track.snapshot()).filter(|t| t.detection_count % REPORT_EVERY == 0)
                }
                None => {
                    tracks.extend(TrackBuilder::new(&row).map(|track| (track_id, track)));
                    None
                }
            };
            if let Some(snapshot) = snapshot {
                put(producer.track(snapshot))?;
            }
        }
        // The whole of what a pipeline does for a detection. It never waits; what was dropped, and
        // why, is in the books.
        put(producer.record(row))?;
        n_recorded += 1;
        bar.update(n_recorded, n_recorded);
    }
    for track in tracks.values() {
        put(producer.track(track.snapshot()))?;
    }
    put(producer.session(session))?;
    bar.finish();
    let closing = tokio::task::spawn_blocking(move || {
        // A timeout is in the books as well.
        let timed_out = producer.close(CLOSE_TIMEOUT).is_err();
        (producer.stats(), timed_out)
    });
    let (stats, _) = closing
        .await
        .map_err(|error| Failure::new(format_args!("close: {error}")))?;
    Ok(CameraBooks::new(
        recording.camera_id,
        recording.session_id,
        &stats,
    ))
}
