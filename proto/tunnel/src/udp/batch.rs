//! What one system call received.

use std::io::{self, IoSliceMut};

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};

use crate::{Ecn, Endpoint};

/// Where no card merges datagrams, one call still takes this many of them; where one does, each
/// buffer holds a whole train.
const BUFFERS: usize = 16;

/// The longest train that the kernel merges.
const BUFFER_LEN: usize = 64 * 1024;

/// Buffers for [`UdpSocket::receive`](super::UdpSocket::receive), used again and again.
pub struct ReceiveBatch {
    buffers: Box<[u8]>,
    metas: [RecvMeta; BUFFERS],
    filled: usize,
    with_local: bool,
}

/// A datagram from the network. It may be empty.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Who sent it, and to which of our addresses if the socket has several.
    pub from: Endpoint,
    /// What the network said of congestion on its way.
    pub ecn: Ecn,
    /// All of it.
    pub bytes: &'a [u8],
}

impl ReceiveBatch {
    /// A batch with nothing in it.
    pub fn new() -> Self {
        Self {
            buffers: vec![0; BUFFERS * BUFFER_LEN].into_boxed_slice(),
            metas: [RecvMeta::default(); BUFFERS],
            filled: 0,
            with_local: false,
        }
    }

    /// The datagrams of the last receive, in the order of their arrival.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        let trains = self.metas.iter().zip(self.buffers.chunks(BUFFER_LEN)).take(self.filled);
        trains.flat_map(|(meta, buffer)| {
            let local = meta.dst_ip.filter(|local| self.with_local && !local.is_multicast());
            let from = Endpoint::new(meta.addr, local);
            let ecn = Ecn::from_bits(meta.ecn.map_or(0, |codepoint| codepoint as u8));
            split(buffer.get(..meta.len).unwrap_or_default(), meta.stride)
                .filter(move |_bytes| from.remote().port() != 0)
                .map(move |bytes| Datagram { from, ecn, bytes })
        })
    }

    pub(super) fn receive(
        &mut self,
        state: &UdpSocketState,
        socket: UdpSockRef<'_>,
        with_local: bool,
    ) -> io::Result<()> {
        self.filled = 0;
        self.with_local = with_local;
        let mut chunks = self.buffers.chunks_mut(BUFFER_LEN);
        let mut slices: [IoSliceMut<'_>; BUFFERS] =
            std::array::from_fn(|_index| IoSliceMut::new(chunks.next().unwrap_or_default()));
        self.filled = state.recv(socket, &mut slices, &mut self.metas)?;
        Ok(())
    }
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// Cuts a train into its datagrams. An empty train is one empty datagram, whose stride is zero.
fn split(train: &[u8], stride: usize) -> impl Iterator<Item = &[u8]> {
    let empty = train.is_empty().then_some(train);
    empty.into_iter().chain(train.chunks(if stride == 0 { usize::MAX } else { stride }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(train: &[u8], stride: usize) -> Vec<usize> {
        split(train, stride).map(<[u8]>::len).collect()
    }

    #[test]
    fn a_train_is_cut_at_its_stride() {
        assert_eq!(lengths(&[0; 10], 4), [4, 4, 2]);
        assert_eq!(lengths(&[0; 8], 4), [4, 4]);
        assert_eq!(lengths(&[0; 3], 4), [3]);
    }

    #[test]
    fn a_stride_of_zero_ends() {
        assert_eq!(lengths(&[0; 10], 0), [10]);
        assert_eq!(lengths(&[], 0), [0]);
        assert_eq!(lengths(&[], 4), [0]);
    }
}
