//! A file to read detections from.
//!
//! What can be read only once, standard input or a pipe, is first copied into an unnamed temporary
//! file, because the keys of what is stored are made from the digest of the whole.

use std::{
    fs::{File, Metadata},
    io::{self, BufReader, Read, Seek, SeekFrom, Take},
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use super::{Chunk, ChunkReader, FileFormat, SourceError, SourceParams, digest::sha256};
use crate::visible::visible;

const BUFFER_BYTES: usize = 256 * 1024;

/// A file whose rows can be read more than once, each time the same.
#[derive(Debug)]
pub struct Source {
    name: Arc<str>,
    file: File,
    seen: Seen,
    format: FileFormat,
}

impl Source {
    /// Opens a file; `-` is standard input. The format is found out where none is given.
    ///
    /// # Errors
    ///
    /// [`SourceError`] when it cannot be opened or read.
    pub fn open(path: &Path, format: Option<FileFormat>) -> Result<Self, SourceError> {
        if path == Path::new("-") {
            let name = Arc::from("<stdin>");
            let file = spool(&name, io::stdin().lock())?;
            return Self::new(name, file, format);
        }
        let name: Arc<str> = visible(&path.to_string_lossy()).into();
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|source| SourceError::Open {
            file: name.clone(),
            source,
        })?;
        if metadata.is_dir() {
            return Err(SourceError::Directory { file: name });
        }
        let file = if metadata.is_file() {
            file
        } else {
            spool(&name, file)?
        };
        Self::new(
            name,
            file,
            format.or_else(|| FileFormat::from_extension(path)),
        )
    }

    fn new(
        name: Arc<str>,
        mut file: File,
        format: Option<FileFormat>,
    ) -> Result<Self, SourceError> {
        let mut look = || {
            let seen = Seen::of(&file.metadata()?);
            let format = match format {
                Some(format) => format,
                None => {
                    file.rewind()?;
                    FileFormat::from_content(BufReader::new(&file))?
                }
            };
            Ok((seen, format))
        };
        let (seen, format) = look().map_err(|source| SourceError::Read {
            file: name.clone(),
            source,
        })?;
        Ok(Self {
            name,
            file,
            seen,
            format,
        })
    }

    /// The file as it was named, safe to print; `<stdin>` for standard input.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes it has.
    pub fn n_bytes(&self) -> u64 {
        self.seen.n_bytes
    }

    /// How it is written.
    pub fn format(&self) -> FileFormat {
        self.format
    }

    /// Reads the whole file and returns its SHA-256. `on_bytes` hears how many bytes were read.
    ///
    /// # Errors
    ///
    /// [`SourceError`] when reading fails.
    pub fn digest(&mut self, on_bytes: impl FnMut(u64)) -> Result<[u8; 32], SourceError> {
        let digest = self.content().and_then(|content| sha256(content, on_bytes));
        let digest = digest.map_err(|source| self.read_failed(source))?;
        self.ensure_unchanged()?;
        Ok(digest)
    }

    /// Reads the file from its start, chunk after chunk.
    ///
    /// Reads exactly what [`Source::digest`] reads, and ends with [`SourceError::Changed`] when
    /// somebody wrote into the file since it was opened.
    ///
    /// # Errors
    ///
    /// [`SourceError`] when the file cannot be read.
    pub fn chunks(&mut self, params: SourceParams) -> Result<SourceChunks<'_>, SourceError> {
        let content = self.content().map_err(|source| self.read_failed(source))?;
        let reader = BufReader::with_capacity(BUFFER_BYTES, content);
        let chunks = ChunkReader::new(reader, self.name.clone(), self.format, params);
        Ok(SourceChunks {
            source: self,
            chunks: Some(chunks),
        })
    }

    fn content(&mut self) -> io::Result<Take<File>> {
        self.file.seek(SeekFrom::Start(0))?;
        Ok(self.file.try_clone()?.take(self.seen.n_bytes))
    }

    fn read_failed(&self, source: io::Error) -> SourceError {
        SourceError::Read {
            file: self.name.clone(),
            source,
        }
    }

    fn ensure_unchanged(&self) -> Result<(), SourceError> {
        let now = self
            .file
            .metadata()
            .map_err(|source| self.read_failed(source))?;
        if Seen::of(&now) == self.seen {
            return Ok(());
        }
        Err(SourceError::Changed {
            file: self.name.clone(),
        })
    }
}

/// The chunks of a [`Source`]. The first error ends them.
#[derive(Debug)]
pub struct SourceChunks<'a> {
    source: &'a Source,
    chunks: Option<ChunkReader<BufReader<Take<File>>>>,
}

impl Iterator for SourceChunks<'_> {
    type Item = Result<Chunk, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.chunks.as_mut()?.next() {
            Some(Ok(chunk)) => Some(Ok(chunk)),
            Some(Err(error)) => {
                self.chunks = None;
                Some(Err(self.source.read_failed(error)))
            }
            None => {
                self.chunks = None;
                self.source.ensure_unchanged().err().map(Err)
            }
        }
    }
}

/// What tells that a file was written into.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    n_bytes: u64,
    modified: Option<SystemTime>,
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        Self {
            n_bytes: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

fn spool(name: &Arc<str>, mut from: impl Read) -> Result<File, SourceError> {
    tempfile::tempfile()
        .and_then(|mut file| io::copy(&mut from, &mut file).map(|_| file))
        .map_err(|source| SourceError::Spool {
            file: name.clone(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

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

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn a_file_is_read_as_often_as_wanted_and_always_the_same() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/TUD-Campus.mot.txt");
        let mut source = Source::open(Path::new(path), None).unwrap();
        assert_eq!((source.name(), source.format()), (path, FileFormat::Mot));
        let digest = source.digest(|_| {}).unwrap();
        let read = |source: &mut Source| -> Vec<Chunk> {
            source
                .chunks(params())
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap()
        };
        let first = read(&mut source);
        assert_eq!(first.len(), 3);
        assert_eq!(read(&mut source), first);
        assert_eq!(source.digest(|_| {}).unwrap(), digest);
        assert_eq!(source.n_bytes(), first[2].n_bytes_read);
    }

    #[test]
    fn a_file_of_unknown_name_is_known_by_its_content() {
        let check = |content: &[u8], expected| {
            let source = Source::open(file(content).path(), None).unwrap();
            assert_eq!(source.format(), expected);
        };
        check(b"\n{\"a\":1}", FileFormat::Ndjson);
        check(b"1,2,3,4,5,6", FileFormat::Mot);
    }

    #[test]
    fn a_file_that_grows_meanwhile_is_reported() {
        let mut file = file(b"1,2,3,4,5,6\n");
        let mut source = Source::open(file.path(), None).unwrap();
        file.write_all(b"2,2,3,4,5,6\n").unwrap();
        let chunks: Vec<_> = source.chunks(params()).unwrap().collect();
        assert_eq!(chunks[0].as_ref().unwrap().rows.len(), 1);
        assert!(matches!(chunks[1], Err(SourceError::Changed { .. })));
        assert_eq!(chunks.len(), 2);
        assert!(matches!(
            source.digest(|_| {}),
            Err(SourceError::Changed { .. })
        ));
    }

    #[test]
    fn what_is_no_file_is_told_in_one_line() {
        let check = |path: &Path, expected: &str| {
            let error = Source::open(path, None).unwrap_err();
            let said = passerby_shared::ErrorChain(&error).to_string();
            assert_eq!(said, expected);
        };
        check(Path::new("/"), "`/` is a directory: name the files in it");
        check(
            Path::new("/no/such/file"),
            "open `/no/such/file`: No such file or directory (os error 2)",
        );
    }

    #[test]
    fn what_can_be_read_once_is_kept() {
        let name = Arc::from("<stdin>");
        let spooled = spool(&name, &b"{\"a\":1}\n"[..]).unwrap();
        let mut source = Source::new(name, spooled, None).unwrap();
        assert_eq!((source.format(), source.n_bytes()), (FileFormat::Ndjson, 8));
        let chunks: Vec<_> = source.chunks(params()).unwrap().collect();
        let errors = &chunks[0].as_ref().unwrap().errors;
        assert_eq!(
            errors[0].to_string(),
            "<stdin>:1: timestamp: is missing, and so is the \
             frame_number that it could be made from"
        );
    }
}
