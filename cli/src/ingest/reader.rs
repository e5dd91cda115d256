//! Streams a file as chunks of fixed position.
//!
//! Chunk k holds the data lines at positions k × [`CHUNK_LINES`] and following. Good and bad lines
//! both count, so that a chunk's content depends on the file alone, and a chunk read again is the
//! same chunk. One chunk is in memory at a time.

use std::{
    io::{self, BufRead},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use passerby_shared::{Detection, Invalid};

use super::{
    FileFormat, FrameRate, LineError, LineProblem,
    lines::{Line, Lines},
    mot, ndjson,
};

/// How many data lines one chunk holds; the last chunk of a file may hold fewer.
pub const CHUNK_LINES: u64 = 100;

/// Reads detections from lines, chunk after chunk.
///
/// A failed read ends it.
#[derive(Debug)]
pub struct ChunkReader<R> {
    lines: Lines<R>,
    file: Arc<str>,
    format: FileFormat,
    params: SourceParams,
    next_index: u64,
    is_done: bool,
}

impl<R: BufRead> ChunkReader<R> {
    /// Reads `reader` from where it stands. `file` is what errors call it.
    pub fn new(
        reader: R,
        file: impl Into<Arc<str>>,
        format: FileFormat,
        params: SourceParams,
    ) -> Self {
        Self {
            lines: Lines::new(reader),
            file: file.into(),
            format,
            params,
            next_index: 0,
            is_done: false,
        }
    }

    fn read_chunk(&mut self) -> io::Result<Option<Chunk>> {
        let mut chunk = Chunk {
            index: self.next_index,
            rows: Vec::new(),
            errors: Vec::new(),
            n_clamped: 0,
            n_bytes_read: 0,
        };
        let first_position = chunk.index * CHUNK_LINES;
        for position in first_position..first_position + CHUNK_LINES {
            let parsed = match self.lines.next_data_line()? {
                None => {
                    self.is_done = true;
                    break;
                }
                Some(Line::TooLong) => Err(LineProblem::TooLong),
                Some(Line::Data(line)) => parse(line, position, self.format, &self.params),
            };
            match parsed {
                Ok((row, is_clamped)) => {
                    chunk.rows.push(row);
                    chunk.n_clamped += u64::from(is_clamped);
                }
                Err(problem) => chunk.errors.push(LineError {
                    file: self.file.clone(),
                    line: self.lines.line_number(),
                    problem,
                }),
            }
        }
        chunk.n_bytes_read = self.lines.n_bytes();
        self.next_index += 1;
        Ok((chunk.n_lines() > 0).then_some(chunk))
    }
}

impl<R: BufRead> Iterator for ChunkReader<R> {
    type Item = io::Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let chunk = self.read_chunk();
        self.is_done |= chunk.is_err();
        chunk.transpose()
    }
}

/// The lines of a file that are stored or not stored together.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Which chunk of the file it is, counted from 0.
    pub index: u64,
    /// What the good lines hold, in their order. Each row is valid.
    pub rows: Vec<Detection>,
    /// What is wrong with the bad lines.
    pub errors: Vec<LineError>,
    /// How many rows had a confidence outside 0…1, which was clamped.
    pub n_clamped: u64,
    /// How many bytes of the file have been read when this chunk ends.
    pub n_bytes_read: u64,
}

impl Chunk {
    /// How many data lines it is made from.
    pub fn n_lines(&self) -> usize {
        self.rows.len() + self.errors.len()
    }
}

/// What a file does not say of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceParams {
    /// The camera of lines that name none.
    pub camera_id: String,
    /// The channel of lines that name none.
    pub channel_id: i32,
    /// The session of lines that name none.
    pub session_id: String,
    /// How far frames are apart.
    pub fps: FrameRate,
    /// The time of frame 1.
    pub start_time: DateTime<Utc>,
}

impl SourceParams {
    /// Checks every value, so that a wrong flag is one error and not one on each line.
    ///
    /// # Errors
    ///
    /// Names the first value that cannot be stored and says why.
    pub fn validate(&self) -> Result<(), Invalid> {
        Detection {
            timestamp: self.start_time,
            session_id: self.session_id.clone(),
            camera_id: self.camera_id.clone(),
            channel_id: self.channel_id,
            detection_id: 1,
            track_id: None,
            confidence: None,
            bbox_x: 0.0,
            bbox_y: 0.0,
            bbox_width: 0.0,
            bbox_height: 0.0,
            gender: None,
            gender_confidence: None,
            frame_number: 1,
            degraded: false,
        }
        .validate()
        .map_err(|invalid| match invalid.field() {
            "timestamp" => Invalid::new("start_time", invalid.problem()),
            _ => invalid,
        })
    }

    pub(super) fn time_of(&self, frame: i64) -> Result<DateTime<Utc>, Invalid> {
        self.fps.time_of(self.start_time, frame).ok_or_else(|| {
            Invalid::new(
                "frame_number",
                format_args!(
                    "{frame} puts the time out of range: check the frame rate and the start time"
                ),
            )
        })
    }

    /// The id of a detection that has none: the place of its line, counted from 1.
    pub(super) fn detection_id_at(position: u64) -> i64 {
        i64::try_from(position + 1).unwrap_or(i64::MAX)
    }
}

fn parse(
    line: &[u8],
    position: u64,
    format: FileFormat,
    params: &SourceParams,
) -> Result<(Detection, bool), LineProblem> {
    let line = std::str::from_utf8(line)?;
    match format {
        FileFormat::Mot => {
            let row = mot::parse(line, position, params)?;
            Ok((row.detection, row.is_clamped))
        }
        FileFormat::Ndjson => Ok((ndjson::parse(line, position, params)?, false)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn params() -> SourceParams {
        SourceParams {
            camera_id: "cam".into(),
            channel_id: 0,
            session_id: "run".into(),
            fps: "10".parse().unwrap(),
            start_time: "2026-09-21T12:00:00Z".parse().unwrap(),
        }
    }

    fn chunks(file: &[u8], format: FileFormat) -> Vec<Chunk> {
        let reader = ChunkReader::new(file, "f", format, params());
        reader.collect::<io::Result<_>>().unwrap()
    }

    #[test]
    fn the_recorded_scenes_are_read_whole() {
        let check = |file: &[u8], n_rows, n_tracks, n_clamped| {
            let chunks = chunks(file, FileFormat::Mot);
            let rows: Vec<_> = chunks.iter().flat_map(|chunk| &chunk.rows).collect();
            let tracks: HashSet<_> = rows.iter().filter_map(|row| row.track_id).collect();
            assert_eq!((rows.len(), tracks.len()), (n_rows, n_tracks));
            assert!(chunks.iter().all(|chunk| chunk.errors.is_empty()));
            assert_eq!(
                chunks.iter().map(|chunk| chunk.n_clamped).sum::<u64>(),
                n_clamped
            );
            assert_eq!(chunks.last().unwrap().n_bytes_read, file.len() as u64);
        };
        check(
            include_bytes!("../../data/vtest-hog.mot.txt"),
            2522,
            115,
            1794,
        );
        check(include_bytes!("../../data/TUD-Campus.mot.txt"), 222, 13, 0);
    }

    #[test]
    fn a_bad_line_keeps_its_place_and_moves_no_other() {
        let mut file = b"# frame, track, \xe2\x80\xa6\n\n".to_vec();
        for line in 0..250 {
            match line {
                7 => file.extend_from_slice(b"1,2,\xff\n\n"),
                120 => file.extend_from_slice(b"nonsense\r\n"),
                _ => file.extend_from_slice(b"1,2,3,4,5,6,7\n"),
            }
        }
        let chunks = chunks(&file, FileFormat::Mot);

        let n_rows: Vec<_> = chunks
            .iter()
            .map(|chunk| (chunk.index, chunk.rows.len()))
            .collect();
        assert_eq!(n_rows, [(0, 99), (1, 99), (2, 50)]);
        assert_eq!(chunks[1].rows[20].detection_id, 122);
        assert_eq!(chunks[2].rows[0].detection_id, 201);
        let errors: Vec<_> = chunks
            .iter()
            .flat_map(|chunk| &chunk.errors)
            .map(LineError::to_string)
            .collect();
        assert_eq!(
            errors,
            [
                "f:10: byte 5 of the line is not UTF-8: save the file as UTF-8 text",
                "f:124: the number of columns is 1, expected 6 to 10: frame, track id, left, top, \
                 width, height, confidence, and up to 3 more",
            ]
        );
    }

    #[test]
    fn a_file_without_data_has_no_chunks() {
        assert_eq!(chunks(b"", FileFormat::Mot), []);
        assert_eq!(chunks(b"# nothing\n\n", FileFormat::Ndjson), []);
        let hundred = "1,2,3,4,5,6\n".repeat(100);
        assert_eq!(chunks(hundred.as_bytes(), FileFormat::Mot).len(), 1);
    }

    #[test]
    fn a_wrong_flag_is_told_once() {
        let check = |change: fn(&mut SourceParams), expected: &str| {
            let mut params = params();
            change(&mut params);
            let said = params
                .validate()
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default();
            assert_eq!(said, expected);
        };
        check(|_| {}, "");
        check(|p| p.session_id.clear(), "session_id: is empty");
        check(
            |p| p.start_time = DateTime::UNIX_EPOCH,
            "start_time: 1970-01-01T00:00:00Z is outside 2000…2100 (a number means microseconds \
             since 1970)",
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(
            file in proptest::collection::vec(
                prop_oneof![
                    any::<u8>(),
                    proptest::sample::select(b"\n\r,,,,{}[]\":.-+eE0123456789# \\u".to_vec()),
                ],
                0..2000,
            ),
        ) {
            for format in [FileFormat::Mot, FileFormat::Ndjson] {
                for chunk in ChunkReader::new(&file[..], "f", format, params()) {
                    for row in chunk.unwrap().rows {
                        prop_assert_eq!(row.validate(), Ok(()));
                    }
                }
            }
        }
    }
}
