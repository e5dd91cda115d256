//! Lays rows out for people: in columns, or field below field where the columns do not fit.
//!
//! Long text is wrapped within its column. A number or a time is never broken: what would break one
//! is shown field below field.

use std::io::{self, Write};

use comfy_table::{
    CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle, Width,
};

use super::{Cell, Column, Terminal};

/// Columns of space between two columns.
const GAP: usize = 2;
/// Text is not wrapped to less.
const MIN_TEXT_WIDTH: usize = 12;

/// Writes rows with a heading. `n_before` is how many rows were written before these.
pub(super) fn write(
    out: &mut impl Write,
    columns: &[Column],
    rows: &[Vec<Cell>],
    n_before: u64,
    terminal: Terminal,
) -> io::Result<()> {
    let least = least_widths(columns, rows);
    let n_gaps = columns.len().saturating_sub(1);
    let fits = |width: u16| least.iter().sum::<usize>() + n_gaps * GAP <= width.into();
    if !terminal.width.is_none_or(fits) {
        return write_fields(out, columns, rows, n_before);
    }
    let rule = if terminal.is_unicode { '─' } else { '-' };
    let mut table = Table::new();
    table
        .load_style(TableStyle::new().header_separator(LineStyle::none().fill(rule)))
        .set_header(columns.iter().map(Column::heading));
    match terminal.width {
        Some(width) => table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    for row in rows {
        table.add_row(row.iter().map(Cell::to_table));
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        let gap = if i < n_gaps { GAP } else { 0 };
        column.set_padding((0, u16::try_from(gap).unwrap_or(0)));
        let least = u16::try_from(least[i] + gap).unwrap_or(u16::MAX);
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
        if columns[i].is_number {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{}", table.trim_fmt())
}

/// The least width of each column.
fn least_widths(columns: &[Column], rows: &[Vec<Cell>]) -> Vec<usize> {
    let of_cell = |cell: &Cell| {
        let width = cell.to_table().chars().count();
        match cell {
            Cell::Text(_) | Cell::List(_) => width.min(MIN_TEXT_WIDTH),
            _ => width,
        }
    };
    let of_heading = |column: &Column| {
        let words = column.heading();
        words.split(' ').map(str::len).max().unwrap_or(0)
    };
    let mut widths: Vec<_> = columns.iter().map(of_heading).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = of_cell(cell).max(*width);
        }
    }
    widths
}

fn write_fields(
    out: &mut impl Write,
    columns: &[Column],
    rows: &[Vec<Cell>],
    n_before: u64,
) -> io::Result<()> {
    let headings: Vec<_> = columns.iter().map(Column::heading).collect();
    let margin = headings.iter().map(String::len).max().unwrap_or(0);
    for (number, row) in (n_before + 1..).zip(rows) {
        writeln!(out, "row {number}")?;
        for (heading, cell) in headings.iter().zip(row) {
            writeln!(out, "  {heading:margin$}  {}", cell.to_table())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::text("started_at"),
        Column::text("session_id"),
        Column::number("detection_count"),
    ];

    fn check(width: Option<u16>, expected: &str) {
        let time: chrono::DateTime<chrono::Utc> = "2026-09-21T12:00:00.04Z".parse().unwrap();
        let rows = [
            vec![
                time.into(),
                "the-street-in-the-afternoon".into(),
                Cell::Count(2522),
            ],
            vec![time.into(), "campus".into(), Cell::Count(222)],
        ];
        let terminal = Terminal {
            width,
            is_unicode: true,
        };
        let mut out = Vec::new();
        write(&mut out, COLUMNS, &rows, 40, terminal).unwrap();
        let drawn = String::from_utf8(out).unwrap();
        assert_eq!(drawn, expected, "\n{drawn}");
    }

    #[test]
    fn a_wide_terminal_shows_each_row_on_a_line() {
        let wide = "\
started at               session id                   detection count
─────────────────────────────────────────────────────────────────────
2026-09-21 12:00:00.040  the-street-in-the-afternoon            2,522
2026-09-21 12:00:00.040  campus                                   222
";
        check(Some(80), wide);
        check(None, wide);
    }

    #[test]
    fn a_narrow_one_wraps_text() {
        check(
            Some(56),
            "\
started at               session id            detection
                                                   count
────────────────────────────────────────────────────────
2026-09-21 12:00:00.040  the-street-in-the-af      2,522
                         ternoon
2026-09-21 12:00:00.040  campus                      222
",
        );
    }

    #[test]
    fn a_narrower_one_gets_field_below_field() {
        check(
            Some(30),
            "\
row 41
  started at       2026-09-21 12:00:00.040
  session id       the-street-in-the-afternoon
  detection count  2,522
row 42
  started at       2026-09-21 12:00:00.040
  session id       campus
  detection count  222
",
        );
    }
}
