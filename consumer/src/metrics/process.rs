//! What the process takes of its machine.

use std::time::{Duration, SystemTime};

use metrics::Gauge;
use tokio::runtime::Handle;

use super::{MAX_FDS, OPEN_FDS, RESIDENT_MEMORY, RUNTIME_TASKS, START_TIME};

/// Gauges of the process, under the names that other programs give them, too.
pub(crate) struct ProcessGauges {
    resident_memory: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    runtime_tasks: Gauge,
}

impl ProcessGauges {
    /// Registers them; the process counts as started now.
    pub(crate) fn register() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        START_TIME
            .gauge(&[])
            .set(now.unwrap_or(Duration::ZERO).as_secs_f64());
        Self {
            resident_memory: RESIDENT_MEMORY.gauge(&[]),
            open_fds: OPEN_FDS.gauge(&[]),
            max_fds: MAX_FDS.gauge(&[]),
            runtime_tasks: RUNTIME_TASKS.gauge(&[]),
        }
    }

    /// Measures; what a system does not tell is NaN.
    pub(crate) fn measure(&self) {
        let (memory, open, max) = (resident_memory(), open_fds(), max_fds());
        self.resident_memory.set(memory.unwrap_or(f64::NAN));
        self.open_fds.set(open.unwrap_or(f64::NAN));
        self.max_fds.set(max.unwrap_or(f64::NAN));
        if let Ok(runtime) = Handle::try_current() {
            let n = u32::try_from(runtime.metrics().num_alive_tasks()).unwrap_or(u32::MAX);
            self.runtime_tasks.set(f64::from(n));
        }
    }
}

pub(crate) fn resident_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

fn open_fds() -> Option<f64> {
    // One of them is for looking.
    let n = std::fs::read_dir("/proc/self/fd").ok()?.count() - 1;
    u32::try_from(n).ok().map(f64::from)
}

fn max_fds() -> Option<f64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        number => number.parse().ok(),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn linux_tells_all_of_it() {
        assert!(resident_memory().unwrap() > 1e5);
        let open = open_fds().unwrap();
        assert!(open >= 1.0 && open <= max_fds().unwrap());
    }
}
