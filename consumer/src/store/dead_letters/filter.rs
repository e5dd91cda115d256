//! Which dead letters, and how Postgres is asked for them.

use std::ops::RangeInclusive;

use chrono::{DateTime, Utc};
use tokio_postgres::types::ToSql;

use super::{DeadLetterRecord, LetterState};

/// Which dead letters.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterFilter {
    /// Only numbers in these ranges; all when empty.
    pub ids: Vec<RangeInclusive<i64>>,
    /// Only this reason.
    pub reason: Option<String>,
    /// Only this SQLSTATE, or the class that its first two characters are.
    pub sqlstate: Option<String>,
    /// Only those with a row of this camera.
    pub camera_id: Option<String>,
    /// Only those with a row of this session.
    pub session_id: Option<String>,
    /// Only those of this stream.
    pub stream: Option<String>,
    /// Only those written at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only those written before this time.
    pub to: Option<DateTime<Utc>>,
    /// Only those that were discarded before this time.
    pub discarded_before: Option<DateTime<Utc>>,
    /// Only those in this state.
    pub state: Option<LetterState>,
    /// Only those with a greater number.
    pub after: i64,
    /// Only those with no greater number.
    pub up_to: Option<i64>,
    /// At most so many.
    pub limit: i64,
}

impl DeadLetterFilter {
    /// Whether a letter is of the camera and the session that are asked for.
    pub(super) fn is_about(&self, letter: &DeadLetterRecord) -> bool {
        let holds = |wanted: &Option<String>, ids: &[String]| {
            wanted.as_ref().is_none_or(|wanted| ids.contains(wanted))
        };
        holds(&self.camera_id, &letter.camera_ids) && holds(&self.session_id, &letter.session_ids)
    }

    pub(super) fn asks_for_sources(&self) -> bool {
        self.camera_id.is_some() || self.session_id.is_some()
    }
}

/// The conditions of a filter, only those that are asked for, so that the planner sees which index fits.
pub(super) struct Conditions {
    pub(super) sql: String,
    params: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Conditions {
    pub(super) fn of(filter: &DeadLetterFilter) -> Self {
        let mut all = Self {
            sql: "TRUE".to_owned(),
            params: Vec::new(),
        };
        all.and_ids(&filter.ids);
        all.and("reason = ?", filter.reason.clone());
        all.and("starts_with(sqlstate, ?)", filter.sqlstate.clone());
        all.and(
            "(camera_ids IS NULL OR ? = ANY (camera_ids))",
            filter.camera_id.clone(),
        );
        all.and(
            "(session_ids IS NULL OR ? = ANY (session_ids))",
            filter.session_id.clone(),
        );
        all.and("stream = ?", filter.stream.clone());
        all.and("dead_lettered_at >= ?", filter.from);
        all.and("dead_lettered_at < ?", filter.to);
        all.and("discarded_at < ?", filter.discarded_before);
        all.and("id > ?", (filter.after > 0).then_some(filter.after));
        all.and("id <= ?", filter.up_to);
        if let Some(state) = filter.state {
            all.and_always(state.condition());
        }
        all
    }

    pub(super) fn and_always(&mut self, condition: &str) {
        self.sql.push_str("\n  AND ");
        self.sql.push_str(condition);
    }

    fn and(&mut self, condition: &str, value: Option<impl ToSql + Sync + Send + 'static>) {
        if let Some(value) = value {
            let param = self.param(value);
            self.and_always(&condition.replace('?', &param));
        }
    }

    /// Adds a value and returns the name of its parameter.
    pub(super) fn param(&mut self, value: impl ToSql + Sync + Send + 'static) -> String {
        self.params.push(Box::new(value));
        format!("${}", self.params.len())
    }

    fn and_ids(&mut self, ids: &[RangeInclusive<i64>]) {
        if ids.is_empty() {
            return;
        }
        let (single, ranges): (Vec<_>, Vec<_>) = ids.iter().partition(|r| r.start() == r.end());
        let single: Vec<i64> = single.into_iter().map(|range| *range.start()).collect();
        let mut any = format!("(id = ANY ({})", self.param(single));
        for range in ranges {
            let (first, last) = (self.param(*range.start()), self.param(*range.end()));
            any.push_str(&format!(" OR id BETWEEN {first} AND {last}"));
        }
        any.push(')');
        self.and_always(&any);
    }

    pub(super) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.params
            .iter()
            .map(|param| -> &(dyn ToSql + Sync) { param.as_ref() })
            .collect()
    }
}
