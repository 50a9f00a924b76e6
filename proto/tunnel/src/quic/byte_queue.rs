//! Bytes on their way to another thread, in the pieces in which they came.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

/// Bytes that wait: what 1 Gbit/s carries in 2 ms.
const CAPACITY: usize = 256 << 10;

/// Pieces that wait: each may hold on to the whole packet in which it came.
const MAX_PIECES: usize = 512;

#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Bytes>,
    len: usize,
    /// No more are put in.
    has_ended: bool,
    /// Nobody takes them any more.
    is_abandoned: bool,
    writer: Option<Waker>,
    reader: Option<Waker>,
}

/// Puts bytes in. When it is dropped, they end.
#[derive(Debug)]
pub(super) struct ByteQueueWriter(Arc<Mutex<Queue>>);

/// Takes bytes out.
#[derive(Debug)]
pub(super) struct ByteQueueReader {
    queue: Arc<Mutex<Queue>>,
    /// Taken at one time, so that each side seldom waits for the other.
    taken: VecDeque<Bytes>,
}

/// Both ends of a new one.
pub(super) fn byte_queue() -> (ByteQueueWriter, ByteQueueReader) {
    let queue = Arc::default();
    (ByteQueueWriter(Arc::clone(&queue)), ByteQueueReader { queue, taken: VecDeque::new() })
}

impl ByteQueueWriter {
    /// How many bytes there is room for, which are some.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::BrokenPipe`] when nobody takes them any more.
    pub(super) fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut queue = lock(&self.0);
        if queue.is_abandoned || queue.has_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if queue.len >= CAPACITY || queue.pieces.len() >= MAX_PIECES {
            register(&mut queue.writer, context);
            return Poll::Pending;
        }
        Poll::Ready(Ok(CAPACITY - queue.len))
    }

    /// Puts bytes in for which there is room. The reader learns of them by [`Self::flush`].
    pub(super) fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        let mut queue = lock(&self.0);
        queue.len += piece.len();
        queue.pieces.push_back(piece);
    }

    /// Wakes the reader if it waits for something that is there: once for many pieces, since it
    /// would else take them one by one.
    pub(super) fn flush(&mut self) {
        let queue = lock(&self.0);
        if !queue.pieces.is_empty() {
            wake(queue, |queue| &mut queue.reader);
        }
    }

    /// No more are put in.
    pub(super) fn end(&mut self) {
        let mut queue = lock(&self.0);
        queue.has_ended = true;
        wake(queue, |queue| &mut queue.reader);
    }
}

impl Drop for ByteQueueWriter {
    fn drop(&mut self) {
        self.end();
    }
}

impl ByteQueueReader {
    /// The next piece; none: they have ended.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(piece) = self.taken.pop_front() {
            return Poll::Ready(Some(piece));
        }
        let mut queue = lock(&self.queue);
        if queue.pieces.is_empty() {
            if queue.has_ended {
                return Poll::Ready(None);
            }
            register(&mut queue.reader, context);
            return Poll::Pending;
        }
        std::mem::swap(&mut queue.pieces, &mut self.taken);
        queue.len = 0;
        wake(queue, |queue| &mut queue.writer);
        Poll::Ready(self.taken.pop_front())
    }

    /// Whether a piece lies here for which nobody has to be asked.
    pub(super) fn has_next(&self) -> bool {
        !self.taken.is_empty()
    }
}

impl Drop for ByteQueueReader {
    fn drop(&mut self) {
        let mut queue = lock(&self.queue);
        queue.is_abandoned = true;
        queue.pieces.clear();
        wake(queue, |queue| &mut queue.writer);
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn register(side: &mut Option<Waker>, context: &Context<'_>) {
    match side {
        Some(waker) => waker.clone_from(context.waker()),
        None => *side = Some(context.waker().clone()),
    }
}

/// Wakes whoever waits, once others can get at the queue.
fn wake(mut queue: MutexGuard<'_, Queue>, side: impl FnOnce(&mut Queue) -> &mut Option<Waker>) {
    let waker = side(&mut queue).take();
    drop(queue);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn piece(len: usize) -> Bytes {
        vec![7; len].into()
    }

    #[test]
    fn pieces_come_in_order_and_then_the_end() {
        let (mut writer, mut reader) = byte_queue();
        let mut context = Context::from_waker(Waker::noop());
        writer.push(Bytes::from_static(b"one"));
        writer.push(Bytes::new());
        writer.push(Bytes::from_static(b"two"));
        drop(writer);
        assert_eq!(reader.poll_next(&mut context), Poll::Ready(Some("one".into())));
        assert_eq!(reader.poll_next(&mut context), Poll::Ready(Some("two".into())));
        assert_eq!(reader.poll_next(&mut context), Poll::Ready(None));
    }

    #[test]
    fn who_waits_is_woken_once_there_is_something_or_room() {
        let (mut writer, mut reader) = byte_queue();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        assert!(reader.poll_next(&mut context).is_pending());
        writer.flush();
        assert_eq!(woken.0.load(Ordering::Relaxed), 0, "nothing is there");
        writer.push(piece(CAPACITY));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0, "more may follow");
        writer.flush();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        writer.push(piece(1));
        writer.flush();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "nobody waits");

        assert!(writer.poll_room(&mut context).is_pending());
        assert!(matches!(reader.poll_next(&mut context), Poll::Ready(Some(_))));
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        assert!(matches!(writer.poll_room(&mut context), Poll::Ready(Ok(CAPACITY))));
    }

    #[test]
    fn small_pieces_are_bounded_as_well() {
        let (mut writer, _reader) = byte_queue();
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..MAX_PIECES {
            assert!(writer.poll_room(&mut context).is_ready());
            writer.push(piece(1));
        }
        assert!(writer.poll_room(&mut context).is_pending());
    }

    #[test]
    fn nobody_writes_for_a_reader_that_is_gone() {
        let (mut writer, reader) = byte_queue();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        writer.push(piece(CAPACITY));
        assert!(writer.poll_room(&mut context).is_pending());
        drop(reader);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(matches!(writer.poll_room(&mut context), Poll::Ready(Err(_))));
    }
}
