//! Memory of the machine that this process may still take, as the kernel says it.

use std::path::Path;

/// Bytes that can be had without swapping: what is free or can be freed at once, and no more than the container's limit.
/// `None` where the kernel does not say.
pub fn available_bytes() -> Option<u64> {
    let free = available_in(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let limit = std::fs::read_to_string(Path::new("/sys/fs/cgroup/memory.max")).ok();
    let limit = limit.and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    Some(free.min(limit))
}

/// `MemAvailable` of `/proc/meminfo`, which counts in KiB.
fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_can_be_had() {
        assert_eq!(available_in("MemTotal: 100 kB\nMemFree:  5 kB\nMemAvailable:   12 kB\n"), Some(12 * 1024));
        assert_eq!(available_in("MemTotal: 100 kB"), None);
        assert!(available_bytes().is_some_and(|bytes| bytes > 0));
    }
}
