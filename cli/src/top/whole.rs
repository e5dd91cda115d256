//! A pending entry or a dead letter, whole, as lines of text.

use std::time::Duration;

use passerby_consumer::store::DeadLetterRecord;

use super::Model;
use crate::{render::duration, visible::visible};

/// A dead letter, whole.
pub(super) fn letter(letter: &DeadLetterRecord) -> Vec<String> {
    let shown = crate::commands::dead_letters::as_lines(letter);
    shown
        .into_iter()
        .map(|line| visible(&line).into_owned())
        .collect()
}

/// A pending entry, whole.
pub(super) fn pending(model: &Model) -> Vec<String> {
    let Some(Ok(report)) = &model.pending else {
        return Vec::new();
    };
    let Some(entry) = report.entries.get(model.selected) else {
        return Vec::new();
    };
    let ms = |ms: u64| duration(Duration::from_millis(ms));
    let mut lines = vec![
        format!("entry             {}", entry.entry_id),
        format!("stream            {}", visible(&entry.stream)),
        format!("held by           {}", visible(&entry.consumer)),
        format!("added             {} ago", ms(entry.age_ms)),
        format!("no sign of life   {}", ms(entry.idle_ms)),
        format!(
            "delivered         {}",
            crate::commands::trim::times(entry.delivery_count)
        ),
    ];
    if entry.is_gone {
        lines.push("no longer in the stream: its rows are lost in Redis".to_owned());
    }
    if let Some(decoded) = &entry.decoded {
        lines.push(format!("idempotency key   {}", decoded.idempotency_key));
        for (name, value) in crate::commands::entry::contents(decoded) {
            lines.push(format!("{name:<16}  {value}"));
        }
    }
    lines.push(String::new());
    lines.push(format!("passerby entry {} tells the rest.", entry.entry_id));
    lines
}
