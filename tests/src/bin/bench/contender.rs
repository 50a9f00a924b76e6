mod adit;
mod command_line;
mod identity;
mod openvpn;
mod point_to_point;
mod quincy;
mod streams;
mod wireguard;

use std::{net::Ipv4Addr, time::Duration};

use adit_tests::{Process, wait_until};

pub(crate) use self::{
    adit::{Adit, AditServer, SERVICE},
    command_line::CommandLine,
    point_to_point::PointToPoint,
    streams::Streams,
    wireguard::WireGuard,
};
use crate::{
    measure::ProcessorTime,
    pair::{Pair, READY, SERVER},
    program,
};

/// Somebody who joins two hosts.
#[derive(Debug, Clone)]
pub(crate) enum Contender {
    /// The cable itself, which is what there is to lose.
    Veth,
    Adit(Adit),
    Streams(Streams),
    WireGuard(WireGuard),
    OpenVpn,
    Quincy,
    PointToPoint(PointToPoint),
}

impl Contender {
    /// Returns everybody who takes part unless told otherwise, in the order of the table.
    pub(crate) fn all(policies: u32) -> Vec<Self> {
        vec![
            Self::Veth,
            Self::Adit(Adit { policies, carrier: "wireguard" }),
            Self::Adit(Adit { policies, carrier: "quic" }),
            Self::Streams(Streams { adit: Adit { policies, carrier: "quic" } }),
            Self::WireGuard(WireGuard::gotatun()),
            Self::WireGuard(WireGuard::boringtun()),
            Self::WireGuard(WireGuard::wireguard_go()),
            Self::OpenVpn,
            Self::Quincy,
        ]
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Veth => "veth",
            Self::Adit(Adit { carrier: "wireguard", .. }) => "adit",
            Self::Adit(_) => "adit-quic",
            Self::Streams(_) => "adit-connect",
            Self::WireGuard(wireguard) => &wireguard.name,
            Self::OpenVpn => "openvpn",
            Self::Quincy => "quincy",
            Self::PointToPoint(program) => &program.name,
        }
    }

    /// Returns what carries the packets between the two ends.
    pub(crate) fn carrier(&self) -> &'static str {
        match self {
            Self::Veth => "none",
            Self::Adit(adit) => adit.carrier,
            Self::WireGuard(_) => "wireguard",
            Self::Streams(_) | Self::Quincy => "quic",
            Self::OpenVpn | Self::PointToPoint(_) => "own",
        }
    }

    /// Returns the version of the program that is measured, if it tells.
    pub(crate) fn version(&self) -> Option<String> {
        match self {
            Self::Veth => None,
            Self::Adit(_) | Self::Streams(_) => Some(env!("CARGO_PKG_VERSION").to_owned()),
            Self::WireGuard(wireguard) => wireguard.command.version(),
            Self::OpenVpn => program::version(openvpn::PROGRAM),
            Self::Quincy => program::version(quincy::CLIENT),
            Self::PointToPoint(program) => program.command.version(),
        }
    }

    /// Returns the program that is not on this machine, without which there is no such contender.
    pub(crate) fn missing_program(&self) -> Option<&str> {
        match self {
            Self::Veth | Self::Adit(_) | Self::Streams(_) => None,
            Self::WireGuard(wireguard) => wireguard.command.missing_program(),
            Self::OpenVpn => program::missing(&[openvpn::PROGRAM]),
            Self::Quincy => program::missing(&[quincy::CLIENT, quincy::SERVER_PROGRAM]),
            Self::PointToPoint(program) => program.command.missing_program(),
        }
    }

    /// Returns Adit, if it is that.
    pub(crate) fn adit(&self) -> Option<&Adit> {
        match self {
            Self::Adit(adit) => Some(adit),
            Self::Veth
            | Self::Streams(_)
            | Self::WireGuard(_)
            | Self::OpenVpn
            | Self::Quincy
            | Self::PointToPoint(_) => None,
        }
    }

    /// Starts both ends, and waits until packets pass.
    #[track_caller]
    pub(crate) fn start(&self, pair: &Pair) -> Tunnel {
        let tunnel = match self {
            Self::Veth => Tunnel { server: SERVER, ends: Ends::Programs(Vec::new()) },
            Self::Adit(adit) => adit.start(pair),
            Self::Streams(streams) => streams.start(pair),
            Self::WireGuard(wireguard) => wireguard.start(pair),
            Self::OpenVpn => openvpn::start(pair),
            Self::Quincy => quincy::start(pair),
            Self::PointToPoint(program) => program.start(pair),
        };
        tunnel.wait_until_it_carries(pair);

        tunnel
    }
}

/// Both ends of a contender that were started.
pub(crate) struct Tunnel {
    /// The server's address, by which the tunnel is used.
    pub(crate) server: Ipv4Addr,
    ends: Ends,
}

enum Ends {
    Programs(Vec<Process>),
    Adit(Box<adit::AditEnds>),
    Streams(Box<streams::StreamEnds>),
}

impl Tunnel {
    /// Reads how long the tunnel's processes have kept processors busy; none if it has none.
    #[track_caller]
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        let processes = self.processes();
        if processes.is_empty() {
            return None;
        }
        let ids = processes.iter().map(|process| {
            process.id().unwrap_or_else(|| panic!("a program ended: {}", process.output()))
        });

        Some(ids.map(ProcessorTime::of_tree).sum())
    }

    /// Begins with another connection, if there is one and it can.
    #[track_caller]
    pub(crate) fn reconnect(&self, pair: &Pair) {
        if let Ends::Adit(ends) = &self.ends {
            ends.reconnect();
            self.wait_until_it_carries(pair);
        }
    }

    fn processes(&self) -> Vec<&Process> {
        match &self.ends {
            Ends::Programs(programs) => programs.iter().collect(),
            Ends::Adit(ends) => ends.processes(),
            Ends::Streams(ends) => ends.processes(),
        }
    }

    #[track_caller]
    fn wait_until_it_carries(&self, pair: &Pair) {
        wait_until("the tunnel carries", READY, || {
            for process in self.processes() {
                assert!(process.is_running(), "a program ended: {}", process.output());
            }
            let address = self.server.to_string();
            pair.laptop.run(["ping", "-c1", "-W1", &address]).success().then_some(())
        });
    }
}
