//! Many WireGuard devices in one process.

mod device;
mod inner_packet;

use std::{
    fs,
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::AsFd as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::PublicKey,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt},
};
use serde_json::{Value, json};

pub(crate) use self::device::{Device, decode_key, encode_key};
use self::inner_packet::InnerPacket;
use crate::{event, load};

/// WireGuard tries again after this (REKEY_TIMEOUT).
const RETRY: Duration = Duration::from_secs(5);

/// Answers to thousands of handshakes come faster than they are read.
const RECEIVE_BUFFER: usize = 16 << 20;

/// The longest WireGuard message is a handshake initiation, as long as packets are short.
const BUFFER_LEN: usize = 512;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the connector listens.
    to: SocketAddr,
    /// The connector's WireGuard key.
    #[arg(long)]
    key: String,
    /// The devices, as `populate` wrote them.
    #[arg(long)]
    devices_file: PathBuf,
    /// Wait for everybody this long.
    #[arg(long, default_value_t = 60)]
    timeout_s: u64,
    /// Once connected, open new flows to this server for some time.
    #[arg(long)]
    flows_to: Option<SocketAddrV4>,
    /// How long.
    #[arg(long, default_value_t = 1_000)]
    flows_for_ms: u64,
    /// When done, stay until killed.
    #[arg(long)]
    stay: bool,
}

/// Connects all devices at once, and prints how long it took until everybody was.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut crowd = Crowd::new(args)?;
    let took = crowd.connect(Duration::from_secs(args.timeout_s))?;
    event::print(
        "connected",
        json!({ "devices": crowd.members.len(), "seconds": took.as_secs_f64() }),
    );
    if let Some(to) = args.flows_to {
        let (opened, took) = crowd.open_flows(to, Duration::from_millis(args.flows_for_ms))?;
        event::print("opened", json!({ "flows": opened, "seconds": took.as_secs_f64() }));
    }
    if args.stay {
        stay();
    }

    Ok(())
}

fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

struct Crowd {
    socket: UdpSocket,
    members: Vec<Member>,
}

struct Member {
    device: Device,
    tunnel: Tunn,
    initiated: Option<Instant>,
    connected: bool,
}

impl Crowd {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let socket = load::bind(args.to)?;
        socket.connect(args.to).context("failed to connect")?;
        socket.set_nonblocking(true).context("failed to set options")?;
        // Without privileges the kernel grants less.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        let key: PublicKey = decode_key(&args.key)?;
        let path = &args.devices_file;
        let text = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        let devices: Vec<Value> = serde_json::from_slice(&text).context("malformed devices")?;
        let members = (0..).zip(&devices).map(|(index, device)| {
            let device = Device::from_json(device)?;
            let tunnel = Tunn::new(device.secret.clone(), key, None, None, index, None);
            Ok(Member { device, tunnel, initiated: None, connected: false })
        });

        Ok(Self { socket, members: members.collect::<anyhow::Result<_>>()? })
    }

    fn connect(&mut self, timeout: Duration) -> anyhow::Result<Duration> {
        let start = Instant::now();
        loop {
            let missing = self.members.iter().filter(|member| !member.connected).count();
            if missing == 0 {
                return Ok(start.elapsed());
            }
            ensure!(start.elapsed() < timeout, "{missing} devices are not connected in time");
            for index in 0..self.members.len() {
                self.members[index].initiate(&self.socket)?;
                // What has come meanwhile must not pile up.
                if index % 32 == 0 {
                    self.receive();
                }
            }
            let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            poll(&mut waiting, PollTimeout::from(100_u8)).context("failed to wait")?;
            self.receive();
        }
    }

    /// Handles everything that has arrived.
    fn receive(&mut self) {
        let (mut datagram, mut answer) = ([0; 2_048], [0; BUFFER_LEN]);
        // An error tells of an earlier datagram that was lost.
        while let Ok(length) = self.socket.recv(&mut datagram) {
            let datagram = &datagram[..length];
            let Some(member) = receiver(datagram).and_then(|index| self.members.get_mut(index))
            else {
                continue;
            };
            match member.tunnel.decapsulate(None, datagram, &mut answer) {
                TunnResult::WriteToNetwork(message) => {
                    // The keepalive that confirms the session, lost like any other.
                    let _ = self.socket.send(message);
                    member.connected = true;
                }
                // A cookie, with which one tries again at once.
                TunnResult::Done if !member.connected => member.initiated = None,
                TunnResult::Done
                | TunnResult::Err(_)
                | TunnResult::WriteToTunnelV4(..)
                | TunnResult::WriteToTunnelV6(..) => {}
            }
        }
    }

    /// Sends packets each of which is the first of a flow, from one device after the other.
    fn open_flows(
        &mut self,
        to: SocketAddrV4,
        duration: Duration,
    ) -> anyhow::Result<(u64, Duration)> {
        const PORTS: std::ops::RangeInclusive<u16> = 1_024..=u16::MAX;

        let mut packet = InnerPacket::new(to);
        let mut buffer = [0; BUFFER_LEN];
        let (start, mut opened) = (Instant::now(), 0);
        for port in PORTS {
            for member in &mut self.members {
                packet.set_source(SocketAddrV4::new(member.device.address, port), opened);
                let sealed = member.tunnel.encapsulate(packet.as_bytes(), &mut buffer);
                let TunnResult::WriteToNetwork(message) = sealed else {
                    anyhow::bail!("a device has lost its session")
                };
                if send(&self.socket, message)? {
                    opened += 1;
                }
            }
            self.receive();
            if start.elapsed() >= duration {
                return Ok((opened, start.elapsed()));
            }
        }
        anyhow::bail!("there are too few devices for so many flows")
    }
}

impl Member {
    /// Starts a handshake if it is time to.
    fn initiate(&mut self, socket: &UdpSocket) -> anyhow::Result<()> {
        let due = self.initiated.is_none_or(|initiated| initiated.elapsed() >= RETRY);
        if self.connected || !due {
            return Ok(());
        }
        let mut buffer = [0; BUFFER_LEN];
        let initiation = self.tunnel.format_handshake_initiation(&mut buffer, true);
        if let TunnResult::WriteToNetwork(message) = initiation {
            send(socket, message)?;
        }
        self.initiated = Some(Instant::now());

        Ok(())
    }
}

/// Sends a datagram, and tells whether the kernel took it.
fn send(socket: &UdpSocket, message: &[u8]) -> anyhow::Result<bool> {
    match socket.send(message) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
            poll(&mut waiting, PollTimeout::from(100_u8)).context("failed to wait")?;
            Ok(false)
        }
        // Tells of an earlier datagram that was lost.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error).context("failed to send"),
    }
}

/// Returns to which member a message of the connector is addressed. boringtun puts the number of
/// the session into the lowest eight bits.
fn receiver(message: &[u8]) -> Option<usize> {
    let at = if message.first() == Some(&2) { 8 } else { 4 };
    let index = message.get(at..)?.first_chunk()?;

    usize::try_from(u32::from_le_bytes(*index) >> 8).ok()
}
