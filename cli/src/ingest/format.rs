//! The formats that detections are recorded in, and how a file's is found out.

use std::{
    fmt,
    io::{self, BufRead},
    path::Path,
    str::FromStr,
};

use super::lines::{Line, Lines};

/// How detections are written in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// MOTChallenge text: comma-separated columns, one detection a line.
    Mot,
    /// One JSON object a line, with the column names of a detection.
    Ndjson,
}

impl FileFormat {
    /// The format that the file's name stands for, if it stands for one.
    pub fn from_extension(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "ndjson" | "jsonl" | "json" => Some(Self::Ndjson),
            "txt" | "csv" | "mot" => Some(Self::Mot),
            _ => None,
        }
    }

    /// The format that the content looks like: NDJSON where the first data line begins with `{`.
    ///
    /// # Errors
    ///
    /// When reading fails.
    pub fn from_content(content: impl BufRead) -> io::Result<Self> {
        let mut lines = Lines::new(content);
        Ok(match lines.next_data_line()? {
            Some(Line::Data(line)) if line.first() == Some(&b'{') => Self::Ndjson,
            _ => Self::Mot,
        })
    }

    /// The name, as `--format` takes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mot => "mot",
            Self::Ndjson => "ndjson",
        }
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of mot, ndjson")]
pub struct UnknownFileFormat(String);

impl FromStr for FileFormat {
    type Err = UnknownFileFormat;

    fn from_str(s: &str) -> Result<Self, UnknownFileFormat> {
        [Self::Mot, Self::Ndjson]
            .into_iter()
            .find(|format| format.as_str() == s)
            .ok_or_else(|| UnknownFileFormat(crate::visible::excerpt(s)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_names_the_format() {
        let check = |name: &str, expected| {
            assert_eq!(
                FileFormat::from_extension(Path::new(name)),
                expected,
                "{name}"
            );
        };
        check("a/b.NDJSON", Some(FileFormat::Ndjson));
        check("b.jsonl", Some(FileFormat::Ndjson));
        check("b.json", Some(FileFormat::Ndjson));
        check("vtest-hog.mot.txt", Some(FileFormat::Mot));
        check("b.csv", Some(FileFormat::Mot));
        check("b.mot", Some(FileFormat::Mot));
        check("b.json.log", None);
        check("-", None);
        check("", None);
    }

    #[test]
    fn else_the_first_data_line_does() {
        let check = |content: &[u8], expected| {
            assert_eq!(FileFormat::from_content(content).unwrap(), expected);
        };
        check(b"\xef\xbb\xbf\r\n \n# c\n  {\"a\":1}", FileFormat::Ndjson);
        check(b"1,2,3", FileFormat::Mot);
        check(b"", FileFormat::Mot);
        check(b"\xff\x00", FileFormat::Mot);
    }
}
