use std::{fs, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// What a process has used so far, as Linux counts it.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Time on a processor, in the program and in the kernel for it, to 10 ms.
    pub cpu: Duration,
    /// The most memory that it had resident, in KiB.
    pub peak_kib: u64,
}

impl Usage {
    /// That of a process, which may have ended if nobody has waited for it yet: then without its memory.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|line| line.split_whitespace().next());
        Self {
            cpu: ticks(&stat, 2),
            peak_kib: kib.map_or(0, |kib| kib.parse().unwrap()),
        }
    }

    /// The processor time of a process, its children, those that have ended, and theirs.
    #[must_use]
    pub fn cpu_of_tree(pid: u32) -> Duration {
        let stat = || fs::read_to_string(format!("/proc/{pid}/stat"));
        let of_ended = |stat: &str| ticks(stat, 4).saturating_sub(ticks(stat, 2));
        loop {
            // One that has just ended is in its parent's books by now.
            let Ok(before) = stat() else {
                return Duration::ZERO;
            };
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let of_children: Duration = children
                .unwrap_or_default()
                .split_whitespace()
                .map(|child| Self::cpu_of_tree(child.parse().unwrap()))
                .sum();
            // Unless it has entered them since they were read here, and would be in neither.
            if stat().is_ok_and(|after| of_ended(&after) == of_ended(&before)) {
                return of_children + ticks(&before, 4);
            }
        }
    }

    /// That of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::of(std::process::id())
    }
}

/// The sum of the first `n` of: time in the program, time in the kernel, and both of children that ended.
fn ticks(stat: &str, n: usize) -> Duration {
    // The name of the program, in parentheses, may hold spaces.
    let fields = stat[stat.rfind(')').unwrap() + 1..].split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(n)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    // USER_HZ is 100 on every architecture that Linux still runs on.
    Duration::from_millis(10 * ticks)
}

/// Time on a processor so far, in the program and in the kernel for it, to the nanosecond.
#[derive(Debug, Clone, Copy)]
pub struct CpuTime {
    /// Of the thread that asks.
    pub this_thread: Duration,
    /// Of all other threads of the process, ended ones included.
    pub other_threads: Duration,
}

impl CpuTime {
    /// So far.
    #[must_use]
    pub fn now() -> Self {
        let this_thread = Self::this_thread();
        Self {
            this_thread,
            other_threads: read(ClockId::ProcessCPUTime).saturating_sub(this_thread),
        }
    }

    /// Of the thread that asks alone, which is quicker to ask for.
    #[must_use]
    pub fn this_thread() -> Duration {
        read(ClockId::ThreadCPUTime)
    }
}

fn read(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap()
}
