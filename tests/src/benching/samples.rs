use serde_json::{Value, json};

/// What some runs measured.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    sorted: Vec<f64>,
    in_order: Vec<f64>,
}

impl Samples {
    /// Nothing measured yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            sorted: Vec::new(),
            in_order: Vec::new(),
        }
    }

    /// Adds what one run measured.
    pub fn push(&mut self, sample: f64) {
        let at = self.sorted.partition_point(|other| *other < sample);
        self.sorted.insert(at, sample);
        self.in_order.push(sample);
    }

    /// These over those of the same runs; `None` when there are not as many.
    #[must_use]
    pub fn over(&self, others: &Self) -> Option<Self> {
        let pairs = self.in_order.iter().zip(&others.in_order);
        (self.in_order.len() == others.in_order.len())
            .then(|| pairs.map(|(ours, theirs)| ours / theirs).collect())
    }

    /// Whether no run measured it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The middle one; the mean of the two in the middle of an even number.
    #[must_use]
    pub fn median(&self) -> f64 {
        f64::midpoint(
            self.sorted[(self.sorted.len() - 1) / 2],
            self.sorted[self.sorted.len() / 2],
        )
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
        let at = ((self.sorted.len() - 1) as f64 * share).ceil() as usize;
        self.sorted[at]
    }

    /// The smallest.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.sorted[0]
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.sorted[self.sorted.len() - 1]
    }

    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({"median": self.median(), "min": self.min(), "max": self.max(), "runs": self.sorted.len()})
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        let in_order: Vec<f64> = samples.into_iter().collect();
        let mut sorted = in_order.clone();
        sorted.sort_by(f64::total_cmp);
        Self { sorted, in_order }
    }
}
