//! What a packet of a known flow costs, and what a new flow costs with its decision.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use adit_connector::{Enforced, Forwarder, Inner, Limits, Now, Service, Standing, Volume};
use adit_policy::{Authentication, Subject};
use adit_proto::{
    Bundle, ConnectorId, DeviceId, FlowTuple, GroupId, OrganisationId, PolicyId, Protocol,
    ResourceId, SiteId, Timestamp, UserId,
    api::{Conditions, Effect, Policy, Resource, ResourceSelector, SubjectSelector},
};
use adit_tunnel::{Packet, PeerConfig, PeerId, Tunnel, WireguardSecret};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use uuid::Uuid;

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = known_flow, new_flow
}
criterion_main!(benches);

const DEVICES: u32 = 1000;
const GROUPS: u32 = 200;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Packets of flows that are in the table, in an order that no cache likes: looked for, and then
/// handled as a whole, from the bytes of the packet to its counters.
fn known_flow(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("known flow");
    group.throughput(Throughput::Elements(1));
    for flows in [1000, 100_000] {
        let mut world = World::new(100);
        let mut known: Vec<(PeerId, FlowTuple)> = (0..flows)
            .map(|flow| {
                let device = flow % DEVICES;
                let port = 1024 + u16::try_from(flow / DEVICES).unwrap_or_default();
                (world.peer(device), tuple(device, port, device % 100))
            })
            .collect();
        for (peer, tuple) in &known {
            assert!(world.send(*peer, &segment(tuple, ACK)), "every flow is permitted");
        }
        shuffle(&mut known);

        let mut known = known.iter().cycle();
        group.bench_function(BenchmarkId::new("look-up", flows), |bencher| {
            bencher.iter(|| {
                let (_peer, tuple) = known.next().expect("a cycle");
                world.forwarder.is_live(black_box(tuple), world.now)
            });
        });
        group.bench_function(BenchmarkId::new("packet of a device", flows), |bencher| {
            bencher.iter(|| {
                let (peer, tuple) = known.next().expect("a cycle");
                world.send(*peer, &black_box(segment(tuple, ACK)))
            });
        });
        group.bench_function(BenchmarkId::new("packet of a service", flows), |bencher| {
            bencher.iter(|| {
                let (_peer, tuple) = known.next().expect("a cycle");
                world.answer(&black_box(segment(&tuple.reversed(), ACK)))
            });
        });
    }
    let flow = tuple(1, 1024, 1);
    group.bench_function("making and reading a packet", |bencher| {
        bencher.iter(|| {
            let bytes = black_box(segment(black_box(&flow), ACK));
            black_box(Packet::try_parse(&bytes).expect("a packet").flow())
        });
    });
    group.finish();
}

/// A first packet: looked for, decided by policies that remember nothing, put into the table and
/// into the access log.
fn new_flow(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("new flow");
    group.throughput(Throughput::Elements(1));
    for policies in [1, 100, 10_000] {
        let mut world = World::new(policies);
        let mut flow: u32 = 0;
        group.bench_function(BenchmarkId::new("policies", policies), |bencher| {
            bencher.iter(|| {
                flow = flow.wrapping_add(1);
                // So slow that no device meets its limit, and every decision is forgotten.
                world.pass(Duration::from_millis(2));
                let device = flow % DEVICES;
                let port = u16::try_from(flow / DEVICES % 60_000).unwrap_or_default() + 1024;
                let tuple = tuple(device, port, (device + GROUPS * (flow % 50)) % policies);
                let peer = world.peer(device);
                let forwarded = world.send(peer, &segment(&tuple, SYN));
                world.drop_records();
                black_box(forwarded)
            });
        });
    }
    group.finish();
}

struct World {
    forwarder: Forwarder,
    peers: Vec<PeerId>,
    now: Now,
}

impl World {
    fn new(policies: u32) -> Self {
        let now =
            Now { monotonic: Instant::now(), wall: Timestamp::from_millis(1_767_225_600_000) };
        let secret = || WireguardSecret::try_generate().expect("randomness");
        let mut tunnel = Tunnel::new(secret(), 1420, now.monotonic);
        let mut forwarder = Forwarder::new(Limits::default(), now);
        let peers: Vec<PeerId> = (0..DEVICES)
            .map(|device| {
                let config = PeerConfig {
                    public_key: secret().public_key(),
                    allowed_ips: Vec::new(),
                    endpoint: None,
                    keepalive: None,
                };
                let peer = tunnel.upsert(config, now.monotonic).expect("a new key");
                forwarder.upsert_device(peer, subject(device), now);
                peer
            })
            .collect();
        let enforced = Enforced::try_new(bundle(policies)).expect("the sample compiles");
        forwarder.handle_standing(Standing::Live(Arc::new(enforced)), now);
        Self { forwarder, peers, now }
    }

    fn peer(&self, device: u32) -> PeerId {
        let peer = self.peers.get(usize::try_from(device).unwrap_or(usize::MAX));
        *peer.expect("there are as many devices")
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall = self.now.wall.saturating_add(time);
    }

    fn send(&mut self, peer: PeerId, packet: &[u8]) -> bool {
        let packet = Packet::try_parse(packet).expect("a packet");
        let volume = Volume::of(&packet);
        let inner = self.forwarder.handle_inner_packet(peer, &packet, volume, self.now);
        matches!(inner, Inner::Forward(_authorization))
    }

    fn answer(&mut self, packet: &[u8]) -> bool {
        let packet = Packet::try_parse(packet).expect("a packet");
        let volume = Volume::of(&packet);
        let service = self.forwarder.handle_service_packet(&packet, volume, self.now);
        matches!(service, Service::Send(_peer))
    }

    fn drop_records(&mut self) {
        while self.forwarder.poll_record().is_some() {}
    }
}

/// As many resources as policies, each of which lets one group reach one resource.
fn bundle(policies: u32) -> Bundle {
    let at = Timestamp::from_millis(0);
    let policy = |number| Policy {
        id: PolicyId::from_uuid(uuid(number)),
        name: format!("policy {number}"),
        effect: Effect::Permit,
        subjects: SubjectSelector {
            everyone: policies == 1,
            groups: if policies == 1 { Vec::new() } else { vec![group_id(number)] },
            ..SubjectSelector::default()
        },
        resources: ResourceSelector {
            ids: vec![ResourceId::from_uuid(uuid(number))],
            ..ResourceSelector::default()
        },
        conditions: Conditions::default(),
        disabled: false,
        created_at: at,
        updated_at: at,
    };
    let resource = |number| Resource {
        id: ResourceId::from_uuid(uuid(number)),
        name: format!("resource {number}"),
        site_id: SiteId::from_uuid(Uuid::nil()),
        addresses: vec![IpAddr::V4(resource_address(number)).into()],
        filters: Vec::new(),
        tags: Vec::new(),
        created_at: at,
        updated_at: at,
    };
    Bundle {
        organisation_id: OrganisationId::from_uuid(Uuid::nil()),
        connector_id: ConnectorId::from_uuid(Uuid::nil()),
        site_id: SiteId::from_uuid(Uuid::nil()),
        sequence: 1,
        issued_at: at,
        max_offline_s: 3600,
        device_ranges: vec!["100.80.0.0/12".parse().expect("a prefix")],
        organisation_keys: Vec::new(),
        resources: (0..policies).map(resource).collect(),
        policies: (0..policies).map(policy).collect(),
        revocations: Vec::new(),
        wireguard_devices: Vec::new(),
    }
}

/// Of a user in eight groups.
fn subject(device: u32) -> Subject {
    Subject {
        device_id: DeviceId::from_uuid(uuid(device)),
        user_id: UserId::from_uuid(uuid(device)),
        groups: (0..8).map(|group| group_id(device + group * (GROUPS / 8))).collect(),
        posture: vec!["disk-encrypted".to_owned()],
        source: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
        authentication: Some(Authentication {
            at: Timestamp::from_millis(1_767_225_600_000),
            methods: vec!["pwd".to_owned()],
        }),
        expires_at: None,
    }
}

fn tuple(device: u32, port: u16, resource: u32) -> FlowTuple {
    FlowTuple {
        protocol: Protocol::Tcp,
        source: device_address(device).into(),
        source_port: port,
        destination: resource_address(resource).into(),
        destination_port: 443,
    }
}

/// A segment of TCP without data.
fn segment(flow: &FlowTuple, flags: u8) -> [u8; 40] {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => [0; 4],
    };
    let [a, b, c, d] = octets(flow.source);
    let [e, f, g, h] = octets(flow.destination);
    let [[i, j], [k, l]] = [flow.source_port, flow.destination_port].map(u16::to_be_bytes);
    [
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, a, b, c, d, e, f, g, h, // IP
        i, j, k, l, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0, // TCP
    ]
}

/// In an order that no cache likes, the same each time.
fn shuffle<T>(row: &mut [T]) {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    for place in (1..row.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let other = state % u64::try_from(place + 1).unwrap_or(1);
        row.swap(place, usize::try_from(other).unwrap_or_default());
    }
}

fn device_address(device: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(100, 80, 0, 0).to_bits() + device)
}

fn resource_address(resource: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + resource)
}

fn group_id(number: u32) -> GroupId {
    GroupId::from_uuid(uuid(number % GROUPS))
}

fn uuid(number: u32) -> Uuid {
    Uuid::from_u128(0x0193_f0a2_b7c8_7d34_a1e2_c3d4_0000_0000 + u128::from(number))
}
