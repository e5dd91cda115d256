use serde_json::{Value, json};

/// What some runs measured.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Nothing measured yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds what one run measured.
    pub fn push(&mut self, sample: f64) {
        let at = self.0.partition_point(|other| *other < sample);
        self.0.insert(at, sample);
    }

    /// Whether no run measured it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The middle one; the mean of the two in the middle of an even number.
    #[must_use]
    pub fn median(&self) -> f64 {
        f64::midpoint(self.0[(self.0.len() - 1) / 2], self.0[self.0.len() / 2])
    }

    /// The one that so great a share of them does not exceed.
    #[must_use]
    pub fn at(&self, share: f64) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "of small numbers, between 0 and the last"
        )]
        let at = ((self.0.len() - 1) as f64 * share).ceil() as usize;
        self.0[at]
    }

    /// The smallest.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.0[0]
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }

    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"median": self.median(), "min": self.min(), "max": self.max(), "runs": self.0.len()})
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        let mut all: Vec<f64> = samples.into_iter().collect();
        all.sort_by(f64::total_cmp);
        Self(all)
    }
}
