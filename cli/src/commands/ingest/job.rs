//! Reads one file into one session.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow};
use chrono::{DateTime, TimeDelta, Utc};
use passerby_consumer::store::{SourceRecord, SourceState, Store};
use passerby_shared::{
    Detection, MAX_ID_BYTES, Session, SessionSummary, Track, TrackBuilder, TrackId,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    sink::{KeyedRows, Sink},
    summary::{FileSummary, Outcome},
};
use crate::ingest::{FrameRate, LineError, Pacer, Source, SourceParams, Speed, chunk_key};
use crate::render::counted;

/// A track that has not been seen for so long is over, and no longer kept in memory.
const TRACK_MEMORY: TimeDelta = TimeDelta::minutes(10);
/// How often people are counted while others change what is counted.
const MAX_COUNTS: usize = 20;
const BETWEEN_COUNTS: Duration = Duration::from_millis(50);

/// What to read, and how.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) path: PathBuf,
    pub(crate) camera_id: Option<String>,
    pub(crate) session_id: Option<String>,
    pub(crate) channel_id: i32,
    pub(crate) fps: FrameRate,
    pub(crate) start_time: Option<DateTime<Utc>>,
    pub(crate) speed: Speed,
    pub(crate) batch_rows: usize,
    pub(crate) flush_interval: Duration,
    pub(crate) strict: bool,
    pub(crate) wait: Duration,
}

/// Hears how a job gets on.
pub(crate) trait Watch {
    /// The file was opened and has so many bytes.
    fn begun(&mut self, n_bytes: u64);
    /// So many bytes of it are read, with so many rows.
    fn read(&mut self, n_bytes: u64, n_rows: u64);
    /// A line is wrong.
    fn bad_line(&mut self, error: &LineError);
}

impl Job {
    /// Reads the file, to its end or until `stop` fires.
    pub(crate) async fn run(
        &self,
        sink: &mut Sink,
        watch: &mut dyn Watch,
        stop: &CancellationToken,
    ) -> anyhow::Result<FileSummary> {
        let mut source = Source::open(&self.path, None)?;
        let digest = source.digest(|_| {})?;
        watch.begun(source.n_bytes());
        let camera_id = self.camera_id.clone().unwrap_or_else(|| stem(&self.path));
        let session_id = self
            .session_id
            .clone()
            .unwrap_or_else(|| default_session(&self.path, &digest));
        let mut record = SourceRecord {
            session_id,
            digest,
            name: file_name(&self.path),
            camera_id,
            channel_id: self.channel_id,
            fps: self.fps.as_f64(),
            start_time: self.start_time.unwrap_or_else(Utc::now),
        };
        params(&record, self.fps)
            .validate()
            .context("the settings do not make valid rows")?;
        let mut summary = FileSummary::new(&record);

        if let Some(store) = sink.store() {
            match store
                .begin_source(&record, self.start_time.is_some())
                .await?
            {
                SourceState::New => {}
                SourceState::Begun { start_time } => record.start_time = start_time,
                SourceState::Finished { n_rows } => {
                    summary.already_stored = u64::try_from(n_rows).unwrap_or(0);
                    summary.outcome = Outcome::AlreadyFinished;
                    summary.people = store
                        .session(&record.session_id)
                        .await?
                        .and_then(|session| session.summary);
                    return Ok(summary);
                }
            }
            store
                .announce_session(&Session {
                    session_id: record.session_id.clone(),
                    started_at: Some(record.start_time),
                    ended_at: None,
                    source: Some(record.name.clone()),
                })
                .await?;
        }

        let is_whole = self
            .read(&mut source, &record, sink, watch, stop, &mut summary)
            .await?;
        if !is_whole {
            summary.outcome = Outcome::Interrupted;
            return Ok(summary);
        }
        summary.outcome = self.finish(&record, sink, &mut summary).await?;
        Ok(summary)
    }

    /// Reads and writes; `false` when it was stopped before the end.
    async fn read(
        &self,
        source: &mut Source,
        record: &SourceRecord,
        sink: &mut Sink,
        watch: &mut dyn Watch,
        stop: &CancellationToken,
        summary: &mut FileSummary,
    ) -> anyhow::Result<bool> {
        let mut pacer = Pacer::new(self.speed);
        let mut tracks = Tracks::default();
        let mut waiting: Vec<KeyedRows> = Vec::new();
        let mut n_waiting = 0;
        let mut last_flush = Instant::now();
        for chunk in source.chunks(params(record, self.fps))? {
            let chunk = chunk?;
            for error in &chunk.errors {
                if self.strict {
                    return Err(anyhow!("{error}").context(format!(
                        "stopped at the first bad line, as --strict asks, with {} stored in \
                         session `{}`",
                        counted(summary.stored + summary.already_stored, "row"),
                        record.session_id,
                    )));
                }
                watch.bad_line(error);
                summary.bad_lines += 1;
            }
            summary.clamped += chunk.n_clamped;
            summary.rows += chunk.rows.len() as u64;
            for row in &chunk.rows {
                tracks.add(row);
            }
            if let Some(last) = chunk.rows.last() {
                tokio::select! {
                    () = pacer.release(last.timestamp) => {}
                    () = stop.cancelled() => return Ok(false),
                }
            }
            watch.read(chunk.n_bytes_read, summary.rows);
            if !chunk.rows.is_empty() {
                n_waiting += chunk.rows.len();
                let key = chunk_key(&record.session_id, &record.digest, chunk.index);
                waiting.push((key, chunk.rows));
            }
            if n_waiting >= self.batch_rows || last_flush.elapsed() >= self.flush_interval {
                flush(sink, &mut waiting, &mut tracks, summary).await?;
                n_waiting = 0;
                last_flush = Instant::now();
                if stop.is_cancelled() {
                    return Ok(false);
                }
            }
        }
        flush(sink, &mut waiting, &mut tracks, summary).await?;
        Ok(!stop.is_cancelled())
    }

    async fn finish(
        &self,
        record: &SourceRecord,
        sink: &mut Sink,
        summary: &mut FileSummary,
    ) -> anyhow::Result<Outcome> {
        let settled = sink.settle(self.wait).await?;
        if let Sink::Stream(_) = sink {
            if !settled {
                return Ok(Outcome::InStream);
            }
            summary.stored = summary.rows;
        }
        let Some(store) = sink.store() else {
            return Ok(Outcome::Reported);
        };
        let n_rows = i64::try_from(summary.rows).unwrap_or(i64::MAX);
        store
            .announce_session(&Session {
                session_id: record.session_id.clone(),
                started_at: None,
                ended_at: Some(summary.last_time.unwrap_or(record.start_time)),
                source: None,
            })
            .await?;
        summary.people = people(store, &record.session_id).await?;
        // Last: whoever was stopped before this runs to the session's end again.
        store
            .finish_source(&record.session_id, &record.digest, n_rows)
            .await?;
        Ok(Outcome::Stored)
    }
}

/// Counts the people of a session that has ended.
///
/// A worker may be counting them at the same time; of two counts only the later one is made.
async fn people(store: &mut Store, session_id: &str) -> anyhow::Result<Option<SessionSummary>> {
    for _ in 0..MAX_COUNTS {
        if let Some(people) = store.summarize_session(session_id).await? {
            return Ok(Some(people));
        }
        tokio::time::sleep(BETWEEN_COUNTS).await;
        let session = store.session(session_id).await?;
        if let Some(people) = session.and_then(|session| session.summary) {
            return Ok(Some(people));
        }
    }
    // Rows keep coming in: a worker will count when they no longer do.
    Ok(None)
}

async fn flush(
    sink: &mut Sink,
    waiting: &mut Vec<KeyedRows>,
    tracks: &mut Tracks,
    summary: &mut FileSummary,
) -> anyhow::Result<()> {
    let written = sink.write(waiting).await?;
    waiting.clear();
    summary.stored += written.stored;
    summary.already_stored += written.already;
    let (snapshots, last_time) = tracks.take_changed();
    sink.write_tracks(&snapshots).await?;
    summary.tracks = tracks.n_seen;
    summary.last_time = last_time;
    Ok(())
}

/// The tracks that were seen lately, with those that changed since the last flush.
#[derive(Default)]
struct Tracks {
    alive: HashMap<TrackId, (TrackBuilder, DateTime<Utc>, bool)>,
    last_time: Option<DateTime<Utc>>,
    n_seen: u64,
}

impl Tracks {
    fn add(&mut self, row: &Detection) {
        self.last_time = self.last_time.max(Some(row.timestamp));
        let Some(track_id) = row.track_id else { return };
        let id = TrackId {
            session_id: row.session_id.clone(),
            camera_id: row.camera_id.clone(),
            track_id,
        };
        match self.alive.get_mut(&id) {
            Some((builder, last_seen, changed)) => {
                builder.add(row);
                *last_seen = row.timestamp;
                *changed = true;
            }
            None => {
                if let Some(builder) = TrackBuilder::new(row) {
                    self.n_seen += 1;
                    self.alive.insert(id, (builder, row.timestamp, true));
                }
            }
        }
    }

    fn take_changed(&mut self) -> (Vec<Track>, Option<DateTime<Utc>>) {
        let mut snapshots = Vec::new();
        for (builder, _, changed) in self.alive.values_mut().filter(|(_, _, changed)| *changed) {
            snapshots.push(builder.snapshot());
            *changed = false;
        }
        if let Some(now) = self.last_time {
            self.alive
                .retain(|_, (_, last_seen, _)| now - *last_seen < TRACK_MEMORY);
        }
        (snapshots, self.last_time)
    }
}

fn params(record: &SourceRecord, fps: FrameRate) -> SourceParams {
    SourceParams {
        camera_id: record.camera_id.clone(),
        channel_id: record.channel_id,
        session_id: record.session_id.clone(),
        fps,
        start_time: record.start_time,
    }
}

fn file_name(path: &Path) -> String {
    match path.file_name() {
        Some(name) if path != Path::new("-") => clean(&name.to_string_lossy()),
        _ => "stdin".to_owned(),
    }
}

/// The file's name up to its first dot, as the name of a camera.
fn stem(path: &Path) -> String {
    let name = file_name(path);
    let stem = name
        .split('.')
        .find(|part| !part.is_empty())
        .unwrap_or("stdin");
    cut(stem, MAX_ID_BYTES)
}

/// A session named after file and content: the same file read again is the same session.
fn default_session(path: &Path, digest: &[u8; 32]) -> String {
    let tail: String = digest[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{}-{tail}", cut(&stem(path), MAX_ID_BYTES - 9))
}

fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '_' } else { c })
        .collect()
}

fn cut(text: &str, n_bytes: usize) -> String {
    let mut end = text.len().min(n_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Adds up the people of several sessions.
pub(crate) fn total_people<'a>(
    summaries: impl IntoIterator<Item = &'a FileSummary>,
) -> SessionSummary {
    summaries.into_iter().filter_map(|file| file.people).fold(
        SessionSummary::default(),
        |sum, people| SessionSummary {
            detections: sum.detections + people.detections,
            people: sum.people + people.people,
            male: sum.male + people.male,
            female: sum.female + people.female,
            unknown: sum.unknown + people.unknown,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn camera_and_session_are_named_after_the_file() {
        assert_eq!(stem(Path::new("/x/gate-1.mot.txt")), "gate-1");
        assert_eq!(stem(Path::new("-")), "stdin");
        assert_eq!(stem(Path::new(".hidden")), "hidden");
        assert_eq!(
            default_session(Path::new("a.txt"), &[0xab; 32]),
            "a-abababab"
        );
        let long = "ü".repeat(100);
        assert!(default_session(Path::new(&long), &[0; 32]).len() <= MAX_ID_BYTES);
    }
}
