//! Takes a file apart into lines, in memory that no file can make grow.
//!
//! Blank lines and lines that begin with `#` are passed over; every other line is data, good or bad.
//! A line ends with LF or CRLF, the last one also with the file. A byte order mark at the start
//! belongs to no line. A line longer than [`MAX_LINE_BYTES`] is skipped to its end.

use std::io::{self, BufRead};

/// The longest line that is looked at.
pub(super) const MAX_LINE_BYTES: usize = 1024 * 1024;

#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    line_number: u64,
    n_bytes: u64,
}

/// One data line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Without its end, and without white space around it.
    Data(&'a [u8]),
    /// It was longer than [`MAX_LINE_BYTES`].
    TooLong,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            line: Vec::new(),
            line_number: 0,
            n_bytes: 0,
        }
    }

    /// The number of the line returned last, counted from 1, comments and blank lines included.
    pub(super) fn line_number(&self) -> u64 {
        self.line_number
    }

    /// How many bytes of the file have been read.
    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Returns the next line that is neither blank nor a comment, `None` at the end.
    pub(super) fn next_data_line(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            let Some(fits) = self.read_line()? else {
                return Ok(None);
            };
            let line = self.line.trim_ascii();
            if line.first() == Some(&b'#') || (line.is_empty() && fits) {
                continue;
            }
            break Ok(Some(if fits {
                Line::Data(self.line.trim_ascii())
            } else {
                Line::TooLong
            }));
        }
    }

    /// Reads the next line into `self.line`. Returns whether it fits, `None` at the end.
    fn read_line(&mut self) -> io::Result<Option<bool>> {
        self.line.clear();
        let mut fits = true;
        let mut is_any = false;
        loop {
            let piece = match self.reader.fill_buf() {
                Ok(piece) => piece,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = piece.iter().position(|&byte| byte == b'\n');
            let content = &piece[..end.unwrap_or(piece.len())];
            let room = MAX_LINE_BYTES - self.line.len();
            fits &= content.len() <= room;
            self.line
                .extend_from_slice(&content[..content.len().min(room)]);
            let n_used = end.map_or(piece.len(), |end| end + 1);
            let is_last = end.is_some() || n_used == 0;
            is_any |= n_used > 0;
            self.reader.consume(n_used);
            self.n_bytes += n_used as u64;
            if is_last {
                break;
            }
        }
        if !is_any {
            return Ok(None);
        }
        self.line_number += 1;
        if self.line_number == 1 && self.line.starts_with(b"\xef\xbb\xbf") {
            self.line.drain(..3);
        }
        Ok(Some(fits))
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// Expects `(line number, content)`; `None` stands for a line that is too long.
    fn check(file: &[u8], expected: &[(u64, Option<&str>)]) {
        for capacity in [1, 7, 64 * 1024] {
            let mut lines = Lines::new(BufReader::with_capacity(capacity, file));
            let mut found = Vec::new();
            while let Some(line) = lines.next_data_line().unwrap() {
                let text = match line {
                    Line::Data(line) => Some(String::from_utf8_lossy(line).into_owned()),
                    Line::TooLong => None,
                };
                found.push((lines.line_number(), text));
            }
            let found: Vec<_> = found.iter().map(|(n, t)| (*n, t.as_deref())).collect();
            assert_eq!(found, expected);
            assert_eq!(lines.n_bytes(), file.len() as u64);
        }
    }

    #[test]
    fn lines_end_as_people_end_them() {
        check(b"", &[]);
        check(b"\n\r\n \t\n", &[]);
        check(b"a", &[(1, Some("a"))]);
        check(b"a\nb\n", &[(1, Some("a")), (2, Some("b"))]);
        check(b"a\r\n\r\nb", &[(1, Some("a")), (3, Some("b"))]);
        check(b"\xef\xbb\xbfa\n", &[(1, Some("a"))]);
        check(b"\xef\xbb\xbf# c\n #d\n e # f\n", &[(3, Some("e # f"))]);
        check(b"\xef\xbb\xbf", &[]);
    }

    #[test]
    fn a_line_without_end_is_skipped_and_costs_only_itself() {
        let mut file = vec![b'x'; MAX_LINE_BYTES];
        let exact = String::from_utf8(file.clone()).unwrap();
        file.extend_from_slice(b"\na");
        check(&file, &[(1, Some(exact.as_str())), (2, Some("a"))]);
        file.insert(0, b'x');
        check(&file, &[(1, None), (2, Some("a"))]);
        let blank = [vec![b' '; MAX_LINE_BYTES], b"b\nc".to_vec()].concat();
        check(&blank, &[(1, None), (2, Some("c"))]);
    }
}
