//! Sleep until a TUN device, a UDP socket, another thread or the clock has something.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
    },
};

/// What is there to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready {
    /// The TUN device has packets, or is gone.
    pub tun: bool,
    /// The UDP socket has datagrams, or is broken.
    pub udp: bool,
    /// A [`Waker`] was used.
    pub woken: bool,
}

/// Where the thread of a data plane sleeps.
#[derive(Debug)]
pub struct Waiter {
    event: Arc<EventFd>,
}

/// Wakes a [`Waiter`] from another thread.
#[derive(Debug, Clone)]
pub struct Waker {
    event: Arc<EventFd>,
}

impl Waiter {
    /// A waiter with its waker.
    ///
    /// # Errors
    ///
    /// When the process has no descriptors left.
    pub fn try_new() -> io::Result<(Self, Waker)> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = Arc::new(EventFd::from_flags(flags)?);
        Ok((Self { event: Arc::clone(&event) }, Waker { event }))
    }

    /// Sleeps until one of them is ready or the deadline has come. No deadline: for ever.
    ///
    /// # Errors
    ///
    /// When a descriptor is invalid.
    pub fn wait(
        &self,
        tun: Option<BorrowedFd<'_>>,
        udp: Option<BorrowedFd<'_>>,
        deadline: Option<Instant>,
        now: Instant,
    ) -> io::Result<Ready> {
        let event = self.event.as_fd();
        // An absent one is the event again, so that the places stay.
        let mut descriptors = [tun.unwrap_or(event), udp.unwrap_or(event), event]
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
        match ppoll(&mut descriptors, timeout(deadline, now), None) {
            Ok(_ready) => {}
            Err(Errno::EINTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        }
        let [is_tun, is_udp, woken] = descriptors.map(|descriptor| descriptor.any() != Some(false));
        if woken {
            // Resets the counter; an error can only mean that it is zero already.
            let _ = self.event.read();
        }
        Ok(Ready { tun: tun.is_some() && is_tun, udp: udp.is_some() && is_udp, woken })
    }
}

impl Waker {
    /// Ends the present sleep of the waiter, or the next one.
    pub fn wake(&self) {
        // An error can only mean that the counter is full, and so the waiter awake.
        let _ = self.event.write(1);
    }
}

fn timeout(deadline: Option<Instant>, now: Instant) -> Option<TimeSpec> {
    /// A century: the kernel refuses what it cannot represent.
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

    deadline.map(|deadline| TimeSpec::from(deadline.saturating_duration_since(now).min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_waker_ends_the_sleep_of_another_thread() {
        let (waiter, waker) = Waiter::try_new().unwrap();
        let thread = std::thread::spawn(move || waker.wake());
        let ready = waiter.wait(None, None, None, Instant::now()).unwrap();
        thread.join().unwrap();
        assert_eq!(ready, Ready { woken: true, ..Ready::default() });
        let now = Instant::now();
        assert_eq!(waiter.wait(None, None, Some(now), now).unwrap(), Ready::default());
    }

    #[test]
    fn a_datagram_ends_the_sleep() {
        let (waiter, _waker) = Waiter::try_new().unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"x", receiver.local_addr().unwrap()).unwrap();
        let ready = waiter.wait(None, Some(receiver.as_fd()), None, Instant::now()).unwrap();
        assert_eq!(ready, Ready { udp: true, ..Ready::default() });
    }

    #[test]
    fn a_sleep_never_ends_before_its_deadline_however_near_or_far() {
        let (waiter, waker) = Waiter::try_new().unwrap();
        for left in [Duration::from_nanos(1), Duration::from_micros(1500)] {
            let now = Instant::now();
            waiter.wait(None, None, Some(now + left), now).unwrap();
            assert!(now.elapsed() >= left);
        }
        waker.wake();
        let now = Instant::now();
        let far = now + Duration::from_secs(1 << 40);
        assert!(waiter.wait(None, None, Some(far), now).unwrap().woken);
    }
}
