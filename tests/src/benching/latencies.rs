use std::time::Duration;

/// How long each of many calls took: all of them, so that quantiles are exact.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    /// None yet, with room for so many.
    #[must_use]
    pub fn with_capacity(n_calls: usize) -> Self {
        Self(Vec::with_capacity(n_calls))
    }

    /// Adds a call.
    pub fn push(&mut self, latency: Duration) {
        self.0
            .push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds those of another thread.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// How many calls there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there were none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What so many of 1,000 calls took at most.
    #[must_use]
    pub fn at_per_mille(&mut self, per_mille: usize) -> Duration {
        let nth = (self.0.len() * per_mille).div_ceil(1_000).max(1) - 1;
        Duration::from_nanos(*self.0.select_nth_unstable(nth).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_call_that_so_many_took_no_longer_than() {
        let mut latencies = Latencies::default();
        for nanos in (1..=1_000).rev() {
            latencies.push(Duration::from_nanos(nanos));
        }
        for per_mille in [1, 500, 990, 999, 1_000] {
            let nanos = latencies.at_per_mille(per_mille).as_nanos();
            assert_eq!(nanos, per_mille as u128);
        }
    }
}
