use std::{fs, time::Duration};

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
        // The name of the program, in parentheses, may hold spaces.
        let fields: Vec<_> = stat[stat.rfind(')').unwrap() + 1..]
            .split_whitespace()
            .collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|line| line.split_whitespace().next());
        Self {
            // USER_HZ is 100 on every architecture that Linux still runs on.
            cpu: Duration::from_millis(10 * ticks),
            peak_kib: kib.map_or(0, |kib| kib.parse().unwrap()),
        }
    }

    /// That of this process.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::of(std::process::id())
    }
}
