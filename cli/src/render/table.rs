//! Writes rows as a table for people, as JSON or as CSV.
//!
//! JSON is one object a line, so that a query of any length streams and its detections can be
//! ingested again. A table is written in blocks of [`BLOCK_ROWS`] rows, each with widths of its own:
//! memory is bounded there too.

use std::{
    fmt,
    io::{self, Write},
};

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Cell, Terminal, aligned};

const BLOCK_ROWS: usize = 1000;

/// Writes rows one after the other.
pub struct TableWriter<W: Write> {
    columns: &'static [Column],
    n_rows: u64,
    sink: Sink<W>,
}

impl<W: Write> TableWriter<W> {
    /// Begins to write to `out`. `terminal` matters to tables alone.
    pub fn new(out: W, columns: &'static [Column], output: Output, terminal: Terminal) -> Self {
        let sink = match output {
            Output::Table => Sink::Table {
                out,
                terminal,
                block: Vec::new(),
            },
            Output::Json => Sink::Json(out),
            Output::Csv => Sink::Csv {
                writer: Box::new(csv::Writer::from_writer(out)),
                is_begun: false,
            },
        };
        Self {
            columns,
            n_rows: 0,
            sink,
        }
    }

    /// Writes one row, with a cell for each column in order.
    ///
    /// # Errors
    ///
    /// When writing fails; [`io::ErrorKind::BrokenPipe`] when the reader has seen enough.
    pub fn row(&mut self, cells: Vec<Cell>) -> io::Result<()> {
        debug_assert_eq!(cells.len(), self.columns.len(), "one cell for each column");
        self.n_rows += 1;
        match &mut self.sink {
            Sink::Table {
                out,
                terminal,
                block,
            } => {
                block.push(cells);
                if block.len() >= BLOCK_ROWS {
                    let n_before = self.n_rows - block.len() as u64;
                    aligned::write(out, self.columns, block, n_before, *terminal)?;
                    block.clear();
                }
                Ok(())
            }
            Sink::Json(out) => {
                let object = Object {
                    columns: self.columns,
                    cells: &cells,
                };
                serde_json::to_writer(&mut *out, &object)?;
                out.write_all(b"\n")
            }
            Sink::Csv { writer, is_begun } => {
                begin_csv(writer, is_begun, self.columns)?;
                Ok(writer.write_record(cells.iter().map(Cell::to_csv))?)
            }
        }
    }

    /// Writes what is left and returns the number of rows. A table without rows says so.
    ///
    /// # Errors
    ///
    /// When writing fails; [`io::ErrorKind::BrokenPipe`] when the reader has seen enough.
    pub fn finish(self) -> io::Result<u64> {
        match self.sink {
            Sink::Table {
                mut out,
                terminal,
                block,
            } => {
                if self.n_rows == 0 {
                    writeln!(out, "no rows")?;
                } else if !block.is_empty() {
                    let n_before = self.n_rows - block.len() as u64;
                    aligned::write(&mut out, self.columns, &block, n_before, terminal)?;
                }
                out.flush()?;
            }
            Sink::Json(mut out) => out.flush()?,
            Sink::Csv {
                mut writer,
                mut is_begun,
            } => {
                begin_csv(&mut writer, &mut is_begun, self.columns)?;
                writer.flush()?;
            }
        }
        Ok(self.n_rows)
    }
}

impl<W: Write> fmt::Debug for TableWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableWriter")
            .field("n_rows", &self.n_rows)
            .finish_non_exhaustive()
    }
}

/// A column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    name: &'static str,
    pub(super) is_number: bool,
}

impl Column {
    /// A column of words. The name is the heading, the key in JSON and the heading in CSV; it says
    /// the unit, as in `idle_ms`, which a table leaves out.
    pub const fn text(name: &'static str) -> Self {
        Self {
            name,
            is_number: false,
        }
    }

    /// A column of numbers: as [`Column::text`], but flush right.
    pub const fn number(name: &'static str) -> Self {
        Self {
            name,
            is_number: true,
        }
    }

    /// A table shows spans of time in words, so that `_ms` would be wrong there.
    pub(super) fn heading(&self) -> String {
        let name = self.name.strip_suffix("_ms").unwrap_or(self.name);
        name.replace('_', " ")
    }
}

/// The form in which rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// For people, as wide as the terminal.
    #[default]
    Table,
    /// One JSON object a line.
    Json,
    /// Comma-separated values with a heading.
    Csv,
}

enum Sink<W: Write> {
    Table {
        out: W,
        terminal: Terminal,
        block: Vec<Vec<Cell>>,
    },
    Json(W),
    Csv {
        writer: Box<csv::Writer<W>>,
        is_begun: bool,
    },
}

struct Object<'a> {
    columns: &'static [Column],
    cells: &'a [Cell],
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.columns.len()))?;
        for (column, cell) in self.columns.iter().zip(self.cells) {
            map.serialize_entry(column.name, cell)?;
        }
        map.end()
    }
}

fn begin_csv<W: Write>(
    writer: &mut csv::Writer<W>,
    is_begun: &mut bool,
    columns: &[Column],
) -> io::Result<()> {
    if !*is_begun {
        *is_begun = true;
        writer.write_record(columns.iter().map(|column| column.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::text("camera_id"),
        Column::number("people"),
        Column::number("idle_ms"),
    ];

    fn terminal(width: Option<u16>) -> Terminal {
        Terminal {
            width,
            is_unicode: false,
        }
    }

    fn check(output: Output, width: Option<u16>, rows: &[(&str, i64)], expected: &str) {
        let mut out = Vec::new();
        let mut table =
            TableWriter::new(&mut out as &mut dyn Write, COLUMNS, output, terminal(width));
        for (camera, people) in rows {
            let idle = std::time::Duration::from_secs(80);
            table
                .row(vec![(*camera).into(), Cell::Count(*people), idle.into()])
                .unwrap();
        }
        assert_eq!(table.finish().unwrap(), rows.len() as u64);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    const ROWS: &[(&str, i64)] = &[("campus, east", 13), ("street", 2744)];

    #[test]
    fn people_get_columns() {
        check(
            Output::Table,
            Some(80),
            ROWS,
            "\
camera id     people      idle
------------------------------
campus, east      13  1 m 20 s
street         2,744  1 m 20 s
",
        );
        check(Output::Table, None, &[], "no rows\n");
    }

    #[test]
    fn programs_get_every_digit() {
        check(
            Output::Json,
            Some(10),
            ROWS,
            "{\"camera_id\":\"campus, east\",\"people\":13,\"idle_ms\":80000}\n\
             {\"camera_id\":\"street\",\"people\":2744,\"idle_ms\":80000}\n",
        );
        check(Output::Json, None, &[], "");
        check(
            Output::Csv,
            Some(10),
            ROWS,
            "camera_id,people,idle_ms\n\"campus, east\",13,80000\nstreet,2744,80000\n",
        );
        check(Output::Csv, None, &[], "camera_id,people,idle_ms\n");
    }

    #[test]
    fn a_long_table_is_written_in_blocks() {
        let mut out = Vec::new();
        let mut table = TableWriter::new(&mut out, COLUMNS, Output::Table, terminal(None));
        for i in 0..2500 {
            table
                .row(vec!["c".into(), Cell::Count(i), Cell::Absent])
                .unwrap();
        }
        assert_eq!(table.finish().unwrap(), 2500);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 2500 + 3 * 2);
    }
}
