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
    per_second: u32,
    n_due: u64,
}

impl Pace {
    /// So many a second, the first one now.
    #[must_use]
    pub fn per_second(per_second: u32) -> Self {
        Self {
            began: Instant::now(),
            per_second,
            n_due: 0,
        }
    }

    /// Waits until the next is due.
    #[expect(
        clippy::disallowed_methods,
        reason = "the time itself is what is waited for, on a thread of no runtime"
    )]
    pub fn wait(&mut self) {
        let nanos = u128::from(self.n_due) * 1_000_000_000 / u128::from(self.per_second);
        let due = self.began + Duration::from_nanos(u64::try_from(nanos).unwrap());
        self.n_due += 1;
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            thread::sleep(left);
        }
    }
}
