//! Which dead letters, as it is typed.

use std::ops::RangeInclusive;

use clap::{Args, ValueEnum};
use passerby_consumer::store::{DeadLetterFilter, LetterState, Reason};

use crate::commands::{Failure, span::Span};

#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Only these numbers, or ranges of them: 17, 100-250, 100- [default: all that match].
    #[arg(value_name = "ID", value_parser = parse_ids)]
    ids: Vec<RangeInclusive<i64>>,
    /// Only this reason.
    #[arg(long, value_name = "REASON", value_parser = REASONS)]
    reason: Option<String>,
    /// Only what Postgres refused with this SQLSTATE, or with one of a class: 23514, or 23.
    #[arg(long, value_name = "CODE", value_parser = parse_sqlstate)]
    sqlstate: Option<String>,
    /// Only those with a row of this camera, as far as cameras can be read.
    #[arg(long, value_name = "ID")]
    camera_id: Option<String>,
    /// Only those with a row of this session, as far as sessions can be read.
    #[arg(long, value_name = "ID")]
    session_id: Option<String>,
    /// Only those of this stream, by its key.
    #[arg(long, value_name = "KEY")]
    stream: Option<String>,
    #[command(flatten)]
    span: Span,
    /// Only those in this state.
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
}

/// As in the table.
const REASONS: [&str; 6] = [
    Reason::Undecodable.as_str(),
    Reason::InvalidRow.as_str(),
    Reason::Refused.as_str(),
    Reason::Lost.as_str(),
    Reason::TooOld.as_str(),
    Reason::Panic.as_str(),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum State {
    /// Nobody has decided yet.
    Waiting,
    /// Put back into its stream.
    Requeued,
    /// Not to be stored.
    Discarded,
}

impl From<State> for LetterState {
    fn from(state: State) -> Self {
        match state {
            State::Waiting => Self::Waiting,
            State::Requeued => Self::Requeued,
            State::Discarded => Self::Discarded,
        }
    }
}

impl FilterArgs {
    /// The filter, for at most so many letters.
    pub(super) fn filter(&self, limit: i64) -> DeadLetterFilter {
        DeadLetterFilter {
            ids: self.ids.clone(),
            reason: self.reason.clone(),
            sqlstate: self.sqlstate.clone(),
            camera_id: self.camera_id.clone(),
            session_id: self.session_id.clone(),
            stream: self.stream.clone(),
            from: self.span.start(),
            to: self.span.end(),
            discarded_before: None,
            state: self.state.map(Into::into),
            after: 0,
            up_to: None,
            limit,
        }
    }

    /// Whether anything was asked for.
    pub(super) fn is_given(&self) -> bool {
        !self.ids.is_empty()
            || self.reason.is_some()
            || self.sqlstate.is_some()
            || self.camera_id.is_some()
            || self.session_id.is_some()
            || self.stream.is_some()
            || self.span.is_given()
            || self.state.is_some()
    }

    pub(super) fn state(&self) -> Option<State> {
        self.state
    }

    /// Whether all that is asked for is named one by one.
    pub(super) fn are_named(&self) -> bool {
        !self.ids.is_empty() && self.n_named() == self.ids.len()
    }

    fn n_named(&self) -> usize {
        self.ids
            .iter()
            .filter(|ids| ids.start() == ids.end())
            .count()
    }

    /// Refuses numbers of letters that are not there, or do not match.
    pub(super) fn check_named(&self, n_matched: usize) -> Result<(), Failure> {
        let mut named: Vec<i64> = self.ids.iter().map(|ids| *ids.start()).collect();
        named.sort_unstable();
        named.dedup();
        if !self.are_named() || n_matched >= named.len() {
            return Ok(());
        }
        Err(Failure::new(format_args!(
            "{n_matched} of the {} numbers given are of dead letters that match: `passerby dead-letters \
             list` shows what there is; nothing was changed",
            named.len()
        )))
    }
}

fn parse_ids(text: &str) -> Result<RangeInclusive<i64>, String> {
    let expected = || format!("`{text}` is no number of a letter: expected 17, 100-250 or 100-");
    let number = |text: &str| {
        let number = text.parse::<i64>().ok().filter(|n| *n >= 0);
        number.ok_or_else(expected)
    };
    match text.split_once('-') {
        None => number(text).map(|id| id..=id),
        Some((first, "")) => Ok(number(first)?..=i64::MAX),
        Some((first, last)) => {
            let range = number(first)?..=number(last)?;
            if range.is_empty() {
                return Err(expected());
            }
            Ok(range)
        }
    }
}

fn parse_sqlstate(text: &str) -> Result<String, String> {
    let is_code = matches!(text.len(), 2 | 5) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_code {
        return Ok(text.to_ascii_uppercase());
    }
    Err(format!(
        "`{text}` is no SQLSTATE: expected five letters and digits, as 23514, or two for a class, as 23"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_are_read() {
        let check = |text, expected: Option<RangeInclusive<i64>>| {
            assert_eq!(parse_ids(text).ok(), expected, "{text}");
        };
        check("17", Some(17..=17));
        check("100-250", Some(100..=250));
        check("100-", Some(100..=i64::MAX));
        for text in ["", "-", "-5", "5-4", "1-2-3", "x", "1 2"] {
            check(text, None);
        }
    }

    #[test]
    fn a_sqlstate_has_five_characters_and_its_class_two() {
        assert_eq!(parse_sqlstate("22p02"), Ok("22P02".into()));
        assert_eq!(parse_sqlstate("23"), Ok("23".into()));
        assert!(parse_sqlstate("235").is_err());
        assert!(parse_sqlstate("2%").is_err());
    }
}
