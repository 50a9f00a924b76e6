//! Hours of the week by the clocks of a place.

use std::time::Duration;

use adit_proto::{
    Timestamp,
    api::{TimeWindow, Weekday},
};
use chrono::{DateTime, Datelike as _, Timelike as _, Utc};
use chrono_tz::Tz;

const DAY: u16 = 24 * 60;
const WEEK: u16 = 7 * DAY;

/// A time window with its time zone looked up.
#[derive(Debug)]
pub(crate) struct CompiledWindow {
    pub(crate) zone_name: String,
    /// None: this program was built before there was such a zone.
    zone: Option<Tz>,
    pub(crate) spans: Vec<Span>,
}

/// Minutes of the week that begins on Monday at midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first.
    pub(crate) from: u16,
    /// The first one after it, which may lie in the next week.
    pub(crate) to: u16,
}

impl CompiledWindow {
    pub(crate) fn new(window: &TimeWindow) -> Self {
        let TimeWindow { days, from, to, time_zone } = window;
        let days = if days.is_empty() { &Weekday::ALL[..] } else { days };
        let (from, to) = (from.minutes(), to.minutes());
        let len = if to > from { to - from } else { DAY - from + to };
        let spans = days.iter().map(|day| {
            let from = *day as u16 * DAY + from;
            Span { from, to: from + len }
        });
        Self { zone_name: time_zone.clone(), zone: zone(time_zone), spans: spans.collect() }
    }

    /// The minute of the week by the clocks there; none: the zone is not known.
    pub(crate) fn minute(&self, now: Timestamp) -> Option<u16> {
        let time = DateTime::<Utc>::from_timestamp_millis(now.as_millis())?;
        let time = time.with_timezone(&self.zone?);
        let minute =
            (time.weekday().num_days_from_monday() * 24 + time.hour()) * 60 + time.minute();
        u16::try_from(minute).ok()
    }

    /// When the window may open or close next, or a little before that.
    pub(crate) fn next_turn(&self, now: Timestamp) -> Timestamp {
        /// Clocks are set forward and back only at such times.
        const QUARTER: u64 = 15 * 60 * 1000;
        const MINUTE: u64 = 60 * 1000;

        let until_next = |step: u64| {
            let gone = now.as_millis().unsigned_abs() % step;
            let left = if now.as_millis() < 0 && gone > 0 { gone } else { step - gone };
            Duration::from_millis(left)
        };
        let minutes = self.minute(now).and_then(|minute| {
            let turns = self.spans.iter().flat_map(|span| [span.from, span.to]);
            // A turn at this minute has been taken; the same one comes a week later.
            turns.map(|turn| (turn % WEEK + WEEK - minute - 1) % WEEK).min()
        });
        let by_the_clock = minutes
            .map(|minutes| until_next(MINUTE) + Duration::from_millis(u64::from(minutes) * MINUTE));
        let step = until_next(QUARTER);
        now.saturating_add(by_the_clock.map_or(step, |by_the_clock| by_the_clock.min(step)))
    }
}

impl Span {
    pub(crate) const fn contains(self, minute: u16) -> bool {
        self.from <= minute && minute < self.to || minute + WEEK < self.to
    }

    /// The same within one week, as one or two ranges from the first minute to the last.
    pub(crate) fn within_week(self) -> impl Iterator<Item = (u16, u16)> {
        let rest = self.to.checked_sub(WEEK + 1).map(|last| (0, last));
        [(self.from, (self.to - 1).min(WEEK - 1))].into_iter().chain(rest)
    }
}

/// Whether it is an hour of any of `windows`; none: a time zone is not known.
pub(crate) fn is_open(windows: &[CompiledWindow], now: Timestamp) -> Option<bool> {
    let mut open = Some(false);
    for window in windows {
        match window.minute(now) {
            Some(minute) if window.spans.iter().any(|span| span.contains(minute)) => {
                return Some(true);
            }
            Some(_) => {}
            None => open = None,
        }
    }
    open
}

/// A time zone by its name in the IANA database.
pub(crate) fn zone(name: &str) -> Option<Tz> {
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn window(days: &[&str], from: &str, to: &str, time_zone: &str) -> CompiledWindow {
        let window = json!({ "days": days, "from": from, "to": to, "time_zone": time_zone });
        CompiledWindow::new(&serde_json::from_value(window).unwrap())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn open(window: &CompiledWindow, text: &str) -> Option<bool> {
        is_open(std::slice::from_ref(window), at(text))
    }

    #[test]
    fn a_window_is_open_from_its_first_minute_to_the_one_before_its_end() {
        // 2026-06-01 is a Monday; Berlin is two hours ahead.
        let office = window(&["mon", "fri"], "08:00", "18:30", "Europe/Berlin");
        for (text, expected) in [
            ("2026-06-01T05:59:59.999Z", false),
            ("2026-06-01T06:00:00Z", true),
            ("2026-06-01T16:29:59.999Z", true),
            ("2026-06-01T16:30:00Z", false),
            ("2026-06-02T12:00:00Z", false),
            ("2026-06-05T12:00:00Z", true),
        ] {
            assert_eq!(open(&office, text), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let night = window(&["sun"], "22:00", "06:00", "UTC");
        for (text, expected) in [
            ("2026-06-07T21:59:00Z", false),
            ("2026-06-07T22:00:00Z", true),
            ("2026-06-08T00:00:00Z", true),
            ("2026-06-08T05:59:59Z", true),
            ("2026-06-08T06:00:00Z", false),
            ("2026-06-09T00:00:00Z", false),
        ] {
            assert_eq!(open(&night, text), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_window_that_ends_when_it_begins_takes_a_whole_day() {
        let saturday = window(&["sat"], "12:00", "12:00", "UTC");
        assert_eq!(open(&saturday, "2026-06-06T11:59:00Z"), Some(false));
        assert_eq!(open(&saturday, "2026-06-06T12:00:00Z"), Some(true));
        assert_eq!(open(&saturday, "2026-06-07T11:59:00Z"), Some(true));
        assert_eq!(open(&saturday, "2026-06-07T12:00:00Z"), Some(false));
        let always = window(&[], "00:00", "00:00", "UTC");
        assert_eq!(open(&always, "2026-06-07T23:59:59Z"), Some(true));
    }

    #[test]
    fn summer_time_is_what_the_clocks_show() {
        let morning = window(&[], "08:00", "09:00", "America/New_York");
        assert_eq!(open(&morning, "2026-03-07T13:00:00Z"), Some(true));
        assert_eq!(open(&morning, "2026-03-08T12:00:00Z"), Some(true));
        assert_eq!(open(&morning, "2026-03-08T13:00:00Z"), Some(false));
    }

    #[test]
    fn an_unknown_zone_says_neither_yes_nor_no() {
        let elsewhere = window(&[], "00:00", "00:00", "Europe/Atlantis");
        assert_eq!(open(&elsewhere, "2026-06-01T00:00:00Z"), None);
        let windows = [elsewhere, window(&[], "00:00", "00:00", "UTC")];
        assert_eq!(is_open(&windows, at("2026-06-01T00:00:00Z")), Some(true));
        let windows =
            [window(&["mon"], "08:00", "09:00", "UTC"), windows.into_iter().next().unwrap()];
        assert_eq!(is_open(&windows, at("2026-06-01T00:00:00Z")), None);
    }

    #[test]
    fn the_next_turn_is_never_late() {
        let windows = [
            window(&["mon", "fri"], "08:05", "18:30", "Europe/Berlin"),
            window(&["sun"], "22:00", "06:01", "America/New_York"),
            window(&[], "01:30", "02:30", "Australia/Lord_Howe"),
            window(&[], "12:00", "12:00", "Asia/Kathmandu"),
        ];
        for window in &windows {
            for start in ["2026-03-07T23:59:30.5Z", "2026-03-29T00:00:00Z", "2026-10-03T12:34:56Z"]
            {
                let mut now = at(start);
                for _ in 0..500 {
                    let turn = window.next_turn(now);
                    assert!(turn > now, "{window:?} {now}");
                    let spans = std::slice::from_ref(window);
                    let last = Timestamp::from_millis(turn.as_millis() - 1);
                    assert_eq!(is_open(spans, now), is_open(spans, last), "{window:?} {now}");
                    now = turn;
                }
            }
        }
        let office = window(&["mon"], "08:05", "18:30", "UTC");
        assert_eq!(office.next_turn(at("2026-06-01T08:01:10Z")), at("2026-06-01T08:05:00Z"));
        assert_eq!(office.next_turn(at("2026-06-01T08:05:00Z")), at("2026-06-01T08:15:00Z"));
        assert_eq!(office.next_turn(at("2026-06-01T18:29:59.999Z")), at("2026-06-01T18:30:00Z"));
        assert_eq!(office.next_turn(at("1969-12-31T23:59:59.999Z")), at("1970-01-01T00:00:00Z"));
    }

    #[test]
    fn ranges_within_a_week_hold_what_the_span_does() {
        for span in [
            Span { from: 0, to: 1 },
            Span { from: 500, to: 1000 },
            Span { from: WEEK - 10, to: WEEK },
            Span { from: WEEK - 10, to: WEEK + 1 },
            Span { from: WEEK - 10, to: WEEK + 700 },
        ] {
            for minute in 0..WEEK {
                let within =
                    span.within_week().any(|(first, last)| (first..=last).contains(&minute));
                assert_eq!(within, span.contains(minute), "{span:?} {minute}");
            }
        }
    }
}
