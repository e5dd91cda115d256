//! How it looks.

use chrono::{DateTime, Utc};
use passerby_consumer::ops::{Severity, StatusReport};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Clear, Paragraph, Row, Table, TableState, Wrap},
};

use super::{List, Look, Model, Request, Sample, View, lines};
use crate::{
    render::{duration, grouped},
    visible::visible,
};

const HELP: &[&str] = &[
    "p      pause: workers stop reading within a second, and store what they have",
    "r      resume",
    "e      pending entries, oldest first, with what is in them",
    "d      dead letters that wait for somebody",
    "Enter  the chosen entry or dead letter, whole",
    "j k    down and up, also with the arrows; Space and Page Up by ten",
    "Esc    back",
    "q      back; from here, quit",
    "",
    "Rates by camera are a sample of the streams' ends. All others are counted.",
    "What a server said last stays on the screen while it does not answer.",
];

/// Draws what is known.
pub fn draw(frame: &mut Frame<'_>, model: &Model, now: DateTime<Utc>, look: Look) {
    let [top, middle, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let drawing = Drawing { model, now, look };
    frame.render_widget(drawing.heading(), top);
    match model.view {
        View::Overview => drawing.overview(frame, middle),
        View::Pending => drawing.pending(frame, middle),
        View::Letters => drawing.letters(frame, middle),
        View::Details(list) => drawing.details(frame, middle, list),
        View::Help => frame.render_widget(Paragraph::new(HELP.join("\n")), middle),
        View::Confirm(request) => {
            drawing.overview(frame, middle);
            drawing.question(frame, middle, request);
        }
    }
    frame.render_widget(drawing.keys(), bottom);
}

struct Drawing<'a> {
    model: &'a Model,
    now: DateTime<Utc>,
    look: Look,
}

impl Drawing<'_> {
    fn coloured(&self, colour: Color) -> Style {
        if self.look.is_coloured {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn heading(&self) -> Line<'_> {
        let mut text = "passerby".to_owned();
        if let Some(report) = &self.model.report {
            text.push_str(&format!(", group {}", visible(&report.group)));
            if let Some(redis) = &report.redis {
                text.push_str(&format!(", {}", visible(&redis.version)));
            }
            text.push_str(&report.at.format(", %H:%M:%S UTC").to_string());
        }
        let mut spans = vec![Span::styled(
            text,
            Style::new().add_modifier(Modifier::BOLD),
        )];
        let late = self.model.interval * 3 + std::time::Duration::from_secs(1);
        if let Some(age) = self.model.age(self.now).filter(|age| *age > late) {
            spans.push(Span::styled(
                format!("  NO ANSWER FOR {}", duration(age)),
                self.coloured(Color::Red).add_modifier(Modifier::BOLD),
            ));
        }
        Line::from(spans)
    }

    fn keys(&self) -> Line<'_> {
        let style = Style::new().add_modifier(Modifier::REVERSED);
        let text = match (&self.model.message, self.model.view) {
            (Some(message), _) => format!(" {} ", visible(message)),
            (None, View::Overview) => {
                " p pause  r resume  e pending entries  d dead letters  ? help  q quit ".to_owned()
            }
            (None, View::Pending | View::Letters) => {
                " j/k choose  Enter open  e pending entries  d dead letters  Esc back ".to_owned()
            }
            (None, View::Details(_)) => " j/k scroll  Esc back ".to_owned(),
            (None, View::Help) => " Esc back ".to_owned(),
            (None, View::Confirm(_)) => " y yes  any other key: no ".to_owned(),
        };
        Line::styled(text, style)
    }

    fn overview(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(report) = &self.model.report else {
            frame.render_widget(Paragraph::new("asking Redis and Postgres…"), area);
            return;
        };
        let head = self.head(report, area.width);
        let n_cameras = match &self.model.cameras {
            Some(Ok(sample)) => sample.cameras.len(),
            _ => 0,
        };
        let n_head = u16::try_from(head.len()).unwrap_or(u16::MAX);
        let n_workers = report.redis.as_ref().map_or(0, |redis| redis.workers.len());
        // Cameras get what workers leave, and at least a third.
        let left = area.height.saturating_sub(n_head);
        let wanted = u16::try_from(n_cameras)
            .unwrap_or(u16::MAX)
            .saturating_add(2);
        let workers = u16::try_from(n_workers)
            .unwrap_or(u16::MAX)
            .saturating_add(1);
        let for_workers = workers.min(left.saturating_sub(wanted.min(left / 3)));
        let [top, middle, bottom] = Layout::vertical([
            Constraint::Length(n_head),
            Constraint::Length(for_workers),
            Constraint::Min(0),
        ])
        .areas(area);
        frame.render_widget(Paragraph::new(head), top);
        self.workers(frame, middle, report);
        self.cameras(frame, bottom);
    }

    /// The books, the backlog, the rates, and what is not well.
    fn head(&self, report: &StatusReport, width: u16) -> Vec<Line<'static>> {
        let flow = report.flow.as_ref();
        let labelled = |label: &str, text: &str| Line::from(format!("{label:<9} {text}"));
        let mut head = Vec::new();
        let mut add = |label: &str, text: &str| {
            let room = usize::from(width).saturating_sub(10);
            for (i, line) in lines::wrapped(text, room).iter().enumerate() {
                head.push(labelled(if i == 0 { label } else { "" }, line));
            }
        };
        match &report.balance {
            Some(balance) => add("rows", &lines::books(balance)),
            None => add("rows", "not known yet"),
        }
        add("", &lines::outcome(report));
        if let Some(redis) = &report.redis {
            add("backlog", &lines::backlog(redis, flow));
            add("memory", &lines::memory(redis, flow));
        }
        if let Some(flow) = flow {
            type Rate = (&'static str, f64, &'static str, fn(&Sample) -> f64);
            let rates: [Rate; 4] = [
                ("arriving", flow.arriving_entries, "entries/s", |s| {
                    s.arriving
                }),
                ("settled", flow.settled_entries, "entries/s", |s| s.settled),
                ("stored", flow.stored_detections, "rows/s", |s| s.stored),
                ("waiting", f64::NAN, "", |s| s.backlog),
            ];
            for (label, value, unit, of) in rates {
                let value = if value.is_nan() {
                    "backlog".to_owned()
                } else {
                    format!("{} {unit}", lines::per_second(value))
                };
                let room = usize::from(width).saturating_sub(10 + 18).min(100);
                let bars = lines::sparkline(&self.model.history, of, room, self.look);
                head.push(labelled(label, &format!("{value:<17} {bars}")));
            }
        }
        for (severity, text) in lines::symptoms(report).into_iter().take(4) {
            let (mark, style) = match severity {
                Severity::Unhealthy => ("!!", self.coloured(Color::Red)),
                Severity::Note => ("- ", Style::new()),
            };
            let room = usize::from(width).saturating_sub(3);
            for (i, line) in lines::wrapped(&text, room).iter().enumerate() {
                let mark = if i == 0 { mark } else { "  " };
                head.push(Line::styled(format!("{mark} {line}"), style));
            }
        }
        if let Some(trouble) = report
            .redis
            .as_ref()
            .and_then(|redis| lines::last_trouble(redis, self.now))
        {
            head.push(Line::from(format!("-  {trouble}")));
        }
        head
    }

    fn workers(&self, frame: &mut Frame<'_>, area: Rect, report: &StatusReport) {
        let Some(redis) = &report.redis else { return };
        let rows = redis.workers.iter().map(|worker| {
            let style = if worker.is_alive {
                Style::new()
            } else {
                self.coloured(Color::Red)
            };
            Row::new(lines::worker(worker, self.now)).style(style)
        });
        let widths = [
            Constraint::Fill(3),
            Constraint::Length(15),
            Constraint::Length(6),
            Constraint::Length(8),
            Constraint::Length(7),
            Constraint::Length(11),
            Constraint::Fill(2),
        ];
        let table = Table::new(rows, widths).header(heading(&lines::WORKER_HEADINGS));
        frame.render_widget(table, area);
    }

    fn cameras(&self, frame: &mut Frame<'_>, area: Rect) {
        let sample = match &self.model.cameras {
            None => return,
            Some(Err(error)) => {
                let text = format!("cameras: {}", visible(error));
                frame.render_widget(Paragraph::new(text), area);
                return;
            }
            Some(Ok(sample)) => sample,
        };
        let mut cameras: Vec<_> = sample.cameras.iter().collect();
        // One line says what it is, the next what the columns are.
        let room = usize::from(area.height.saturating_sub(2));
        let n_left_out = cameras.len().saturating_sub(room);
        // The busiest where not all have room.
        if n_left_out > 0 {
            cameras.sort_by(|one, two| two.rows_per_second.total_cmp(&one.rows_per_second));
            cameras.truncate(room);
        }
        let most = cameras
            .iter()
            .map(|camera| camera.rows_per_second)
            .fold(0.0, f64::max);
        let mut title = lines::sampled(sample);
        if n_left_out > 0 {
            title.push_str(&format!(", {} not shown", grouped(n_left_out as u64)));
        }
        let rows = cameras.iter().map(|camera| {
            let newest = camera.last_captured_at.map_or_else(
                || "-".to_owned(),
                |at| at.format("%H:%M:%S%.3f").to_string(),
            );
            Row::new([
                visible(&camera.camera_id).into_owned(),
                lines::per_second(camera.rows_per_second),
                newest,
                self.bar(camera.rows_per_second / most.max(f64::MIN_POSITIVE), 20),
            ])
        });
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(8),
            Constraint::Length(13),
            Constraint::Length(20),
        ];
        let [top, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        frame.render_widget(Line::from(title), top);
        let header = heading(&["camera", "rows/s", "newest", ""]);
        frame.render_widget(Table::new(rows, widths).header(header), rest);
    }

    fn bar(&self, share: f64, width: usize) -> String {
        let bar = if self.look.is_unicode { "█" } else { "#" };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a few columns"
        )]
        let n = (share.clamp(0.0, 1.0) * width as f64).round() as usize;
        bar.repeat(n)
    }

    fn pending(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(pending) = &self.model.pending else {
            frame.render_widget(Paragraph::new("asking Redis…"), area);
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
            Row::new([
                entry.entry_id.to_string(),
                visible(&entry.consumer).into_owned(),
                ms(entry.age_ms),
                ms(entry.idle_ms),
                grouped(entry.delivery_count),
                n_rows,
                camera,
            ])
        });
        let widths = [
            Constraint::Length(17),
            Constraint::Fill(1),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(5),
            Constraint::Fill(1),
        ];
        let headings = [
            "pending entry",
            "held by",
            "age",
            "idle",
            "delivered",
            "rows",
            "camera",
        ];
        self.list(
            frame,
            area,
            Table::new(rows, widths).header(heading(&headings)),
        );
    }

    fn letters(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(letters) = &self.model.letters else {
            frame.render_widget(Paragraph::new("asking Postgres…"), area);
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
        let rows = letters.iter().map(|letter| {
            Row::new([
                letter.id.to_string(),
                letter.dead_lettered_at.format("%m-%d %H:%M:%S").to_string(),
                visible(&letter.reason).into_owned(),
                letter
                    .row_idx
                    .map_or_else(|| "-".to_owned(), |row| row.to_string()),
                visible(&letter.message).into_owned(),
            ])
        });
        let widths = [
            Constraint::Length(11),
            Constraint::Length(14),
            Constraint::Length(11),
            Constraint::Length(5),
            Constraint::Fill(1),
        ];
        let headings = ["dead letter", "since", "reason", "row", "message"];
        self.list(
            frame,
            area,
            Table::new(rows, widths).header(heading(&headings)),
        );
    }

    fn list(&self, frame: &mut Frame<'_>, area: Rect, table: Table<'_>) {
        let chosen = Style::new().add_modifier(Modifier::REVERSED);
        let table = table.row_highlight_style(chosen).highlight_symbol("> ");
        let mut state = TableState::new().with_selected(Some(self.model.selected));
        frame.render_stateful_widget(table, area, &mut state);
    }

    fn details(&self, frame: &mut Frame<'_>, area: Rect, list: List) {
        let shown = match (list, &self.model.letters) {
            (List::Pending, _) => lines::pending(self.model),
            (List::Letters, Some(Ok(letters))) => letters
                .get(self.model.selected)
                .map(lines::letter)
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

    fn error(&self, frame: &mut Frame<'_>, area: Rect, error: &str) {
        let text = Paragraph::new(visible(error).into_owned())
            .wrap(Wrap { trim: false })
            .style(self.coloured(Color::Red));
        frame.render_widget(text, area);
    }

    fn question(&self, frame: &mut Frame<'_>, area: Rect, request: Request) {
        let group = self
            .model
            .report
            .as_ref()
            .map_or("", |report| &report.group);
        let text = match request {
            Request::Pause => format!(
                "Pause the group {}? Its workers store what they have and read nothing more. [y/N]",
                visible(group)
            ),
            _ => format!(
                "Resume the group {}? Its workers read again. [y/N]",
                visible(group)
            ),
        };
        let height = 2.min(area.height);
        let at = Rect {
            y: area.y + (area.height - height) / 2,
            height,
            ..area
        };
        frame.render_widget(Clear, at);
        let text = Paragraph::new(text)
            .wrap(Wrap { trim: true })
            .style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_widget(text, at);
    }
}

fn heading<'a>(names: &[&'a str]) -> Row<'a> {
    let cells: Vec<Cell<'a>> = names.iter().map(|name| Cell::from(*name)).collect();
    Row::new(cells).style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED))
}
