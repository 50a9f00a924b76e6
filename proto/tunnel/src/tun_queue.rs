//! The queue in front of a TUN device.

/// How many packets the kernel keeps while the thread that reads them does not run.
///
/// The kernel drops what finds the queue full, and takes no account of whose packet it is. By
/// itself it keeps 500: twenty transfers side by side, of a megabyte each, overrun that on two busy
/// cores, and datagrams of others are lost with theirs. With 1,000 nothing is lost when the
/// transfers are paced (BBR), with 2,048 nothing when they grow until something is (Reno). A longer
/// queue would only make what waits in it older.
pub const TUN_QUEUE_LEN: u32 = 2048;
