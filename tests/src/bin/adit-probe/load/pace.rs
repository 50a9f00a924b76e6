use std::time::{Duration, Instant};

use nix::sys::prctl;

/// The rhythm of a constant rate.
pub(crate) struct Pace {
    start: Instant,
    rate: f64,
    /// How many may be made up for at once, after somebody else had the processor. What is beyond
    /// that is let go: it would only measure queues.
    most_behind: u64,
    done: u64,
}

impl Pace {
    /// `rate` is per second.
    pub(crate) fn start(rate: u64, at_once: u64) -> Self {
        // Without this the kernel wakes this thread up to 50 µs late to save energy. If it does
        // not want to, the rate is less even.
        let _ = prctl::set_timerslack(1);
        let rate = rate as f64;
        let per_ms = (rate / 1_000.0) as u64;

        Self { start: Instant::now(), rate, most_behind: per_ms.max(at_once), done: 0 }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits until `count` are due.
    pub(crate) fn wait_for(&mut self, count: u64) {
        let due = (self.elapsed().as_secs_f64() * self.rate) as u64;
        let behind = due.saturating_sub(self.done);
        self.done += behind.saturating_sub(self.most_behind);
        self.done += count;
        let time = Duration::from_secs_f64(self.done as f64 / self.rate);
        if let Some(left) = time.checked_sub(self.elapsed()) {
            std::thread::sleep(left);
        }
    }
}
