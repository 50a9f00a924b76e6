//! Packets as they come out of the tunnel, and which of them are to merge, by the rules as they are
//! written down.

use proptest::prelude::*;

use crate::offload::sample::{ACK, DO_NOT_FRAGMENT, PSH, Sample, Transport, noise};

/// What happens next in one of a few flows.
#[derive(Debug, Clone)]
pub(super) struct Step {
    flow: usize,
    change: Change,
    payload: Payload,
    is_push: bool,
    damage: Option<Damage>,
    padding_len: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Nothing,
    Tos(u8),
    Ttl(u8),
    FlowLabel(u16),
    Fragment(u16),
    Id(u16),
    IpOptions,
    Sequence(i32),
    Acknowledgment(u32),
    Reserved(u8),
    Window(u16),
    Urgent(u16),
    Options(usize),
    Flags(u8),
    HasChecksum(bool),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Payload {
    Full,
    Some(usize),
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    IpChecksum,
    TransportChecksum,
    Payload,
}

/// A packet that comes out of the tunnel.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    sample: Sample,
    damage: Option<Damage>,
    padding_len: usize,
}

pub(super) fn any_step() -> impl Strategy<Value = Step> {
    let change = prop_oneof![
        40 => Just(Change::Nothing),
        1 => any::<u8>().prop_map(Change::Tos),
        1 => any::<u8>().prop_map(Change::Ttl),
        1 => any::<u16>().prop_map(Change::FlowLabel),
        1 => prop_oneof![Just(0), Just(DO_NOT_FRAGMENT), Just(0x2000), Just(0x8000), Just(1)]
            .prop_map(Change::Fragment),
        1 => any::<u16>().prop_map(Change::Id),
        1 => Just(Change::IpOptions),
        1 => (-3..3_i32).prop_map(Change::Sequence),
        1 => any::<u32>().prop_map(Change::Acknowledgment),
        1 => (0..3_u8).prop_map(Change::Reserved),
        1 => any::<u16>().prop_map(Change::Window),
        1 => (0..2_u16).prop_map(Change::Urgent),
        1 => (0..4_usize).prop_map(Change::Options),
        1 => any::<u8>().prop_map(Change::Flags),
        1 => any::<bool>().prop_map(Change::HasChecksum),
    ];
    let payload = prop_oneof![
        30 => Just(Payload::Full),
        2 => (1..1500_usize).prop_map(Payload::Some),
        1 => Just(Payload::None),
    ];
    let damage = prop_oneof![
        60 => Just(None),
        1 => Just(Some(Damage::IpChecksum)),
        1 => Just(Some(Damage::TransportChecksum)),
        1 => Just(Some(Damage::Payload)),
    ];
    // Most packets belong to one flow after another, as they do in a train.
    let flow = prop_oneof![20 => Just(0_usize), 2 => 0..FLOWS];
    (flow, change, payload, prop::bool::weighted(0.05), damage, prop_oneof![Just(0), 0..16_usize])
        .prop_map(|(flow, change, payload, is_push, damage, padding_len)| Step {
            flow,
            change,
            payload,
            is_push,
            damage,
            padding_len,
        })
}

const FLOWS: usize = 8;

/// The packets of all flows in their order. A change is for good, except one that ends a stream.
pub(super) fn arrivals(steps: &[Step]) -> Vec<Arrival> {
    let sizes = [1380, 1360, 536, 1220, 9, 700, 300, 56];
    let mut flows: Vec<Sample> = (0..FLOWS)
        .map(|index| {
            let mut sample = match index {
                0 | 1 | 4 => Sample::tcp(index != 1, 0),
                2 | 3 => Sample::udp(index == 2, 0),
                5 => Sample::tcp(false, 0),
                _ => Sample { transport: Transport::Echo, ..Sample::tcp(index == 6, 0) },
            };
            sample.ports[0] += index as u16;
            sample
        })
        .collect();
    // Which flow is the busy one differs from case to case.
    let busy = steps.len() % FLOWS;
    let mut arrivals = Vec::new();
    for step in steps {
        let index = (step.flow + busy) % FLOWS;
        let flow = &mut flows[index];
        let payload_len = match step.payload {
            Payload::Full => sizes[index],
            Payload::Some(len) => len,
            Payload::None => 0,
        };
        *flow = flow.next(payload_len);
        step.change.make(flow);
        let mut sample = flow.clone();
        if let (Transport::Tcp(tcp), true) = (&mut sample.transport, step.is_push) {
            tcp.flags |= PSH;
        }
        if let (Transport::Tcp(tcp), Change::Flags(flags)) = (&mut sample.transport, step.change) {
            tcp.flags = flags;
        }
        arrivals.push(Arrival { sample, damage: step.damage, padding_len: step.padding_len });
    }
    arrivals
}

impl Change {
    fn make(self, sample: &mut Sample) {
        match (self, &mut sample.transport) {
            (Self::Sequence(by), Transport::Tcp(tcp)) => {
                tcp.sequence = tcp.sequence.wrapping_add_signed(by);
            }
            (Self::Acknowledgment(number), Transport::Tcp(tcp)) => tcp.acknowledgment = number,
            (Self::Reserved(reserved), Transport::Tcp(tcp)) => tcp.reserved = reserved,
            (Self::Window(window), Transport::Tcp(tcp)) => tcp.window = window,
            (Self::Urgent(urgent), Transport::Tcp(tcp)) => tcp.urgent = urgent,
            (Self::Options(words), Transport::Tcp(tcp)) => {
                tcp.options = noise(4 * words, words as u64);
            }
            (Self::HasChecksum(is_present), Transport::Udp { has_checksum }) => {
                *has_checksum = is_present;
            }
            (Self::Tos(tos), _) => sample.tos = tos,
            (Self::Ttl(ttl), _) => sample.ttl = ttl,
            (Self::FlowLabel(flow_label), _) => sample.flow_label = flow_label,
            (Self::Fragment(fragment), _) => sample.fragment = fragment,
            (Self::Id(id), _) => sample.id = id,
            (Self::IpOptions, _) if sample.is_ipv4 && sample.ip_options.is_empty() => {
                sample.ip_options = vec![1; 4];
            }
            (Self::IpOptions, _) => sample.ip_options.clear(),
            (_, _) => {}
        }
    }
}

impl Arrival {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.sample.bytes();
        let transport_at = self.sample.checksum_at();
        match self.damage {
            None => {}
            Some(Damage::IpChecksum) => {
                bytes[if self.sample.is_ipv4 { 10 } else { transport_at }] ^= 4
            }
            Some(Damage::TransportChecksum) => bytes[transport_at] ^= 4,
            Some(Damage::Payload) => *bytes.last_mut().unwrap() ^= 4,
        }
        bytes
    }

    pub(super) fn wire_bytes(&self) -> Vec<u8> {
        [self.bytes(), vec![0; self.padding_len]].concat()
    }
}

/// How many packets each run has, by the rules as they are written down.
pub(super) fn naive_runs(arrivals: &[Arrival], flush: &[bool]) -> Vec<usize> {
    let mut runs: Vec<Vec<&Arrival>> = Vec::new();
    for (arrival, is_flushed) in arrivals.iter().zip(flush) {
        match runs.last_mut() {
            Some(run) if !is_flushed && may_follow(run, arrival) => run.push(arrival),
            _ => runs.push(vec![arrival]),
        }
    }
    runs.iter().map(Vec::len).collect()
}

fn may_follow(run: &[&Arrival], next: &Arrival) -> bool {
    let first = run[0];
    let last = run[run.len() - 1];
    let payload_len: usize = run.iter().map(|arrival| arrival.sample.payload.len()).sum();
    let is_push = match &last.sample.transport {
        Transport::Tcp(tcp) => tcp.flags & PSH != 0,
        Transport::Udp { .. } => run.len() == 64,
        Transport::Echo => true,
    };
    // The sample that would come next, but for what may differ.
    let mut expected = first.sample.clone();
    expected.payload = next.sample.payload.clone();
    if next.sample.fragment == DO_NOT_FRAGMENT || !next.sample.is_ipv4 {
        expected.id = next.sample.id;
    } else {
        expected.id = expected.id.wrapping_add(run.len() as u16);
    }
    if !next.sample.is_ipv4 {
        expected.fragment = next.sample.fragment;
    } else {
        expected.flow_label = next.sample.flow_label;
    }
    if let (Transport::Tcp(tcp), Transport::Tcp(next)) =
        (&mut expected.transport, &next.sample.transport)
    {
        tcp.sequence = tcp.sequence.wrapping_add(payload_len as u32);
        tcp.flags = ACK | next.flags & PSH;
    }
    let last_len = last.sample.payload.len();
    [first, next].iter().all(|arrival| may_merge(arrival))
        && next.sample == expected
        && !is_push
        && last_len == first.sample.payload.len()
        && next.sample.payload.len() <= last_len
        && first.sample.header_len() + payload_len + next.sample.payload.len() <= 65_535
}

/// Whether any packet could merge with this one.
fn may_merge(arrival: &Arrival) -> bool {
    let sample = &arrival.sample;
    let is_right = match &sample.transport {
        Transport::Tcp(tcp) => tcp.reserved == 0 && tcp.flags & !PSH == ACK,
        Transport::Udp { has_checksum } => *has_checksum,
        Transport::Echo => false,
    };
    let is_whole = !sample.is_ipv4 || [0, DO_NOT_FRAGMENT].contains(&sample.fragment);
    is_right
        && is_whole
        && sample.ip_options.is_empty()
        && !sample.payload.is_empty()
        && arrival.damage.is_none()
}
