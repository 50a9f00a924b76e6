use std::io::{self, Write as _};

use serde_json::{Value, json};

/// Durations that were measured, in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Distribution {
    sorted_ms: Vec<f64>,
}

impl Distribution {
    /// Adds a duration in nanoseconds.
    pub fn add_ns(&mut self, nanoseconds: u64) {
        #[expect(clippy::cast_precision_loss, reason = "exact for durations below 104 days")]
        let ms = nanoseconds as f64 / 1e6;
        let place = self.sorted_ms.partition_point(|other| *other <= ms);
        self.sorted_ms.insert(place, ms);
    }

    /// Adds all durations of another distribution.
    pub fn extend(&mut self, other: &Self) {
        self.sorted_ms.extend(&other.sorted_ms);
        self.sorted_ms.sort_by(f64::total_cmp);
    }

    /// Returns how many durations there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sorted_ms.len()
    }

    /// Returns the shortest duration that at least this many of 100 do not exceed.
    ///
    /// # Panics
    ///
    /// When there are no durations.
    #[must_use]
    #[track_caller]
    pub fn percentile_ms(&self, percent: usize) -> f64 {
        let rank = (self.sorted_ms.len() * percent).div_ceil(100).max(1);
        self.sorted_ms[rank - 1]
    }

    /// Returns the number of durations, their extremes and percentiles.
    #[must_use]
    #[track_caller]
    pub fn to_json(&self) -> Value {
        let rounded = |percent| (self.percentile_ms(percent) * 1000.0).round() / 1000.0;
        json!({
            "count": self.count(),
            "min_ms": rounded(0),
            "p50_ms": rounded(50),
            "p90_ms": rounded(90),
            "p99_ms": rounded(99),
            "max_ms": rounded(100),
        })
    }
}

/// Prints one line of JSON, also from a test that succeeds: the test runner keeps what `println!`
/// says to itself.
pub fn report(line: &Value) {
    let mut stdout = io::stdout().lock();
    // A test does not fail for want of a reader.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_durations() {
        let mut distribution = Distribution::default();
        for ms in (1..=200).rev() {
            distribution.add_ns(ms * 1_000_000);
        }

        let percentiles = [0, 1, 50, 99, 100].map(|percent| distribution.percentile_ms(percent));

        assert_eq!(percentiles, [1.0, 2.0, 100.0, 198.0, 200.0]);
    }
}
