use std::{io, mem::zeroed, os::fd::AsRawFd as _, ptr};

use super::PacketSocket;

/// Frames that one system call takes.
const BATCH: usize = 64;

/// A jumbo frame with its header fits, with a byte more that tells a longer one.
const SLOT: usize = 9 * 1024;

/// Whole Ethernet frames that go through the kernel together.
pub(crate) struct FrameBatch {
    frames: Vec<Vec<u8>>,
    slots: Box<[u8]>,
}

impl FrameBatch {
    pub(crate) fn new() -> Self {
        Self { frames: Vec::with_capacity(BATCH), slots: vec![0; BATCH * SLOT].into_boxed_slice() }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.frames.len() < BATCH
    }

    pub(crate) fn push(&mut self, frame: Vec<u8>) {
        self.frames.push(frame);
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.frames.drain(..)
    }
}

impl PacketSocket {
    /// Receives the frames that are there, as many as a batch holds.
    ///
    /// # Errors
    ///
    /// Also when a frame is longer than any cable takes: somebody leaves the cutting to others.
    pub(crate) fn receive_batch(&self, batch: &mut FrameBatch) -> io::Result<()> {
        let mut vectors: Vec<_> = batch
            .slots
            .chunks_exact_mut(SLOT)
            .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT })
            .collect();
        let mut messages = messages(&mut vectors);
        // SAFETY: each message has one vector, and that is a slot of its own; both outlive the call.
        let received = unsafe {
            libc::recvmmsg(
                self.0.as_raw_fd(),
                messages.as_mut_ptr(),
                messages.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            return would_block_or(io::Error::last_os_error());
        };
        for (slot, message) in batch.slots.chunks_exact(SLOT).zip(&messages).take(received) {
            let len = message.msg_len as usize;
            if len >= SLOT {
                return Err(io::Error::other("a frame is longer than any cable takes"));
            }
            batch.frames.push(slot[..len].to_vec());
        }

        Ok(())
    }

    /// Sends all frames and leaves none. What finds no room is lost, as it would be on a cable.
    pub(crate) fn send_batch(&self, batch: &mut FrameBatch) -> io::Result<()> {
        let mut vectors: Vec<_> = batch
            .frames
            .iter_mut()
            .map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() })
            .collect();
        let mut messages = messages(&mut vectors);
        let mut rest = messages.as_mut_slice();
        while !rest.is_empty() {
            // SAFETY: each message has one vector, and that is one frame; both outlive the call.
            let sent = unsafe {
                libc::sendmmsg(
                    self.0.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            };
            let sent = match usize::try_from(sent) {
                Ok(sent) => sent,
                Err(_) => {
                    would_block_or(io::Error::last_os_error())?;
                    1
                }
            };
            rest = &mut rest[sent..];
        }
        batch.frames.clear();

        Ok(())
    }
}

fn messages(vectors: &mut [libc::iovec]) -> Vec<libc::mmsghdr> {
    let message = |vector: &mut libc::iovec| {
        // SAFETY: all-zero is a valid value of this plain C structure.
        let mut message: libc::mmsghdr = unsafe { zeroed() };
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
        message
    };

    vectors.iter_mut().map(message).collect()
}

/// Takes an error for nothing that only says that there is nothing, no room or no cable.
fn would_block_or(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENETDOWN | libc::EINTR) => Ok(()),
        _ => Err(error),
    }
}
