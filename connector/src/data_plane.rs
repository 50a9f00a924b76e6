//! The threads that carry packets, each those of its own devices.

mod carriers;
mod command;
mod device_connections;
mod distributor;
mod handshake_time;
mod handshakes;
mod idle;
mod memory;
mod metrics;
mod repeats;
#[cfg(test)]
mod sample;
mod silences;
mod worker;

use std::{io, thread::JoinHandle};

use adit_proto::{DeviceId, Verdict};
use adit_tunnel::{
    KeyPair, PacketInlet, QuicEndpoint, RetrySource, Tunnel, UdpSocket, Waiter, Waker,
    WireguardSecret,
};
use anyhow::Context as _;
use tokio::sync::{mpsc, watch};

use self::{
    command::LaneHandle,
    distributor::{Distributor, Owners},
    memory::DeviceMemory,
    metrics::Published,
    worker::{Worker, WorkerParts},
};
pub(crate) use self::{
    command::{AdmitError, DataPlane, DeviceOnConnector, Stopped},
    memory::ConnectionKind,
    metrics::{DataPlaneMetrics, Losses},
};
use crate::{
    clock::Now, flow_table::Limits, forward::KernelPath, forwarder::FlowRecord,
    requests::ArrivedRequest,
};

/// Where the data plane's records go.
#[derive(Clone)]
pub(crate) struct RecordSinks {
    /// All of them, to the access log.
    pub(crate) access: mpsc::Sender<FlowRecord>,
    /// Those of refused and cut flows, to the session of the device.
    pub(crate) denials: mpsc::Sender<FlowRecord>,
}

impl RecordSinks {
    /// Hands a record on; what the queues do not take is counted.
    pub(crate) fn hand_on(&self, record: FlowRecord, losses: &mut Losses) {
        let concerns_device = match record.verdict {
            Verdict::Deny => true,
            Verdict::Cut => true,
            Verdict::Allow => false,
            Verdict::Closed => false,
        };
        if concerns_device && self.denials.try_send(record.clone()).is_err() {
            losses.denials += 1;
        }
        if self.access.try_send(record).is_err() {
            losses.records += 1;
        }
    }
}

/// Everything the data plane needs, opened already.
pub(crate) struct DataPlaneParts {
    pub(crate) secret: WireguardSecret,
    /// Who the connector is in TLS.
    pub(crate) identity: KeyPair,
    /// Where requests go.
    pub(crate) requests: mpsc::Sender<ArrivedRequest>,
    /// One for each lane.
    pub(crate) udp: Vec<UdpSocket>,
    pub(crate) path: KernelPath,
    pub(crate) sinks: RecordSinks,
    /// Where devices are named that are to be asked to speak.
    pub(crate) silent: mpsc::Sender<DeviceId>,
}

/// Starts the data plane in threads of its own: a lane for each socket, and one more that reads the
/// interface for them if they are several.
///
/// The last receiver says how each of them has ended: well after [`DataPlane::stop`], else with what
/// broke.
pub(crate) fn start(
    parts: DataPlaneParts,
) -> anyhow::Result<(DataPlane, watch::Receiver<DataPlaneMetrics>, mpsc::Receiver<io::Result<()>>)>
{
    /// Commands wait for room, so that none is lost.
    const COMMANDS: usize = 64;

    let DataPlaneParts { secret, identity, requests, udp, path, sinks, silent } = parts;
    let now = Now::read();
    let lanes = u8::try_from(udp.len()).context("too many lanes")?;
    let (tunnels, filter) = Tunnel::lanes(&secret, path.mtu(), lanes, now.monotonic);
    let waiters = udp.iter().map(|_lane| Waiter::try_new()).collect::<io::Result<Vec<_>>>()?;
    let (waiters, wakers): (Vec<Waiter>, Vec<Waker>) = waiters.into_iter().unzip();
    let cookies = udp.first().context("no lanes")?.try_clone()?;
    let handshakes = handshakes::start(filter, RetrySource::new(&identity), cookies, &wakers)?;
    let (owners, memory) = (Owners::default(), DeviceMemory::default());
    let (published, metrics) = Published::new(udp.len());
    let (ended, end) = mpsc::channel(udp.len() + 1);

    let (mut frames, mut stop_distributor) = (Vec::new(), None);
    if lanes > 1 {
        let (distributor, queues, waker) =
            Distributor::try_new(path.clone(), owners.clone(), &wakers)?;
        frames = queues;
        stop_distributor = Some(waker);
        spawn("distributor".to_owned(), ended.clone(), || distributor.run())?;
    }
    let mut frames = frames.into_iter();
    let mut handles = Vec::new();
    for ((number, (udp, tunnel)), ((waiter, waker), handshakes)) in udp
        .into_iter()
        .zip(tunnels)
        .enumerate()
        .zip(waiters.into_iter().zip(wakers).zip(handshakes))
    {
        let (commands, incoming) = mpsc::channel(COMMANDS);
        let inlet = PacketInlet::new(waker.clone());
        let lane = u8::try_from(number).context("too many lanes")?;
        let quic = QuicEndpoint::server(identity.clone(), path.mtu(), lane, lanes, waker.clone());
        handles.push(LaneHandle { commands, waker, inlet: inlet.clone() });
        let parts = WorkerParts {
            number,
            tunnel,
            quic,
            inlet,
            requests: requests.clone(),
            handshakes,
            limits: Limits::default().share_of(lanes),
            owners: owners.clone(),
            memory: memory.clone(),
            udp,
            frames: frames.next(),
            path: path.clone(),
            sinks: sinks.clone(),
            silent: silent.clone(),
            commands: incoming,
            metrics: published.clone(),
        };
        let worker = Worker::new(parts, now);
        spawn(format!("lane-{number}"), ended.clone(), move || worker.run(&waiter))?;
    }
    Ok((DataPlane::new(handles, stop_distributor), metrics, end))
}

fn spawn(
    name: String,
    ended: mpsc::Sender<io::Result<()>>,
    run: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let _thread: JoinHandle<()> = std::thread::Builder::new().name(name).spawn(move || {
        // There is room for all, and nobody listens any more only while the process ends.
        let _ = ended.try_send(run());
    })?;
    Ok(())
}
