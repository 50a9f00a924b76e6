//! How many streams are being served.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A count that all who serve streams share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Streams(Arc<AtomicUsize>);

/// One of them, as long as it lives.
#[derive(Debug)]
pub(super) struct OpenStream(Arc<AtomicUsize>);

impl Streams {
    pub(super) fn open(&self) -> OpenStream {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenStream(Arc::clone(&self.0))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_count_as_long_as_they_are_open() {
        let streams = Streams::default();
        let (first, second) = (streams.open(), streams.clone().open());
        assert_eq!(streams.count(), 2);
        drop((first, second));
        assert_eq!(streams.count(), 0);
    }
}
