use std::{
    thread,
    time::{Duration, Instant},
};

/// Time between two looks at the condition: far below anything a test asserts on.
const INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `condition` gives a value, and returns it.
///
/// # Panics
///
/// When `timeout` has passed without one. `what` names the condition in the message.
#[track_caller]
pub fn wait_until<T>(what: &str, timeout: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + timeout;

    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {timeout:?}: {what}");
        thread::sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_value_as_soon_as_it_is_there() {
        let mut looks = 0;

        let value = wait_until("three looks", Duration::from_secs(5), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });

        assert_eq!(value, 3);
    }

    #[test]
    #[should_panic(expected = "pigs fly")]
    fn names_the_condition_that_did_not_come_true() {
        wait_until("pigs fly", Duration::ZERO, || None::<()>);
    }
}
