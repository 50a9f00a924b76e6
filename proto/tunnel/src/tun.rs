//! The TUN device: packets to and from the kernel, many of one flow in one piece.

mod features;
mod mtu;

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::Arc,
};

use nix::{
    errno::Errno,
    sys::uio::writev,
    unistd::{read, write},
};
use tracing::{info, warn};
use tun::AbstractDevice as _;

pub(crate) use self::mtu::USUAL_MTU;
pub use self::mtu::tun_mtu;
use crate::{Frame, Offloads, Run, VirtioHeader};

/// Why there is no TUN device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The kernel has no TUN driver, or the container does not show it.
    #[error(
        "/dev/net/tun is missing; run `modprobe tun`, or give the container the device \
         /dev/net/tun"
    )]
    Missing,
    /// The process may not create network interfaces.
    #[error("no permission to create interface {name}; run as root or with CAP_NET_ADMIN")]
    Privileges {
        /// Which interface.
        name: String,
    },
    /// Another process holds the interface.
    #[error("interface {name} is in use; stop the program that holds it or choose another name")]
    Busy {
        /// Which interface.
        name: String,
    },
    /// The name cannot be that of a TUN device.
    #[error(
        "interface {name} cannot be created: choose a name of 1 to 15 characters that no other \
         kind of interface has"
    )]
    Name {
        /// Which interface.
        name: String,
    },
    /// Anything else.
    #[error("failed to create interface {name}")]
    Io {
        /// Which interface.
        name: String,
        /// What the kernel says.
        source: io::Error,
    },
}

/// A TUN device that reads and writes without blocking.
///
/// Addresses, routes and the state of the link are its owner's business. The interface vanishes
/// when this and all its clones are dropped. Each packet and run is written as a whole, whoever else
/// writes.
#[derive(Clone)]
pub struct TunDevice {
    device: Arc<tun::Device>,
    name: String,
    index: u32,
    mtu: u16,
    offloads: Offloads,
}

impl TunDevice {
    /// Bytes that [`read_frame`](Self::read_frame) wants room for.
    pub const FRAME_LEN: usize = VirtioHeader::LEN + 65_535;

    /// Creates the interface `name` with this MTU. It is down and has no addresses.
    ///
    /// # Errors
    ///
    /// [`TunError`] says what is in the way and what to do about it.
    pub fn try_open(name: &str, mtu: u16, wanted: Offloads) -> Result<Self, TunError> {
        const MAX_NAME_LEN: usize = 15;
        let is_name = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b'%';
        if name.is_empty() || name.len() > MAX_NAME_LEN || !name.bytes().all(is_name) {
            return Err(TunError::Name { name: name.to_owned() });
        }
        let mut configuration = tun::Configuration::default();
        configuration.tun_name(name).mtu(mtu).platform_config(|platform| {
            platform.vnet_hdr(true);
        });
        let device = tun::create(&configuration).map_err(|error| tun_error(name, error))?;
        let io_error = |source| TunError::Io { name: name.to_owned(), source };
        device.set_nonblock().map_err(io_error)?;
        let index = device.tun_index().map_err(|error| tun_error(name, error))?;
        let index = u32::try_from(index).map_err(|error| io_error(io::Error::other(error)))?;
        let offloads = Offloads { tso: false, uso: false, ..wanted };
        let device = Arc::new(device);
        let mut tun = Self { device, name: name.to_owned(), index, mtu, offloads };
        let (tso, uso) = features::switch_on(tun.as_fd(), wanted);
        tun.offloads = Offloads { tso, uso, ..wanted };
        info!(interface = name, mtu, tso, uso, "Opened the TUN device");
        Ok(tun)
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index, as netlink wants it.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// The longest packet that it takes.
    pub const fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The next frame from the kernel, for [`Frame::try_parse`], or none if none waits.
    ///
    /// # Errors
    ///
    /// When the device is gone.
    pub fn read_frame<'b>(&self, into: &'b mut [u8]) -> io::Result<Option<&'b mut [u8]>> {
        match retry_if_interrupted(|| read(self.as_fd(), into)) {
            Ok(len) => Ok(into.get_mut(..len)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Hands a packet to the kernel. False: the kernel did not take it, since its queue is full,
    /// the interface is down or the packet is none.
    ///
    /// # Errors
    ///
    /// When the device is gone.
    pub fn write_packet(&self, packet: &[u8]) -> io::Result<bool> {
        let parts = [IoSlice::new(&[0; VirtioHeader::LEN]), IoSlice::new(packet)];
        taken(retry_if_interrupted(|| writev(self.as_fd(), &parts)))
    }

    /// Hands a run to the kernel, in one piece if it takes that. False: the kernel did not take it
    /// or some of it, as in [`write_packet`](Self::write_packet).
    ///
    /// # Errors
    ///
    /// When the device is gone.
    pub fn write_run(&mut self, run: &mut Run<'_>) -> io::Result<bool> {
        if run.packet_count() > 1 && !self.takes(run) {
            return self.write_packets_of(run);
        }
        match retry_if_interrupted(|| write(self.as_fd(), run.frame())) {
            // Some kernels refuse what others take; packets one by one they take all.
            Err(error @ (Errno::EINVAL | Errno::EIO)) if run.packet_count() > 1 => {
                let taken = self.write_packets_of(run)?;
                if taken {
                    self.stop_offload(run, error);
                }
                Ok(taken)
            }
            result => taken(result),
        }
    }

    fn takes(&self, run: &Run<'_>) -> bool {
        if run.is_merged_udp() { self.offloads.uso } else { self.offloads.tso }
    }

    fn stop_offload(&mut self, run: &Run<'_>, error: Errno) {
        let is_udp = run.is_merged_udp();
        warn!(%error, is_udp, interface = %self.name, "Kernel takes no runs of this protocol");
        if is_udp {
            self.offloads.uso = false;
        } else {
            self.offloads.tso = false;
        }
    }

    fn write_packets_of(&self, run: &mut Run<'_>) -> io::Result<bool> {
        let Ok(frame) = Frame::try_parse(run.frame_mut()) else { return Ok(false) };
        let mut segments = frame.segments();
        let mut all_taken = true;
        while let Some(packet) = segments.next() {
            all_taken &= self.write_packet(packet)?;
        }
        Ok(all_taken)
    }
}

/// Whether the kernel took a write; an error only when the device is gone.
fn taken(result: nix::Result<usize>) -> io::Result<bool> {
    match result {
        Ok(_len) => Ok(true),
        Err(
            Errno::EAGAIN
            | Errno::EIO
            | Errno::EINVAL
            | Errno::ENOBUFS
            | Errno::ENOMEM
            | Errno::ENETDOWN,
        ) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl AsFd for TunDevice {
    #[expect(unsafe_code, reason = "the tun crate shows its descriptor only as a number")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as `self.device`, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.device.as_raw_fd()) }
    }
}

fn retry_if_interrupted(mut call: impl FnMut() -> nix::Result<usize>) -> nix::Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

fn tun_error(name: &str, error: tun::Error) -> TunError {
    let name = name.to_owned();
    let source = io::Error::from(error);
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::Missing,
        Some(libc::EPERM | libc::EACCES) => TunError::Privileges { name },
        Some(libc::EBUSY) => TunError::Busy { name },
        Some(libc::EINVAL | libc::EEXIST) => TunError::Name { name },
        _ => TunError::Io { name, source },
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use nix::{
        errno::Errno,
        sched::{CloneFlags, unshare},
    };

    use super::*;
    use crate::{Packet, Waiter, packet::sample};

    #[test]
    fn a_name_that_no_interface_can_have_is_refused() {
        for name in ["", "a-name-of-16-chr", "with space", "a/b", "adit%d"] {
            assert!(
                matches!(
                    TunDevice::try_open(name, 1280, Offloads::ALL),
                    Err(TunError::Name { .. })
                ),
                "{name}"
            );
        }
    }

    #[test]
    fn packets_pass_to_and_from_the_kernel() {
        // Only this thread moves, and the namespace ends with it.
        let thread = std::thread::spawn(|| {
            if unshare(CloneFlags::CLONE_NEWNET) == Err(Errno::EPERM) {
                eprintln!("skipped: no permission to make a network namespace");
                return;
            }
            let mut tun = TunDevice::try_open("adit-test", 1280, Offloads::ALL).unwrap();
            assert!(matches!(
                TunDevice::try_open("adit-test", 1280, Offloads::ALL),
                Err(TunError::Busy { name }) if name == "adit-test"
            ));
            assert!(matches!(
                TunDevice::try_open("lo", 1280, Offloads::ALL),
                Err(TunError::Name { .. })
            ));
            let request = sample::echo("192.0.2.2", "192.0.2.1", true, 77);
            assert!(!tun.write_packet(&request).unwrap(), "the interface is down");

            let device = Arc::get_mut(&mut tun.device).unwrap();
            device.set_address("192.0.2.1".parse().unwrap()).unwrap();
            device.set_netmask("255.255.255.0".parse().unwrap()).unwrap();
            device.enabled(true).unwrap();
            assert!(tun.write_packet(&request).unwrap());
            assert!(!tun.write_packet(&[0; 40]).unwrap());

            let (waiter, _waker) = Waiter::try_new().unwrap();
            let mut buffer = vec![0; TunDevice::FRAME_LEN];
            loop {
                let now = Instant::now();
                let deadline = now + Duration::from_secs(10);
                assert!(waiter.wait(Some(tun.as_fd()), None, Some(deadline), now).unwrap().tun);
                let Some(frame) = tun.read_frame(&mut buffer).unwrap() else { continue };
                let frame = Frame::try_parse(frame).unwrap();
                let packet = frame.packet();
                // The kernel also looks for neighbours by itself.
                if packet.get(9) == Some(&1) {
                    let packet = Packet::try_parse(packet).unwrap();
                    let flow = Packet::try_parse(&request).unwrap().flow().unwrap();
                    assert_eq!(packet.flow(), Some(flow.reversed()));
                    break;
                }
            }
        });
        thread.join().unwrap();
    }

    #[test]
    fn errors_of_the_kernel_say_what_to_do() {
        let error = |errno| {
            let error = tun::Error::Io(io::Error::from_raw_os_error(errno));
            tun_error("adit0", error).to_string()
        };
        assert!(error(libc::ENOENT).contains("modprobe tun"));
        assert!(error(libc::EPERM).contains("CAP_NET_ADMIN"));
        assert!(error(libc::EBUSY).contains("adit0 is in use"));
    }
}
