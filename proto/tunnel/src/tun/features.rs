//! What the kernel may leave to us: `TUNSETOFFLOAD`.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use tracing::debug;

use crate::Offloads;

// linux/if_tun.h.
const CHECKSUMS: u64 = 0x01;
const TSO4: u64 = 0x02;
const TSO6: u64 = 0x04;
const USO4: u64 = 0x20;
const USO6: u64 = 0x40;

nix::ioctl_write_int!(
    /// Says which frames the reader of a TUN device understands.
    tun_set_offload,
    b'T',
    208
);

/// Switches on as much of what is wanted as the kernel has: TSO, USO.
pub(super) fn switch_on(tun: BorrowedFd<'_>, wanted: Offloads) -> (bool, bool) {
    let both = (wanted.tso, wanted.uso);
    // Kernels before 6.2 know no USO.
    for (tso, uso) in [both, (wanted.tso, false), (false, false)] {
        match set(tun, tso, uso) {
            Ok(()) => return (tso, uso),
            Err(error) => debug!(tso, uso, %error, "Kernel lacks an offload"),
        }
    }
    (false, false)
}

#[expect(unsafe_code, reason = "no crate has this ioctl")]
fn set(tun: BorrowedFd<'_>, tso: bool, uso: bool) -> nix::Result<()> {
    let mut features = 0;
    if tso {
        features |= CHECKSUMS | TSO4 | TSO6;
    }
    if uso {
        features |= CHECKSUMS | USO4 | USO6;
    }
    // SAFETY: the descriptor is open, and the argument of this request is a number.
    unsafe { tun_set_offload(tun.as_raw_fd(), features) }?;
    Ok(())
}
