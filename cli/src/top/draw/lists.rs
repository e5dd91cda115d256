//! What is pending, and dead letters: lists, and one of each whole.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::Line,
    widgets::{Paragraph, Row, Table, TableState, Wrap},
};

use super::{Drawing, heading};
use crate::{
    render::{duration, grouped},
    top::{List, lines, whole},
    visible::visible,
};

/// Columns from which on a list has all of its own.
const WIDE: u16 = 64;

impl Drawing<'_> {
    pub(super) fn pending(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(pending) = &self.model.pending else {
            frame.render_widget(Paragraph::new("asking Redis"), area);
            return;
        };
        let report = match pending {
            Ok(report) => report,
            Err(error) => return self.error(frame, area, error),
        };
        if report.entries.is_empty() {
            frame.render_widget(Paragraph::new("nothing is pending"), area);
            return;
        }
        let ms = |ms: u64| duration(std::time::Duration::from_millis(ms));
        let mut columns = vec![
            ("pending entry", Constraint::Length(17)),
            ("held by", Constraint::Fill(1)),
            ("age", Constraint::Length(9)),
        ];
        if area.width >= WIDE {
            columns.extend([
                ("idle", Constraint::Length(9)),
                ("delivered", Constraint::Length(9)),
                ("rows", Constraint::Length(5)),
                ("camera", Constraint::Fill(1)),
            ]);
        }
        let rows = report.entries.iter().map(|entry| {
            let (n_rows, camera) = entry.decoded.as_ref().map_or_else(
                || ("-".to_owned(), "-".to_owned()),
                |decoded| {
                    (
                        grouped(decoded.rows),
                        visible(&decoded.camera_ids.join(", ")).into_owned(),
                    )
                },
            );
            vec![
                entry.entry_id.to_string(),
                visible(&entry.consumer).into_owned(),
                ms(entry.age_ms),
                ms(entry.idle_ms),
                grouped(entry.delivery_count),
                n_rows,
                camera,
            ]
        });
        let title = lines::shown_of("pending entries", report.entries.len(), report.total);
        self.list(frame, area, title, &columns, rows);
    }

    pub(super) fn letters(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(letters) = &self.model.letters else {
            frame.render_widget(Paragraph::new("asking Postgres"), area);
            return;
        };
        let letters = match letters {
            Ok(letters) => letters,
            Err(error) => return self.error(frame, area, error),
        };
        if letters.is_empty() {
            frame.render_widget(Paragraph::new("no dead letter waits"), area);
            return;
        }
        let is_wide = area.width >= WIDE;
        let mut columns = vec![
            ("letter", Constraint::Length(8)),
            ("reason", Constraint::Length(11)),
        ];
        if is_wide {
            columns.push(("since", Constraint::Length(14)));
            columns.push(("row", Constraint::Length(5)));
        }
        columns.push(("message", Constraint::Fill(1)));
        let rows = letters.iter().map(|letter| {
            let mut row = vec![letter.id.to_string(), visible(&letter.reason).into_owned()];
            if is_wide {
                row.push(letter.dead_lettered_at.format("%m-%d %H:%M:%S").to_string());
                let row_idx = letter.row_idx.map(|row| row.to_string());
                row.push(row_idx.unwrap_or_else(|| "-".to_owned()));
            }
            row.push(visible(&letter.message).into_owned());
            row
        });
        let store = self.model.report.as_ref().and_then(|r| r.store.as_ref());
        let n_waiting = store.map_or(0, |store| store.dead_letters_waiting());
        let title = lines::shown_of("dead letters that wait", letters.len(), n_waiting);
        self.list(frame, area, title, &columns, rows);
    }

    fn list(
        &self,
        frame: &mut Frame<'_>,
        area: Rect,
        title: String,
        columns: &[(&str, Constraint)],
        rows: impl Iterator<Item = Vec<String>>,
    ) {
        let [top, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        frame.render_widget(Line::from(title), top);
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let widths = columns.iter().map(|(_, width)| *width);
        let rows = rows.map(|cells| Row::new(cells.into_iter().take(columns.len())));
        let chosen = Style::new().add_modifier(Modifier::REVERSED);
        let table = Table::new(rows, widths)
            .header(heading(&names))
            .row_highlight_style(chosen)
            .highlight_symbol("> ");
        let mut state = TableState::new().with_selected(Some(self.model.selected));
        frame.render_stateful_widget(table, rest, &mut state);
    }

    pub(super) fn details(&self, frame: &mut Frame<'_>, area: Rect, list: List) {
        let shown = match (list, &self.model.letters) {
            (List::Pending, _) => whole::pending(self.model),
            (List::Letters, Some(Ok(letters))) => letters
                .get(self.model.selected)
                .map(whole::letter)
                .unwrap_or_default(),
            (List::Letters, _) => Vec::new(),
        };
        let last = u16::try_from(shown.len())
            .unwrap_or(u16::MAX)
            .saturating_sub(1);
        let text = Paragraph::new(shown.join("\n"))
            .wrap(Wrap { trim: false })
            .scroll((self.model.scrolled.min(last), 0));
        frame.render_widget(text, area);
    }
}
