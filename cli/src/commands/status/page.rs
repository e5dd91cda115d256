//! The page that `passerby status` shows.

use std::{fmt::Write, time::Duration};

use passerby_consumer::{
    ops::{Balance, Flow, FlowSource, RedisStatus, Severity, StatusReport, Symptom, WorkerStatus},
    presence::WorkerState,
    store::StoreBooks,
};

use super::Printed;
use crate::{
    render::{
        Cell, Colour, Column, Output, Paint, TableWriter, Terminal, bytes, counted, duration,
        grouped,
    },
    visible::visible,
};

/// One line: whether all is well, and if not, what is worst.
pub(super) fn headline(printed: &Printed, paint: Paint) -> String {
    let (is_well, verdict) = verdict(&printed.report, &printed.symptoms);
    let colour = if is_well { Colour::Green } else { Colour::Red };
    paint.text(colour, &verdict)
}

/// Whether all is well, and that in one sentence which names the first of what is not.
pub(crate) fn verdict(report: &StatusReport, symptoms: &[Symptom]) -> (bool, String) {
    let worst: Vec<&Symptom> = unhealthy(symptoms).collect();
    let verdict = match &worst[..] {
        [] => format!("all is well: {}", in_short(report)),
        [one] => format!("not well: {}", visible(&one.text)),
        [first, others @ ..] => format!(
            "not well: {}, and {} more",
            visible(&first.text),
            others.len()
        ),
    };
    (worst.is_empty(), verdict)
}

/// Everything that is not as it should be, the worst first.
pub(super) fn symptoms(printed: &Printed) -> Vec<String> {
    let line = |symptom: &Symptom| {
        let sign = match symptom.severity {
            Severity::Unhealthy => "!",
            Severity::Note => "-",
        };
        format!("  {sign} {}", visible(&symptom.text))
    };
    printed.symptoms.iter().map(line).collect()
}

fn unhealthy(symptoms: &[Symptom]) -> impl Iterator<Item = &Symptom> {
    symptoms
        .iter()
        .filter(|symptom| symptom.severity == Severity::Unhealthy)
}

fn in_short(report: &StatusReport) -> String {
    let Some(redis) = &report.redis else {
        return String::new();
    };
    let entries = redis.backlog_entries();
    let workers = counted(redis.live_workers().count() as u64, "worker");
    if entries == 0 {
        return format!("nothing waits, {workers}");
    }
    format!(
        "{}, the oldest for {}, {workers}",
        waits(entries),
        span(redis.backlog_seconds())
    )
}

fn waits(entries: u64) -> String {
    match entries {
        1 => "1 entry waits".to_owned(),
        n => format!("{} entries wait", grouped(n)),
    }
}

fn entries(n: u64) -> String {
    match n {
        1 => "1 entry".to_owned(),
        n => format!("{} entries", grouped(n)),
    }
}

/// The whole page.
pub(super) fn page(printed: &Printed, terminal: Terminal, paint: Paint) -> String {
    let report = &printed.report;
    let mut page = Page {
        text: headline(printed, paint),
        paint,
    };
    page.text.push('\n');
    // What stands in the first line alone is not said again.
    let is_said = printed.symptoms.len() == 1 && unhealthy(&printed.symptoms).count() == 1;
    if !is_said {
        for line in symptoms(printed) {
            page.line(&line);
        }
    }
    page.books(report);
    if let Some(redis) = &report.redis {
        page.backlog(redis);
        if let Some(flow) = &report.flow {
            page.flow(flow, redis);
        }
        page.workers(redis, terminal);
        page.producers(redis);
    }
    if let Some(store) = &report.store {
        page.dead_letters(store);
    }
    page.text
}

struct Page {
    text: String,
    paint: Paint,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn heading(&mut self, name: &str, beside: &str) {
        let beside = self.paint.text(Colour::Dim, beside);
        let line = format!("\n{name:<11}{beside}");
        self.line(line.trim_end());
    }

    fn count(&mut self, name: &str, n: u64, beside: &str) {
        let line = format!("  {name:<18}{:>15}  {beside}", grouped(n));
        self.line(line.trim_end());
    }

    fn books(&mut self, report: &StatusReport) {
        let unknown = match (&report.redis, &report.store) {
            (Some(_), Some(_)) => "",
            (None, Some(_)) => ": what Redis knows is missing",
            (Some(_), None) => ": what Postgres knows is missing",
            (None, None) => return,
        };
        self.heading("books", &format!("rows of all kinds{unknown}"));
        let Some(balance) = &report.balance else {
            return self.half_of_the_books(report);
        };
        self.count("accepted", balance.accepted, "");
        if balance.accepted_before > 0 {
            self.count(
                "accepted before",
                balance.accepted_before,
                "found in spools",
            );
        }
        if let Some(store) = &report.store {
            self.count("stored", balance.stored, &kinds(store));
        }
        self.count("dead-lettered", balance.dead_lettered, "");
        self.dropped(balance);
        let held = balance.buffered + balance.spooled;
        let where_held = format!(
            "{} in memory, {} in spools",
            grouped(balance.buffered),
            grouped(balance.spooled)
        );
        self.count(
            "with producers",
            held,
            if held > 0 { &where_held } else { "" },
        );
        let of = entries(balance.in_stream_entries);
        let of = format!("of producers, in {of}");
        let is_empty = balance.in_stream + balance.in_stream_entries == 0;
        self.count(
            "in the stream",
            balance.in_stream,
            if is_empty { "" } else { &of },
        );
        self.count("unaccounted for", balance.unaccounted, "");
        if balance.unheard > 0 {
            self.count(
                "unheard of",
                balance.unheard,
                "in the memory of producers that ended without a last word",
            );
        }
        self.not_of_producers(balance);
    }

    fn dropped(&mut self, balance: &Balance) {
        let dropped = &balance.dropped;
        let reasons = [
            (dropped.oldest, "for newer ones"),
            (dropped.closed, "at the producer's end"),
            (dropped.spool_full, "in a full spool"),
            (dropped.spool_damaged, "in a damaged spool"),
        ];
        self.count("dropped", dropped.accepted(), &listed(&reasons));
        let refused = [
            (dropped.newest, "without room"),
            (dropped.block_timeouts, "after waiting for room"),
            (dropped.invalid, "invalid"),
        ];
        let n_refused = dropped.newest + dropped.block_timeouts + dropped.invalid;
        if n_refused > 0 {
            let why = format!("never accepted: {}", listed(&refused));
            self.count("refused", n_refused, &why);
        }
    }

    /// Rows that are stored and were never accepted by a producer that keeps books.
    fn not_of_producers(&mut self, balance: &Balance) {
        let others = [
            (
                balance.foreign,
                "strangers'",
                "of programs that keep no books",
            ),
            (balance.requeued, "put back", "from the dead letters"),
            (balance.direct, "stored directly", "not through a stream"),
            (
                balance.surplus,
                "in no books",
                "of programs that keep none, or not told yet",
            ),
        ];
        for (n, name, what) in others {
            if n > 0 {
                self.count(name, n, what);
            }
        }
    }

    fn half_of_the_books(&mut self, report: &StatusReport) {
        if let Some(store) = &report.store {
            self.count("stored", store.rows_stored(), &kinds(store));
            self.count("dead-lettered", store.dead_rows, "");
        }
        if let Some(redis) = &report.redis {
            let told = redis.producers.values().map(|p| p.told.rows());
            let all: passerby_shared::books::RowBooks =
                told.chain([redis.producers_gone.rows()]).sum();
            self.count("accepted", all.accepted, "");
            self.count("dropped", all.dropped(), "");
            self.count("with producers", all.waiting(), "");
        }
    }

    fn backlog(&mut self, redis: &RedisStatus) {
        self.heading("backlog", "");
        let about = if redis.undelivered_is_exact() {
            ""
        } else {
            "about "
        };
        self.line(&format!(
            "  {}: {} with workers, {about}{} not read yet",
            entries(redis.backlog_entries()),
            grouped(redis.pending()),
            grouped(redis.undelivered())
        ));
        if redis.backlog_entries() > 0 {
            self.line(&format!(
                "  the oldest has waited for {}",
                span(redis.backlog_seconds())
            ));
        }
        if let Some(paused) = &redis.paused {
            let since = span_ms(redis.now_ms.saturating_sub(paused.updated_ms));
            let by = &paused.told.by;
            let by = if by.is_empty() {
                String::new()
            } else {
                format!(" by {}", visible(by))
            };
            let reason = paused.told.reason.as_deref().map(visible);
            let reason = reason.map(|r| format!(": {r}")).unwrap_or_default();
            let since = if paused.updated_ms == 0 {
                String::new()
            } else {
                format!(" for {since}")
            };
            let line = format!("  paused{since}{by}{reason}");
            self.line(&line);
        }
    }

    fn flow(&mut self, flow: &Flow, redis: &RedisStatus) {
        let what = match flow.source {
            FlowSource::Reported => "as producers and workers tell of their last",
            FlowSource::Sampled => "measured over the last",
        };
        self.heading("flow", &format!("{what} {}", span(flow.seconds)));
        self.line(&format!(
            "  {} rows/s accepted, {} detections/s stored, {} dead letters/s",
            per_second(flow.accepted_rows),
            per_second(flow.stored_detections),
            per_second(flow.dead_letters)
        ));
        let empty = match flow.drained_in_seconds {
            _ if redis.backlog_entries() == 0 => "nothing waits".to_owned(),
            Some(seconds) => format!("nothing waits in {}", span(seconds)),
            None => "the backlog does not shrink".to_owned(),
        };
        self.line(&format!(
            "  {} entries/s arrive, {} entries/s are settled: {empty}",
            per_second(flow.arriving_entries),
            per_second(flow.settled_entries)
        ));
        let used = bytes(redis.used_memory);
        let memory = match (redis.max_memory, flow.full_in_seconds) {
            (Some(limit), Some(seconds)) => {
                format!("{used} of {}, full in {}", bytes(limit), span(seconds))
            }
            (Some(limit), None) => format!("{used} of {}", bytes(limit)),
            (None, _) => format!("{used}, without limit"),
        };
        let line = format!("  Redis uses {memory}");
        self.line(&line);
    }

    fn workers(&mut self, redis: &RedisStatus, terminal: Terminal) {
        let n_alive = redis.live_workers().count();
        let n_gone = redis.workers.len() - n_alive;
        let gone = if n_gone > 0 {
            format!(", {n_gone} not heard of")
        } else {
            String::new()
        };
        self.heading("workers", &format!("{n_alive} running{gone}"));
        if redis.workers.is_empty() {
            return;
        }
        const COLUMNS: &[Column] = &[
            Column::text("worker"),
            Column::text("state"),
            Column::number("holds"),
            Column::number("oldest"),
            Column::number("stored"),
            Column::number("last_commit"),
        ];
        let rows = redis.workers.iter().map(|worker| cells(worker, redis));
        self.table(COLUMNS, rows, terminal);
        for worker in &redis.workers {
            let presence = worker.presence.as_ref().map(|presence| &presence.told);
            if let Some(trouble) = presence.and_then(|told| told.last_error.as_ref()) {
                let line = format!(
                    "  {} met {} at {}: {}",
                    visible(&worker.consumer),
                    visible(&trouble.class),
                    trouble.at.format("%Y-%m-%d %H:%M:%S"),
                    visible(&trouble.message)
                );
                self.line(&line);
            }
        }
    }

    fn producers(&mut self, redis: &RedisStatus) {
        let n_live = redis.live_producers().count();
        let n_closed = redis.producers.values().filter(|p| p.told.closed).count();
        let n_silent = redis.producers.len() - n_live - n_closed;
        let gone = n_closed as u64 + redis.producers_gone.producers;
        let mut parts = vec![format!("{n_live} running")];
        if gone > 0 {
            parts.push(format!("{} gone", grouped(gone)));
        }
        if n_silent > 0 {
            parts.push(format!("{n_silent} not heard of"));
        }
        self.heading("producers", &parts.join(", "));
        let pressed = redis
            .live_producers()
            .map(|p| p.pressure)
            .fold(0.0, f32::max);
        if pressed >= 0.5 {
            let line = format!("  the most pressed is at {:.0} %", pressed * 100.0);
            self.line(&line);
        }
        for (id, record) in &redis.producers {
            let told = &record.told;
            if !told.closed && redis.is_silent(record.updated_ms) {
                let silent = span_ms(redis.now_ms.saturating_sub(record.updated_ms));
                let line = format!(
                    "  {} on {} (process {}) not heard of for {silent}, with {}",
                    visible(id),
                    visible(&told.host),
                    told.pid,
                    counted(told.rows().waiting(), "row")
                );
                self.line(&line);
            }
        }
    }

    fn dead_letters(&mut self, store: &StoreBooks) {
        let waiting = store.dead_letters_waiting();
        let written: u64 = store.dead_letters.iter().map(|d| d.written).sum();
        if written == 0 {
            return;
        }
        let beside = format!("{} of {} ever written", grouped(waiting), grouped(written));
        self.heading("dead letters", &format!(" {beside} wait to be looked at"));
        for count in store.dead_letters.iter().filter(|count| count.waiting > 0) {
            self.count(&visible(&count.reason), count.waiting, "");
        }
    }

    fn table(
        &mut self,
        columns: &'static [Column],
        rows: impl Iterator<Item = Vec<Cell>>,
        terminal: Terminal,
    ) {
        let mut text = Vec::new();
        let mut writer = TableWriter::new(&mut text, columns, Output::Table, terminal);
        let written = rows
            .into_iter()
            .try_for_each(|row| writer.row(row))
            .and_then(|()| writer.finish());
        if written.is_ok() {
            for line in String::from_utf8_lossy(&text).lines() {
                let _infallible = writeln!(self.text, "{}", line.trim_end());
            }
        }
    }
}

fn cells(worker: &WorkerStatus, redis: &RedisStatus) -> Vec<Cell> {
    let told = worker.presence.as_ref().map(|presence| &presence.told);
    let silent = worker
        .presence
        .as_ref()
        .map(|presence| redis.now_ms.saturating_sub(presence.updated_ms));
    let state = match (told, worker.is_alive) {
        (Some(told), true) => state(told.state).to_owned(),
        (Some(told), false) if told.has_ended() => "failed".to_owned(),
        (Some(_), false) => format!("silent for {}", span_ms(silent.unwrap_or(0))),
        (None, _) => "does not show itself".to_owned(),
    };
    let now = i64::try_from(redis.now_ms).ok();
    let since_commit = told.and_then(|told| {
        let ms = now? - told.last_commit_at?.timestamp_millis();
        Some(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
    });
    vec![
        Cell::Text(worker.consumer.clone()),
        Cell::Text(state),
        Cell::Count(i64::try_from(worker.pending).unwrap_or(i64::MAX)),
        worker
            .oldest_pending_seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .into(),
        told.map_or(Cell::Absent, |told| {
            Cell::Count(i64::try_from(told.done.detections).unwrap_or(i64::MAX))
        }),
        since_commit.into(),
    ]
}

fn state(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Reading => "reading",
        WorkerState::Paused => "paused",
        WorkerState::StoringNothing => "storing nothing",
        WorkerState::Stopping => "stopping",
        WorkerState::Failed => "failed",
    }
}

fn kinds(store: &StoreBooks) -> String {
    let kinds = [
        (store.detections, "detection"),
        (store.tracks, "track"),
        (store.sessions, "session"),
    ];
    let there = kinds.into_iter().filter(|(n, _)| *n > 0);
    let parts: Vec<String> = there.map(|(n, one)| counted(n, one)).collect();
    parts.join(", ")
}

/// Those that there are: `3 for newer ones, 2 in a full spool`.
fn listed(counts: &[(u64, &str)]) -> String {
    let parts = counts.iter().filter(|(n, _)| *n > 0);
    let parts: Vec<String> = parts
        .map(|(n, what)| format!("{} {what}", grouped(*n)))
        .collect();
    parts.join(", ")
}

fn span(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or_else(|_| "for ever".to_owned(), duration)
}

fn span_ms(ms: u64) -> String {
    duration(Duration::from_millis(ms))
}

/// With as many digits as say something.
fn per_second(rate: f64) -> String {
    if rate >= 100.0 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a rate is far smaller than 2⁶³"
        )]
        return grouped(rate.round() as i64);
    }
    let text = format!("{rate:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}
