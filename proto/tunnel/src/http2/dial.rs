//! A TCP connection, although packets are lost.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{net::TcpStream, time::sleep};

/// How long one connection is tried alone before another is tried beside it. The kernel repeats a
/// SYN that was lost after 1 s, then after 2 s more (RFC 6298 §2).
const PATIENCE: Duration = Duration::from_millis(300);

/// As many are tried side by side.
const MAX_ATTEMPTS: usize = 3;

/// The connection that is there first; an answer that there is none counts at once.
pub(super) async fn dial(endpoint: SocketAddr) -> io::Result<TcpStream> {
    first_of(|| TcpStream::connect(endpoint)).await
}

async fn first_of<T, A>(attempt: impl Fn() -> A) -> io::Result<T>
where
    A: Future<Output = io::Result<T>>,
{
    let mut attempts = FuturesUnordered::new();
    loop {
        attempts.push(attempt());
        let is_last = attempts.len() == MAX_ATTEMPTS;
        tokio::select! {
            Some(ended) = attempts.next() => return ended,
            () = sleep(PATIENCE), if !is_last => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::time::Instant;

    use super::*;

    /// What [`first_of`] makes of attempts of which the one of this number is the first to end.
    async fn when_only(number: usize, ends: io::Result<()>) -> (io::Result<()>, Duration) {
        let started = Instant::now();
        let (count, ends) = (Cell::new(0), RefCell::new(Some(ends)));
        let result = first_of(|| async {
            count.set(count.get() + 1);
            let ended = ends.borrow_mut().take_if(|_| count.get() == number);
            match ended {
                Some(ends) => ends,
                None => std::future::pending().await,
            }
        });
        let result = tokio::time::timeout(Duration::from_secs(10), result).await;
        (result.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into())), started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_attempt_is_overtaken_by_the_next() {
        let (result, took) = when_only(1, Ok(())).await;
        assert!(result.is_ok() && took.is_zero());
        let (result, took) = when_only(3, Ok(())).await;
        assert!(result.is_ok() && took < PATIENCE * 3, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_not_more_attempts_than_allowed() {
        let (result, _) = when_only(MAX_ATTEMPTS + 1, Ok(())).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_counts_at_once() {
        let (result, took) = when_only(1, Err(io::ErrorKind::ConnectionRefused.into())).await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(took.is_zero());
    }
}
