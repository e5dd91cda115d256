use std::{
    thread,
    time::{Duration, Instant},
};

/// A steady rate, which a thread keeps by waiting until each call is due.
///
/// It sleeps and does not spin: threads that spin take the processors from what is measured. So it wakes
/// a little late, by what the kernel adds to a sleep. What is overdue then follows at once: the rate is
/// kept, call by call.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    /// So many
    n: u32,
    /// in this time.
    time: Duration,
    n_due: u64,
}

impl Pace {
    /// So many a second, the first one now.
    #[must_use]
    pub fn per_second(per_second: u32) -> Self {
        Self::so_many_in(per_second, Duration::from_secs(1))
    }

    /// One in each such time, the first one now.
    #[must_use]
    pub fn every(period: Duration) -> Self {
        Self::so_many_in(1, period)
    }

    fn so_many_in(n: u32, time: Duration) -> Self {
        Self {
            began: Instant::now(),
            n,
            time,
            n_due: 0,
        }
    }

    /// Waits until the next is due.
    #[expect(
        clippy::disallowed_methods,
        reason = "the time itself is what is waited for, on a thread of no runtime"
    )]
    pub fn wait(&mut self) {
        let nanos = u128::from(self.n_due) * self.time.as_nanos() / u128::from(self.n);
        let due = self.began + Duration::from_nanos(u64::try_from(nanos).unwrap());
        self.n_due += 1;
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            thread::sleep(left);
        }
    }
}
