//! Reads recorded detections from files: the steps before anything is stored.
//!
//! A [`Source`] is opened and its digest taken; [`Source::chunks`] then streams it in chunks of fixed
//! position, whatever its size. A chunk is what is stored or not stored as a whole, under
//! [`chunk_key`], so that the same file read again stores nothing twice. A bad line is a
//! [`LineError`] beside the good rows of its chunk.

mod digest;
mod format;
mod frame_rate;
mod json_value;
mod line_error;
mod lines;
mod mot;
mod ndjson;
mod pacer;
mod reader;
mod source;
mod source_error;

pub use digest::chunk_key;
pub use format::{FileFormat, UnknownFileFormat};
pub use frame_rate::{FrameRate, InvalidFrameRate};
pub use line_error::{LineError, LineProblem};
pub use pacer::{InvalidSpeed, Pacer, Speed};
pub use reader::{CHUNK_LINES, Chunk, ChunkReader, SourceParams};
pub use source::{Source, SourceChunks};
pub use source_error::SourceError;
