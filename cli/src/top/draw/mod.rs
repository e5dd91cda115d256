//! How it looks.

mod lists;
mod overview;

use chrono::{DateTime, Utc};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    symbols::border,
    text::{Line, Span, Text},
    widgets::{Block, Cell, Clear, Paragraph, Row, Wrap},
};

use super::{Look, Model, Request, View, lines};
use crate::{
    render::{counted, duration},
    visible::visible,
};

const HELP: &[&str] = &[
    "p      pause: workers stop reading within a second, and store what they have",
    "r      resume",
    "e      pending entries, oldest first, and what is in them; e again refreshes",
    "d      dead letters that wait for somebody; d again refreshes",
    "Enter  the chosen entry or dead letter, whole",
    "j k    down and up, also with the arrows; Space and Page Up by ten",
    "q Esc  back; from the first screen, quit, as Ctrl-C does from everywhere",
    "",
    "Rates by camera are a sample of the streams' ends. All others are counted.",
    "Whether all is well is judged as `passerby status` does without switches.",
    "What a server said last stays on the screen while it does not answer.",
];

/// Lines that a message may take.
const MAX_MESSAGE: usize = 3;

const ASCII_BORDER: border::Set<'_> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// Draws what is known.
pub fn draw(frame: &mut Frame<'_>, model: &Model, now: DateTime<Utc>, look: Look) {
    let drawing = Drawing { model, now, look };
    let keys = drawing.keys(frame.area().width);
    let [top, middle, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(u16::try_from(keys.lines.len()).unwrap_or(1)),
    ])
    .areas(frame.area());
    frame.render_widget(drawing.heading(), top);
    match model.view {
        View::Overview => drawing.overview(frame, middle),
        View::Pending => drawing.pending(frame, middle),
        View::Letters => drawing.letters(frame, middle),
        View::Details(list) => drawing.details(frame, middle, list),
        View::Help => {
            let help = Paragraph::new(HELP.join("\n")).wrap(Wrap { trim: false });
            frame.render_widget(help, middle);
        }
        View::Confirm(request) => {
            drawing.overview(frame, middle);
            drawing.question(frame, middle, request);
        }
    }
    frame.render_widget(keys, bottom);
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

    /// The line below: what happened, else what can be typed.
    fn keys(&self, width: u16) -> Text<'_> {
        let is_narrow = width < 72;
        let keys = match self.model.view {
            View::Overview if is_narrow => "? help  q quit  p pause  r resume  e  d",
            View::Overview => {
                "p pause  r resume  e pending entries  d dead letters  ? help  q quit"
            }
            View::Pending | View::Letters if is_narrow => "j/k choose  Enter open  Esc back",
            View::Pending => "j/k choose  Enter open  e again  d dead letters  Esc back",
            View::Letters => "j/k choose  Enter open  d again  e pending entries  Esc back",
            View::Details(_) => "j/k scroll  Esc back",
            View::Help => "Esc back",
            View::Confirm(_) => "y yes  any other key: no",
        };
        let shown = match &self.model.message {
            Some(message) => {
                let room = usize::from(width.saturating_sub(2));
                let mut shown = lines::wrapped(&visible(message), room);
                shown.truncate(MAX_MESSAGE);
                shown
            }
            None => vec![keys.to_owned()],
        };
        let shown = shown.into_iter().map(|line| format!(" {line} "));
        let style = Style::new().add_modifier(Modifier::REVERSED);
        Text::from_iter(shown.map(|line| Line::styled(line, style)))
    }

    fn error(&self, frame: &mut Frame<'_>, area: Rect, error: &str) {
        let text = Paragraph::new(visible(error).into_owned())
            .wrap(Wrap { trim: false })
            .style(self.coloured(Color::Red));
        frame.render_widget(text, area);
    }

    fn question(&self, frame: &mut Frame<'_>, area: Rect, request: Request) {
        let report = self.model.report.as_ref();
        let group = report.map_or("", |report| &report.group);
        let redis = report.and_then(|report| report.redis.as_ref());
        let n_workers = redis.map_or(0, |redis| redis.live_workers().count() as u64);
        let of = format!(
            "group {} ({})",
            visible(group),
            counted(n_workers, "worker")
        );
        let text = match request {
            Request::Pause => format!(
                "Pause {of}? They store what they have and read nothing more until somebody resumes. \
                 Producers go on, and the stream grows. [y/N]"
            ),
            _ => format!("Resume {of}? They read again. [y/N]"),
        };
        let width = area.width.min(64);
        let shown = lines::wrapped(&text, usize::from(width.saturating_sub(4)));
        let height = u16::try_from(shown.len() + 2)
            .unwrap_or(u16::MAX)
            .min(area.height);
        let at = Rect {
            x: area.x + (area.width - width) / 2,
            y: area.y + (area.height - height) / 2,
            width,
            height,
        };
        let shown = shown.into_iter().map(|line| Line::from(format!(" {line}")));
        let border = if self.look.is_unicode {
            border::PLAIN
        } else {
            ASCII_BORDER
        };
        let dialog = Paragraph::new(Text::from_iter(shown))
            .block(Block::bordered().border_set(border))
            .style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_widget(Clear, at);
        frame.render_widget(dialog, at);
    }
}

fn heading<'a>(names: &[&'a str]) -> Row<'a> {
    let cells: Vec<Cell<'a>> = names.iter().map(|name| Cell::from(*name)).collect();
    Row::new(cells).style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED))
}
