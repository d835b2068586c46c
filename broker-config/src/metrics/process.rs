//! Figures of this process, under the names that all Prometheus clients use. What cannot be read is left out.

use std::fs;

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::{
    descriptor::NO_LABELS,
    table::{PROCESS_CPU, PROCESS_FILES, PROCESS_FILES_MAX, PROCESS_MEMORY, PROCESS_START},
};

/// Linux shows times of processes to programs in hundredths of a second, whatever the kernel counts in.
const TICKS_PER_SECOND: f64 = 100.0;

/// Records them as they are now.
pub fn record() {
    if let Some(bytes) = memory_bytes() {
        PROCESS_MEMORY.of(NO_LABELS).set(bytes);
    }
    PROCESS_CPU.of(NO_LABELS).absolute(clock_gettime(ClockId::ProcessCPUTime).tv_sec.unsigned_abs());
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of them is the folder that is being read.
        PROCESS_FILES.of(NO_LABELS).set(files.count().saturating_sub(1) as f64);
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        PROCESS_FILES_MAX.of(NO_LABELS).set(most as f64);
    }
    if let Some(at) = started_at() {
        PROCESS_START.of(NO_LABELS).set(at);
    }
}

fn memory_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib: f64 = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0)
}

/// Seconds since 1970.
fn started_at() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name stands in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let after_boot: f64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let all = fs::read_to_string("/proc/stat").ok()?;
    let booted_at: f64 = all.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted_at + after_boot / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn figures_are_those_of_this_process() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started_at = started_at().unwrap();
        assert!(started_at > now - 86_400.0 && started_at < now + 60.0, "{started_at} is no start of a test, now {now}");
        assert!(memory_bytes().unwrap() > 1e6);
    }
}
