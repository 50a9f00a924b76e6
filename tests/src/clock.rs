use nix::time::{ClockId, clock_gettime};

/// Returns the monotonic clock in nanoseconds: the same clock in every process and namespace.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has a monotonic clock");
    let seconds = u64::try_from(now.tv_sec()).expect("the monotonic clock starts at zero");
    let nanoseconds = u64::try_from(now.tv_nsec()).expect("nanoseconds are never negative");

    seconds * 1_000_000_000 + nanoseconds
}
