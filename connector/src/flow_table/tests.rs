use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use adit_policy::{Authorization, Destination, Evaluator, Subject};
use adit_proto::{
    DeviceId, FlowTuple, PolicyId, Protocol, ResourceId, SiteId, Timestamp, UserId,
    api::{Conditions, Effect, Policy, Resource, ResourceSelector, SubjectSelector},
};
use proptest::{collection::vec, prelude::*};
use uuid::Uuid;

use super::{DevicePlace, Flow, FlowTable, Limits, Slot, Volume, Worth};

const LIMITS: Limits = Limits { flows: 12, flows_per_device: 6 };

#[derive(Debug, Clone)]
enum Event {
    Open { device: u32, port: u16 },
    Answer { device: u32, port: u16 },
    Send { device: u32, port: u16 },
    Reset { device: u32, port: u16 },
    End { device: u32, port: u16 },
}

/// What the table should hold: what each flow is worth, and when it was last seen.
type Model = BTreeMap<(u32, u16), (u8, Instant)>;

proptest! {
    #[test]
    fn whatever_happens_the_right_flow_gives_way(events in vec(event(), 0..200)) {
        let authorization = authorization();
        let mut table = FlowTable::new(LIMITS);
        let mut model = Model::new();
        let mut now = Instant::now();
        for event in events {
            now += Duration::from_millis(1);
            match event {
                Event::Open { device, port } => {
                    if table.find(&tuple(device, port)).is_some() {
                        continue;
                    }
                    while let Some(slot) = table.must_give_way(DevicePlace(device)) {
                        let (flow, _details) = table.remove(slot);
                        prop_assert!(may_give_way(&model, device, &flow), "{flow:?} for {device}");
                        model.remove(&(flow.device.0, flow.tuple().source_port));
                    }
                    let authorization = authorization.clone();
                    table.insert(&tuple(device, port), DevicePlace(device), authorization, 1, now);
                    model.insert((device, port), (1, now));
                }
                Event::Answer { device, port } => {
                    change(&mut table, &mut model, (device, port), |flow, (worth, seen)| {
                        flow.to_device.volume += Volume { packets: 1, bytes: 40 };
                        (flow.last_seen, *seen) = (now, now);
                        *worth = if *worth == 1 { 2 } else { *worth };
                    });
                }
                Event::Send { device, port } => {
                    change(&mut table, &mut model, (device, port), |flow, (_worth, seen)| {
                        (flow.last_seen, *seen) = (now, now);
                    });
                }
                Event::Reset { device, port } => {
                    change(&mut table, &mut model, (device, port), |flow, (worth, _seen)| {
                        flow.reset = true;
                        *worth = 0;
                    });
                }
                Event::End { device, port } => {
                    if let Some(slot) = table.find(&tuple(device, port)) {
                        table.remove(slot);
                        model.remove(&(device, port));
                    }
                }
            }
            agree(&table, &model)?;
        }
    }
}

#[test]
fn a_connection_that_was_merely_begun_counts_only_while_it_may_be_answered() {
    let (mut table, start, device) = (FlowTable::new(LIMITS), Instant::now(), DevicePlace(0));
    let open = |table: &mut FlowTable, port, now| {
        table.insert(&tuple(0, port), device, authorization(), 1, now)
    };
    let answered = open(&mut table, 1, start);
    table.flow_mut(answered).to_device.volume += Volume { packets: 1, bytes: 40 };
    table.settle(answered);
    let begun = open(&mut table, 2, start);
    assert_eq!(table.connections_of(device, start), 2);
    assert_eq!(table.connections_of(DevicePlace(1), start), 0, "another device");

    // Said again and again, it is still the one that was begun then.
    let later = start + Duration::from_secs(3);
    table.flow_mut(begun).last_seen = later;
    assert_eq!(table.connections_of(device, later), 1);
    open(&mut table, 3, later);
    assert_eq!(table.connections_of(device, later), 2);
    let long_after = later + Duration::from_secs(3_600);
    assert_eq!(table.connections_of(device, long_after), 1, "the open one");
}

#[test]
fn other_flows_are_no_connections() {
    let (mut table, now, device) = (FlowTable::new(LIMITS), Instant::now(), DevicePlace(0));
    let datagrams = FlowTuple { protocol: Protocol::Udp, ..tuple(0, 1) };
    table.insert(&datagrams, device, authorization(), 1, now);
    assert_eq!(table.connections_of(device, now), 0);
}

fn change(
    table: &mut FlowTable,
    model: &mut Model,
    (device, port): (u32, u16),
    change: impl FnOnce(&mut Flow, &mut (u8, Instant)),
) {
    if let (Some(slot), Some(known)) =
        (table.find(&tuple(device, port)), model.get_mut(&(device, port)))
    {
        change(table.flow_mut(slot), known);
        table.settle(slot);
    }
}

/// Whether it is this flow's turn when `device` wants another.
fn may_give_way(model: &Model, device: u32, flow: &Flow) -> bool {
    let held = |device: u32| model.keys().filter(|(of, _port)| *of == device).count();
    let payer = flow.device.0;
    let pays = if held(device) >= LIMITS.flows_per_device {
        payer == device
    } else {
        let most = (0..4).map(held).max().unwrap_or_default();
        held(payer) == most && (payer == device || held(device) < most)
    };
    let of_payer = model.iter().filter(|((of, _port), _known)| *of == payer);
    let least = of_payer.clone().map(|(_flow, (worth, _seen))| *worth).min();
    let Some((worth, seen)) = model.get(&(payer, flow.tuple().source_port)) else { return false };
    // Few enough for all of them to be put in order.
    let silent_longest =
        of_payer.filter(|(_flow, (other, _))| other == worth).all(|(_, (_, other))| seen <= other);
    pays && Some(*worth) == least && (silent_longest || *worth != 2)
}

fn agree(table: &FlowTable, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(table.len(), model.len());
    prop_assert!(table.len() <= LIMITS.flows);
    for ((device, port), (worth, _seen)) in model {
        let slot = table.find(&tuple(*device, *port));
        let flow = slot.map(|slot| table.flow(slot));
        let expected = [Worth::Finished, Worth::Opening, Worth::Open][usize::from(*worth)];
        prop_assert_eq!(flow.map(Flow::worth), Some(expected));
        prop_assert_eq!(flow.map(|flow| flow.queued_as), Some(expected));
    }
    for device in 0..4 {
        let held = model.keys().filter(|(of, _port)| *of == device).count();
        prop_assert_eq!(table.held_by(DevicePlace(device)), held);
        prop_assert_eq!(queued(table, device), held);
    }
    let in_row = (0..table.row_len()).filter_map(|place| table.slot_at(place)).count();
    prop_assert_eq!(in_row, model.len());
    Ok(())
}

/// How many flows the queues of a device lead to, both ways.
fn queued(table: &FlowTable, device: u32) -> usize {
    let Some(queues) = table.queues.get(usize::try_from(device).unwrap()) else { return 0 };
    let mut queued = 0;
    for worth in [Worth::Finished, Worth::Opening, Worth::Open] {
        let mut previous: Option<Slot> = None;
        let mut next = queues.first(worth);
        while let Some(slot) = next {
            queued += 1;
            assert_eq!(table.details(slot).previous, previous);
            previous = Some(slot);
            next = table.details(slot).next;
        }
        assert_eq!(queues.last(worth), previous);
    }
    queued
}

fn event() -> impl Strategy<Value = Event> {
    let flow = (0..4_u32, 0..12_u16);
    (0..9_u8, flow).prop_map(|(kind, (device, port))| match kind {
        0..=3 => Event::Open { device, port },
        4 | 5 => Event::Answer { device, port },
        6 => Event::Send { device, port },
        7 => Event::Reset { device, port },
        _ => Event::End { device, port },
    })
}

fn tuple(device: u32, port: u16) -> FlowTuple {
    FlowTuple {
        protocol: Protocol::Tcp,
        source: Ipv4Addr::from_bits(0x6450_0000 + device).into(),
        source_port: port,
        destination: Ipv4Addr::new(10, 9, 0, 2).into(),
        destination_port: 443,
    }
}

fn authorization() -> Authorization {
    let at = Timestamp::from_millis(0);
    let policy = Policy {
        id: PolicyId::from_uuid(Uuid::nil()),
        name: String::new(),
        effect: Effect::Permit,
        subjects: SubjectSelector { everyone: true, ..SubjectSelector::default() },
        resources: ResourceSelector { all: true, ..ResourceSelector::default() },
        conditions: Conditions::default(),
        disabled: false,
        created_at: at,
        updated_at: at,
    };
    let resource = Resource {
        id: ResourceId::from_uuid(Uuid::nil()),
        name: String::new(),
        site_id: SiteId::from_uuid(Uuid::nil()),
        addresses: vec!["0.0.0.0/0".parse().unwrap()],
        filters: Vec::new(),
        tags: Vec::new(),
        created_at: at,
        updated_at: at,
    };
    let subject = Subject {
        device_id: DeviceId::from_uuid(Uuid::nil()),
        user_id: UserId::from_uuid(Uuid::nil()),
        groups: Vec::new(),
        posture: Vec::new(),
        source: None,
        authentication: None,
        expires_at: None,
    };
    let address = Ipv4Addr::new(10, 9, 0, 2).into();
    let destination = Destination { address, port: 443, protocol: Protocol::Tcp };
    let evaluator = Evaluator::try_new(&[policy], &[resource]).unwrap();
    evaluator.evaluate(&subject, &destination, at).unwrap()
}
