//! What the system knows of this process, under the names that every Prometheus client uses.

use std::fs;
use std::time::{Duration, SystemTime};

use super::page::Page;

/// Shows what can be read; a system without `/proc` says less.
pub(super) fn show(page: &mut Page, started: SystemTime) {
    let since = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    gauge(page, "process_start_time_seconds", "When the process started, in seconds since 1970.", since.as_secs());
    if let Some(bytes) = resident_memory() {
        gauge(page, "process_resident_memory_bytes", "Memory that the process has.", bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        gauge(page, "process_open_fds", "Files and sockets that are open.", open.count() as u64);
    }
    if let Some(most) = most_files() {
        gauge(page, "process_max_fds", "The most files and sockets that may be open.", most);
    }
}

fn gauge(page: &mut Page, name: &str, help: &str, value: u64) {
    page.gauge(name, help);
    page.sample(name, &[], value);
}

/// `VmRSS:     12345 kB`
fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// `Max open files            1024                 1048576              files`
fn most_files() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
