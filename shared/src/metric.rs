//! How a metric is declared: its name, type, labels and meaning stand in one place.
//!
//! A crate declares its metrics with [`declare_metrics!`](crate::declare_metrics) in its `metrics.rs`;
//! what is said there of each is its documentation and its help text. `docs/metrics.md` and what a live
//! worker exports are held against these declarations by a test.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

/// A metric of a crate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// The whole name, as Prometheus shows it.
    pub name: &'static str,
    /// What kind of series it has.
    pub series: Series,
    /// Its labels, each with all values that it can have.
    pub labels: &'static [Label],
    /// What it says, in a sentence or two.
    pub help: &'static str,
}

/// What kind of series a metric has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Series {
    /// A number that only grows, from 0 at the start of the process.
    Counter,
    /// A number as it is now.
    Gauge,
    /// How often a value was at most so large, for each of these bounds.
    Histogram(&'static [f64]),
}

impl Series {
    /// Its name in Prometheus' text format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A label and the values it can have: a small closed set, and nothing that comes from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// All its values.
    pub values: &'static [&'static str],
}

/// Label values of one series.
pub type Labels = [(&'static str, &'static str)];

impl Metric {
    /// The unit, which is a part of the name.
    pub fn unit(&self) -> Unit {
        let name = self.name.trim_end_matches("_total");
        if name.ends_with("_seconds") {
            Unit::Seconds
        } else if name.ends_with("_bytes") {
            Unit::Bytes
        } else {
            Unit::Count
        }
    }

    /// The bounds of its buckets, when it is a histogram.
    pub fn buckets(&self) -> Option<&'static [f64]> {
        match self.series {
            Series::Histogram(buckets) => Some(buckets),
            Series::Counter | Series::Gauge => None,
        }
    }

    /// Tells the installed recorder its unit and help text.
    pub fn describe(&self) {
        let (name, unit, help) = (self.name, self.unit(), self.help);
        match self.series {
            Series::Counter => describe_counter!(name, unit, help),
            Series::Gauge => describe_gauge!(name, unit, help),
            Series::Histogram(_) => describe_histogram!(name, unit, help),
        }
    }

    /// One of its series, registered with the installed recorder: it is 0 from now on.
    pub fn counter(&self, labels: &Labels) -> Counter {
        self.check(labels);
        counter!(self.name, labels)
    }

    /// As [`Metric::counter`], of a gauge.
    pub fn gauge(&self, labels: &Labels) -> Gauge {
        self.check(labels);
        gauge!(self.name, labels)
    }

    /// As [`Metric::counter`], of a histogram.
    pub fn histogram(&self, labels: &Labels) -> Histogram {
        self.check(labels);
        histogram!(self.name, labels)
    }

    fn check(&self, labels: &Labels) {
        let is_declared = |(name, value): &(&str, &str)| {
            let mut declared = self.labels.iter();
            declared.any(|label| label.name == *name && label.values.contains(value))
        };
        debug_assert!(
            labels.len() == self.labels.len() && labels.iter().all(is_declared),
            "{}: {labels:?} is not declared",
            self.name
        );
    }
}

/// Declares metrics, each documented by its help text, and `ALL` of them.
///
/// ```
/// use passerby_shared::{Label, Metric, declare_metrics};
///
/// const KIND: Label = Label { name: "kind", values: &["tame", "wild"] };
///
/// declare_metrics! {
///     /// Cats seen, by `kind`.
///     CATS_SEEN = Counter "zoo_cats_seen_total" [KIND];
///     /// Time a cat stayed.
///     CAT_SECONDS = Histogram(&[1.0, 10.0, 60.0]) "zoo_cat_stay_seconds" [];
/// }
///
/// assert_eq!(ALL.len(), 2);
/// assert_eq!(CATS_SEEN.help, "Cats seen, by `kind`.");
/// ```
#[macro_export]
macro_rules! declare_metrics {
    ($(
        $(#[doc = $help:literal])+
        $ident:ident = $series:ident $(($buckets:expr))? $name:literal [$($label:expr),*];
    )*) => {
        $(
            $(#[doc = $help])+
            pub const $ident: $crate::Metric = $crate::Metric {
                name: $name,
                series: $crate::Series::$series $(($buckets))?,
                labels: &[$($label),*],
                help: concat!($($help),+).trim_ascii(),
            };
        )*

        /// All metrics of this crate.
        pub const ALL: &[$crate::Metric] = &[$($ident),*];
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_read_from_the_name() {
        let check = |name, unit| {
            let metric = Metric {
                name,
                series: Series::Gauge,
                labels: &[],
                help: "",
            };
            assert_eq!(metric.unit(), unit, "{name}");
        };
        check("a_published_bytes_total", Unit::Bytes);
        check("a_commit_duration_seconds", Unit::Seconds);
        check("a_rows_total", Unit::Count);
    }
}
