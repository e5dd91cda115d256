//! Any bytes as a file to ingest.

use std::{
    io::{BufRead, BufReader},
    sync::LazyLock,
};

use passerby::ingest::{CHUNK_LINES, Chunk, ChunkReader, FileFormat, LineError, SourceParams};
use passerby_shared::Detection;

use super::memory::bounded;

/// Longest text about a bad line: it quotes at most 40 characters, each of which may be escaped.
const MAX_MESSAGE_BYTES: usize = 1024;
/// Lines longer than this are passed over.
const MAX_LINE_BYTES: usize = 1024 * 1024;

pub(super) fn run(format: FileFormat, data: &[u8]) {
    // What a file may allocate, however long it is: one chunk is in memory, 100 rows or complaints, in
    // a vector that grows. A line is held once, three times while it grows, and its texts twice.
    let max_bytes = 128 * 1024 + 8 * data.len().min(MAX_LINE_BYTES);
    bounded(max_bytes, || {
        FileFormat::from_content(data).unwrap();
        chunks(format, data).for_each(drop);
    });

    let in_chunks: Vec<Chunk> = chunks(format, data).collect();
    check_chunks(&in_chunks, data.len() as u64);
    let rows: Vec<&Detection> = in_chunks.iter().flat_map(|chunk| &chunk.rows).collect();
    let errors: Vec<&LineError> = in_chunks.iter().flat_map(|chunk| &chunk.errors).collect();
    for error in errors.iter().take(4) {
        let said = error.to_string();
        assert!(said.len() <= MAX_MESSAGE_BYTES && !said.contains(char::is_control));
    }
    // What follows takes several times as long: of long files some are enough.
    if data.len() <= 128 || data.len().is_multiple_of(32) {
        let in_pieces = BufReader::with_capacity(1 + data.len() % 61, data);
        assert!(chunks(format, in_pieces).eq(in_chunks.iter().cloned()));
        each_line_alone(format, data, &rows, &errors);
        as_ndjson(&rows);
    }
}

fn chunks(format: FileFormat, reader: impl BufRead) -> impl Iterator<Item = Chunk> {
    static PARAMS: LazyLock<SourceParams> = LazyLock::new(|| SourceParams {
        camera_id: "cam".into(),
        channel_id: 0,
        session_id: "run".into(),
        fps: "25".parse().unwrap(),
        start_time: "2026-09-21T12:00:00Z".parse().unwrap(),
    });
    ChunkReader::new(reader, "f", format, PARAMS.clone()).map(Result::unwrap)
}

/// Every chunk but the last is full, its rows are valid, and no byte is read twice.
fn check_chunks(chunks: &[Chunk], n_bytes: u64) {
    let mut n_bytes_read = 0;
    for (nth, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk.index, nth as u64);
        let n_lines = chunk.n_lines() as u64;
        assert!(n_lines == CHUNK_LINES || (nth + 1 == chunks.len() && n_lines < CHUNK_LINES));
        assert!((n_bytes_read + 1..=n_bytes).contains(&chunk.n_bytes_read));
        n_bytes_read = chunk.n_bytes_read;
        assert!(chunk.n_clamped <= chunk.rows.len() as u64);
        for row in &chunk.rows {
            assert_eq!(row.validate(), Ok(()));
        }
    }
}

/// A line means the same wherever it stands: only a number that the file gives the detection tells.
fn each_line_alone(format: FileFormat, data: &[u8], rows: &[&Detection], errors: &[&LineError]) {
    let (mut rows, mut errors) = (rows.iter(), errors.iter());
    for (nth, line) in data.split_inclusive(|&byte| byte == b'\n').enumerate() {
        // At the beginning of a file it would be no part of the line.
        if nth > 0 && line.starts_with(b"\xef\xbb\xbf") {
            return;
        }
        for chunk in chunks(format, line) {
            for mut row in chunk.rows {
                let in_file = rows.next().unwrap();
                if row.detection_id == 1 {
                    row.detection_id = in_file.detection_id;
                }
                assert_eq!(row, **in_file);
            }
            for error in chunk.errors {
                let in_file = errors.next().unwrap();
                assert_eq!(error.problem, in_file.problem);
                assert_eq!(in_file.line, nth as u64 + 1);
            }
        }
    }
    assert!(rows.next().is_none() && errors.next().is_none());
}

/// What was read from either format can be written as NDJSON and read again.
fn as_ndjson(rows: &[&Detection]) {
    if rows.is_empty() {
        return;
    }
    let mut written = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut written, row).unwrap();
        written.push(b'\n');
    }
    let read = chunks(FileFormat::Ndjson, &written[..]).flat_map(|chunk| {
        assert_eq!(chunk.errors, []);
        chunk.rows
    });
    assert!(read.eq(rows.iter().map(|row| (*row).clone())));
}
