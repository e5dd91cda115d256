//! What is known, as lines of text.

use std::time::Duration;

use chrono::{DateTime, Utc};
use passerby_consumer::ops::{
    Balance, CameraSample, Flow, RedisStatus, Severity, StatusReport, Thresholds, WorkerStatus,
};

use super::Look;
use crate::{
    commands::status::verdict,
    render::{bytes, counted, duration, grouped},
    visible::visible,
};

/// A rate without its unit: `12.3 k`.
pub(super) fn per_second(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 999_950.0 => (v / 1e6, " M"),
        v if v >= 999.5 => (v / 1e3, " k"),
        v => (v, ""),
    };
    if scaled >= 99.95 || scaled == 0.0 {
        format!("{scaled:.0}{unit}")
    } else {
        format!("{scaled:.1}{unit}")
    }
}

pub(super) fn seconds(value: f64) -> String {
    Duration::try_from_secs_f64(value).map_or_else(|_| "ever".to_owned(), duration)
}

/// Words in lines of so many columns.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        let n_columns = line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && n_columns > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// The last values as bars, newest at the right; the highest of them is the full height.
pub(super) fn sparkline(
    history: impl ExactSizeIterator<Item = f64> + Clone,
    width: usize,
    look: Look,
) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const ASCII: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];
    let bars = if look.is_unicode { BARS } else { ASCII };
    let skipped = history.len().saturating_sub(width);
    let values = history.skip(skipped);
    let most = values.clone().fold(0.0, f64::max);
    let bar = |value: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 7"
        )]
        let level = (value / most.max(f64::MIN_POSITIVE) * 7.0)
            .round()
            .clamp(0.0, 7.0) as usize;
        bars[level]
    };
    let drawn: String = values.map(bar).collect();
    format!("{drawn:>width$}")
}

/// `accepted 12,345 = stored …`.
pub(super) fn books(balance: &Balance) -> String {
    let waiting = balance.buffered + balance.spooled;
    let mut text = format!(
        "{} accepted = {} settled + {} in stream + {} waiting + {} dropped",
        grouped(balance.accepted + balance.accepted_before),
        grouped(balance.settled.saturating_sub(balance.surplus)),
        grouped(balance.in_stream),
        grouped(waiting),
        grouped(balance.dropped.accepted()),
    );
    if balance.unheard > 0 {
        text.push_str(&format!(" + {} unheard of", grouped(balance.unheard)));
    }
    if balance.unaccounted > 0 {
        text.push_str(&format!(" + {} NOWHERE", grouped(balance.unaccounted)));
    }
    text
}

/// `stored 12,000, dead letters 3 (2 wait)`.
pub(super) fn outcome(report: &StatusReport) -> String {
    let Some(store) = &report.store else {
        return "Postgres has not answered yet".to_owned();
    };
    let letters: u64 = store.dead_letters.iter().map(|reason| reason.written).sum();
    let mut text = format!("{} stored", counted(store.rows_stored(), "row"));
    if letters > 0 {
        text.push_str(&format!(
            ", {} ({} wait)",
            counted(letters, "dead letter"),
            grouped(store.dead_letters_waiting())
        ));
        let reasons: Vec<String> = store
            .dead_letters
            .iter()
            .take(3)
            .map(|reason| format!("{} {}", grouped(reason.written), visible(&reason.reason)))
            .collect();
        text.push_str(&format!(": {}", reasons.join(", ")));
    }
    if let Some(balance) = &report.balance {
        let others = [
            (balance.foreign, "of programs that keep no books"),
            (balance.direct, "stored directly"),
            (balance.requeued, "put back"),
            (balance.surplus, "not told of yet"),
        ];
        for (n, what) in others.into_iter().filter(|(n, _)| *n > 0) {
            text.push_str(&format!(", {} {what}", grouped(n)));
        }
    }
    text
}

pub(super) fn backlog(redis: &RedisStatus, flow: Option<&Flow>) -> String {
    let about = if redis.undelivered_is_exact() {
        ""
    } else {
        "about "
    };
    let entries = redis.backlog_entries();
    let mut text = format!(
        "{about}{} {}: {} pending, {} unread",
        grouped(entries),
        if entries == 1 { "entry" } else { "entries" },
        grouped(redis.pending()),
        grouped(redis.undelivered()),
    );
    if entries > 0 {
        text.push_str(&format!(
            ", the oldest {} old",
            seconds(redis.backlog_seconds())
        ));
        match flow.map(|flow| flow.drained_in_seconds) {
            Some(Some(time)) => text.push_str(&format!(", drained in {}", seconds(time))),
            Some(None) => text.push_str(", not shrinking"),
            None => {}
        }
    }
    text
}

pub(super) fn memory(redis: &RedisStatus, flow: Option<&Flow>) -> String {
    let mut text = bytes(redis.used_memory);
    if let Some(limit) = redis.max_memory {
        text.push_str(&format!(" of {}", bytes(limit)));
        if let Some(time) = flow.and_then(|flow| flow.full_in_seconds) {
            text.push_str(&format!(", full in {}", seconds(time)));
        }
    }
    text
}

/// Whether all is well, that in one sentence, and what that sentence leaves out, the worst first.
pub(super) fn judgement(
    report: &StatusReport,
    thresholds: &Thresholds,
) -> (bool, String, Vec<(Severity, String)>) {
    let symptoms = report.symptoms(thresholds);
    let (is_well, verdict) = verdict(report, &symptoms);
    let others = symptoms
        .iter()
        .skip(usize::from(!is_well))
        .map(|symptom| (symptom.severity, visible(&symptom.text).into_owned()));
    (is_well, verdict, others.collect())
}

/// `pending entries: 100 of 1,234`.
pub(super) fn shown_of(what: &str, n_shown: usize, n_all: u64) -> String {
    let n_shown = n_shown as u64;
    if n_all > n_shown {
        return format!(
            "{what}: the oldest {} of {}",
            grouped(n_shown),
            grouped(n_all)
        );
    }
    format!("{what}: {}", grouped(n_shown))
}

/// Rows that a worker stores a second; `None` where it does not tell.
pub(super) fn worker_rate(worker: &WorkerStatus) -> Option<f64> {
    let told = &worker.presence.as_ref().filter(|_| worker.is_alive)?.told;
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let rows = told.lately.detections as f64;
    Some(rows / told.lately.seconds.max(0.001))
}

pub(super) const WORKER_HEADINGS: [&str; 8] = [
    "worker",
    "state",
    "holds",
    "oldest",
    "rows/s",
    "",
    "last commit",
    "process",
];

/// The columns of a worker; `bars` are its last rates.
pub(super) fn worker(worker: &WorkerStatus, bars: String, now: DateTime<Utc>) -> [String; 8] {
    let told = worker.presence.as_ref().map(|presence| &presence.told);
    let state = match told {
        _ if !worker.is_alive => "silent".to_owned(),
        Some(told) => serde_json::to_value(told.state)
            .ok()
            .and_then(|state| state.as_str().map(|state| state.replace('-', " ")))
            .unwrap_or_default(),
        None => "alive".to_owned(),
    };
    let rate = worker_rate(worker).map_or_else(|| "-".to_owned(), per_second);
    let ago = |at: DateTime<Utc>| {
        let ago = (now - at).to_std().unwrap_or_default();
        format!("{} ago", duration(ago))
    };
    [
        visible(&worker.consumer).into_owned(),
        state,
        grouped(worker.pending),
        worker
            .oldest_pending_seconds
            .map_or_else(|| "-".to_owned(), seconds),
        rate,
        bars,
        told.and_then(|told| told.last_commit_at)
            .map_or_else(|| "-".to_owned(), ago),
        told.map_or_else(
            || "-".to_owned(),
            |told| format!("{} {}", told.pid, visible(&told.host)),
        ),
    ]
}

/// The last thing that went wrong with any worker that lives.
pub(super) fn last_trouble(redis: &RedisStatus, now: DateTime<Utc>) -> Option<String> {
    let troubles = redis.workers.iter().filter_map(|worker| {
        let told = &worker.presence.as_ref()?.told;
        Some((&worker.consumer, told.last_error.as_ref()?))
    });
    let (consumer, trouble) = troubles.max_by_key(|(_, trouble)| trouble.at)?;
    let ago = (now - trouble.at).to_std().unwrap_or_default();
    // What went wrong yesterday is in the log.
    (ago < Duration::from_secs(3_600)).then(|| {
        format!(
            "{} {} ago: {}",
            visible(consumer),
            duration(ago),
            visible(&trouble.message)
        )
    })
}

pub(super) fn sampled(sample: &CameraSample) -> String {
    let what = if sample.is_cut {
        format!(
            "estimated from the newest {} entries, {:.1} s",
            grouped(sample.entries),
            sample.seconds
        )
    } else {
        format!(
            "the last {:.0} s, {} entries",
            sample.seconds,
            grouped(sample.entries)
        )
    };
    format!("What arrives by camera, {what}")
}
