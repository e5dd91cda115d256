//! Everything at a glance.

use passerby_consumer::ops::{Severity, StatusReport};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::Line,
    widgets::{Paragraph, Row, Table},
};

use super::{Drawing, heading};
use crate::{
    render::grouped,
    top::{history::Values, lines},
    visible::visible,
};

/// Symptoms that are shown; `passerby status` has them all.
const MAX_SYMPTOMS: usize = 4;
/// Columns that what stands before each line takes.
const LABEL: usize = 10;
/// Columns of a worker's or a camera's sparkline, where the terminal is wide and where it is not.
const BARS: [u16; 2] = [16, 10];
/// Columns that a rate takes.
const RATE: usize = 17;

/// What stands before a rate, the rate itself, and where its bars come from.
type Rate<'a> = (&'static str, String, &'a Values);

impl Drawing<'_> {
    pub(super) fn overview(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(report) = &self.model.report else {
            frame.render_widget(Paragraph::new("asking Redis and Postgres"), area);
            return;
        };
        let mut head = self.judgement(report, area.width);
        head.extend(self.figures(report, area.width));
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

    /// Whether all is well, and what else is not.
    fn judgement(&self, report: &StatusReport, width: u16) -> Vec<Line<'static>> {
        let (is_well, verdict, others) = lines::judgement(report, &self.model.thresholds);
        let colour = if is_well { Color::Green } else { Color::Red };
        let style = self.coloured(colour).add_modifier(Modifier::BOLD);
        let wrapped = lines::wrapped(&verdict, usize::from(width)).into_iter();
        let mut shown: Vec<_> = wrapped.map(|line| Line::styled(line, style)).collect();
        let mut add = |mark: &str, text: &str, style: Style| {
            let room = usize::from(width).saturating_sub(3);
            for (i, line) in lines::wrapped(text, room).iter().enumerate() {
                let mark = if i == 0 { mark } else { "" };
                shown.push(Line::styled(format!("{mark:<2} {line}"), style));
            }
        };
        for stale in self.model.stale(self.now) {
            add("!!", &stale, self.coloured(Color::Red));
        }
        for (severity, text) in others.into_iter().take(MAX_SYMPTOMS) {
            match severity {
                Severity::Unhealthy => add("!!", &text, self.coloured(Color::Red)),
                Severity::Note => add("-", &text, Style::new()),
            }
        }
        if let Some(trouble) = report
            .redis
            .as_ref()
            .and_then(|redis| lines::last_trouble(redis, self.now))
        {
            add("-", &trouble, Style::new());
        }
        shown
    }

    /// The books, the backlog and the rates.
    fn figures(&self, report: &StatusReport, width: u16) -> Vec<Line<'static>> {
        let flow = report.flow.as_ref();
        let mut shown = Vec::new();
        let mut add = |label: &str, text: &str| {
            let room = usize::from(width).saturating_sub(LABEL);
            for (i, line) in lines::wrapped(text, room).iter().enumerate() {
                let label = if i == 0 { label } else { "" };
                shown.push(Line::from(format!("{label:<9} {line}")));
            }
        };
        match &report.balance {
            Some(balance) => add("rows", &lines::books(balance)),
            None => add("rows", "not known yet"),
        }
        add("", &lines::outcome(report));
        let Some(redis) = &report.redis else {
            return shown;
        };
        add("backlog", &lines::backlog(redis, flow));
        add("memory", &lines::memory(redis, flow));
        let Some(flow) = flow else { return shown };
        let room = usize::from(width).saturating_sub(LABEL + RATE + 1).min(100);
        let backlog = grouped(redis.backlog_entries());
        let entries = |value| format!("{} entries/s", lines::per_second(value));
        let stored = format!("{} rows/s", lines::per_second(flow.stored_detections));
        let history = &self.model.history;
        let rates: [Rate<'_>; 4] = [
            (
                "arriving",
                entries(flow.arriving_entries),
                &history.arriving,
            ),
            ("settled", entries(flow.settled_entries), &history.settled),
            ("stored", stored, &history.stored),
            ("waiting", format!("{backlog} entries"), &history.backlog),
        ];
        for (label, value, values) in rates {
            let bars = lines::sparkline(values.iter(), room, self.look);
            shown.push(Line::from(format!("{label:<9} {value:<RATE$} {bars}")));
        }
        shown
    }

    fn workers(&self, frame: &mut Frame<'_>, area: Rect, report: &StatusReport) {
        let Some(redis) = &report.redis else { return };
        // What there is no room for is left out from the right.
        let widths = [
            Constraint::Fill(3),
            Constraint::Length(15),
            Constraint::Length(6),
            Constraint::Length(8),
            Constraint::Length(7),
            Constraint::Length(n_bars(area.width)),
            Constraint::Length(13),
            Constraint::Fill(2),
        ];
        let n_columns = match area.width {
            ..54 => 3,
            54..66 => 5,
            66..78 => 6,
            78..96 => 7,
            _ => 8,
        };
        let rows = redis.workers.iter().map(|worker| {
            let style = if worker.is_alive {
                Style::new()
            } else {
                self.coloured(Color::Red)
            };
            let bars = self.bars(self.model.history.worker(&worker.consumer), area.width);
            let columns = lines::worker(worker, bars, self.now).into_iter();
            Row::new(columns.take(n_columns)).style(style)
        });
        let header = heading(lines::WORKER_HEADINGS.split_at(n_columns).0);
        let table = Table::new(rows, widths.into_iter().take(n_columns)).header(header);
        frame.render_widget(table, area);
    }

    fn cameras(&self, frame: &mut Frame<'_>, area: Rect) {
        let sample = match &self.model.cameras {
            None => return,
            Some(Err(error)) => return self.error(frame, area, &format!("cameras: {error}")),
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
                self.bars(self.model.history.camera(&camera.camera_id), area.width),
                newest,
            ])
        });
        let bars = if area.width < 48 {
            0
        } else {
            n_bars(area.width)
        };
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(8),
            Constraint::Length(bars),
            Constraint::Length(13),
        ];
        let [top, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        frame.render_widget(Line::from(title), top);
        let header = heading(&["camera", "rows/s", "", "newest"]);
        frame.render_widget(Table::new(rows, widths).header(header), rest);
    }

    /// The last rates of a worker or a camera.
    fn bars(&self, values: Option<&Values>, width: u16) -> String {
        values.map_or_else(String::new, |values| {
            lines::sparkline(values.iter(), usize::from(n_bars(width)), self.look)
        })
    }
}

fn n_bars(width: u16) -> u16 {
    BARS[usize::from(width < 96)]
}
