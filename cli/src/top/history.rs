//! What was seen before, for the sparklines: of everything, of each worker and of each camera.

use std::collections::{BTreeMap, VecDeque};

use passerby_consumer::ops::{CameraSample, StatusReport};

use super::lines;

/// Samples that are kept: more than a wide terminal has columns.
const MAX_SAMPLES: usize = 240;

/// The last values of one thing, oldest first.
#[derive(Debug, Default)]
pub(super) struct Values(VecDeque<f64>);

impl Values {
    fn push(&mut self, value: f64) {
        if self.0.len() == MAX_SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// Whether nothing was seen for as long as anything is remembered.
    fn is_flat(&self) -> bool {
        self.0.iter().all(|value| *value == 0.0)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = f64> + Clone {
        self.0.iter().copied()
    }
}

/// Rates and backlog, at the moments they were asked for.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) arriving: Values,
    pub(super) settled: Values,
    pub(super) stored: Values,
    pub(super) backlog: Values,
    workers: BTreeMap<String, Values>,
    cameras: BTreeMap<String, Values>,
}

impl History {
    pub(super) fn take_status(&mut self, report: &StatusReport) {
        if let Some(flow) = &report.flow {
            self.arriving.push(flow.arriving_entries);
            self.settled.push(flow.settled_entries);
            self.stored.push(flow.stored_detections);
            #[expect(clippy::cast_precision_loss, reason = "drawn with eight levels")]
            self.backlog
                .push(report.backlog_entries().unwrap_or(0) as f64);
        }
        let Some(redis) = &report.redis else { return };
        let rates = redis.workers.iter().map(|worker| {
            let rate = lines::worker_rate(worker).unwrap_or(0.0);
            (worker.consumer.as_str(), rate)
        });
        take(&mut self.workers, &rates.collect());
        // One that has left the group is not drawn any more.
        self.workers
            .retain(|name, _| redis.workers.iter().any(|worker| worker.consumer == *name));
    }

    pub(super) fn take_cameras(&mut self, sample: &CameraSample) {
        let rates = sample.cameras.iter();
        let rates = rates.map(|camera| (camera.camera_id.as_str(), camera.rows_per_second));
        take(&mut self.cameras, &rates.collect());
        self.cameras.retain(|_, values| !values.is_flat());
    }

    pub(super) fn worker(&self, consumer: &str) -> Option<&Values> {
        self.workers.get(consumer)
    }

    pub(super) fn camera(&self, camera_id: &str) -> Option<&Values> {
        self.cameras.get(camera_id)
    }
}

/// Whoever is known and not among the rates has done nothing.
fn take(known: &mut BTreeMap<String, Values>, rates: &BTreeMap<&str, f64>) {
    for (name, values) in &mut *known {
        values.push(rates.get(name.as_str()).copied().unwrap_or(0.0));
    }
    for (name, rate) in rates {
        if !known.contains_key(*name) {
            let mut values = Values::default();
            values.push(*rate);
            known.insert((*name).to_owned(), values);
        }
    }
}
