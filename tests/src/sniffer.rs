use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::{Host, Process, binary};

/// Looks at every packet on interfaces of a host for a marker in plain text.
pub struct Sniffer {
    process: Process,
}

/// What a [`Sniffer`] saw.
#[derive(Debug, Clone, Deserialize)]
pub struct Capture {
    /// Packets seen, in both directions.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that contain the marker.
    pub matches: u64,
    /// Packets the kernel dropped because the sniffer was too slow.
    pub dropped: u64,
}

impl Sniffer {
    #[track_caller]
    pub(crate) fn start(host: &Host, interfaces: &[&str], marker: &str) -> Self {
        let mut command = host.command(binary("adit-probe")).args(["sniff", "--marker", marker]);
        for interface in interfaces {
            command = command.args(["--interface", interface]);
        }
        let process = command.spawn();
        process.wait_for_event("sniffing", Duration::from_secs(10));

        Self { process }
    }

    /// Stops looking and returns what was seen.
    #[must_use]
    #[track_caller]
    pub fn finish(self) -> Capture {
        self.process.signal(Signal::SIGTERM);
        let event = self.process.wait_for_event("captured", Duration::from_secs(10));

        serde_json::from_value(event).expect("the probe prints every field of a capture")
    }
}
