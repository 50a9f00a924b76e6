//! Whatever may happen, in whatever order.

use std::{collections::BTreeMap, time::Duration};

use adit_proto::{ClientConfig, Reason, WireguardPublicKey};
use ipnet::IpNet;
use proptest::{collection::vec, prelude::*, sample::select};

use super::fixture::{BERLIN, OSLO, config, connector};
use crate::{
    carrier::{Carrier, CarrierChoice},
    daemon::{
        backoff::Jitter,
        clock::Now,
        sites::{AttemptId, SessionEnd, SiteCommand, Sites, UpsertedPeer},
    },
};

/// Something that happens; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Step {
    Admit(usize),
    Unreachable(usize),
    Lose(usize),
    Refuse(usize),
    Drain(usize),
    CarrierUp(u8, Carrier),
    CarrierDown(u8, Carrier),
    Suspect(u8),
    Pong(usize, u64, u8),
    Wait(u64),
    Configure(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..8_usize).prop_map(Step::Admit),
        2 => (0..8_usize).prop_map(Step::Unreachable),
        1 => (0..8_usize).prop_map(Step::Lose),
        1 => (0..8_usize).prop_map(Step::Refuse),
        1 => (0..8_usize).prop_map(Step::Drain),
        2 => (1..5_u8, select(&Carrier::ALL)).prop_map(|(it, by)| Step::CarrierUp(it, by)),
        1 => (1..5_u8, select(&Carrier::ALL)).prop_map(|(it, by)| Step::CarrierDown(it, by)),
        1 => (1..5_u8).prop_map(Step::Suspect),
        2 => (0..8_usize, 0..8_u64, 0..=100_u8).prop_map(|(it, id, load)| Step::Pong(it, id, load)),
        4 => (0..12_000_u64).prop_map(Step::Wait),
        4 => (0..400_u64).prop_map(Step::Wait),
        1 => (0..5_usize).prop_map(Step::Configure),
    ];
    vec(step, 1..80)
}

fn configs() -> [ClientConfig; 5] {
    [
        config(&[(BERLIN, &["10.9.0.0/24"], &[1, 2]), (OSLO, &["10.8.0.0/24"], &[3, 4])]),
        config(&[(BERLIN, &["10.8.0.0/24"], &[1, 2]), (OSLO, &["10.9.0.0/24"], &[3, 4])]),
        config(&[(BERLIN, &["10.8.0.0/24", "10.9.0.0/24"], &[2])]),
        config(&[(OSLO, &["10.9.0.0/24"], &[3])]),
        config(&[]),
    ]
}

/// What the event loop would have made of the commands.
#[derive(Debug, Default)]
struct World {
    attempts: Vec<AttemptId>,
    peers: BTreeMap<WireguardPublicKey, Vec<IpNet>>,
}

impl World {
    fn carry_out(&mut self, commands: Vec<SiteCommand>) {
        for command in commands {
            match command {
                SiteCommand::StartSession { attempt, .. } => self.attempts.push(attempt),
                SiteCommand::StopSession { attempt } => {
                    assert!(self.attempts.contains(&attempt), "stopped what was not there");
                    self.attempts.retain(|held| *held != attempt);
                }
                SiteCommand::UpsertPeer(peer) => self.upsert(*peer),
                SiteCommand::MovePackets { from, to, .. } => {
                    for peer in [&from, &to] {
                        assert!(
                            self.peers.contains_key(&peer.public_key),
                            "moves packets of nobody"
                        );
                    }
                    self.upsert(*from);
                    self.upsert(*to);
                }
                SiteCommand::Tell { attempt, .. } => {
                    assert!(self.attempts.contains(&attempt), "told nobody");
                }
                SiteCommand::OpenCarrier { connector, .. } => {
                    let public_key = connector.wireguard_public_key;
                    assert!(self.peers.contains_key(&public_key), "opened a carrier to nobody");
                }
                SiteCommand::ProbeCarrier { public_key, .. }
                | SiteCommand::CloseCarrier { public_key, .. }
                | SiteCommand::UseCarrier { public_key, .. } => {
                    assert!(self.peers.contains_key(&public_key), "changed a carrier to nobody");
                }
                SiteCommand::RemovePeer { public_key } => {
                    assert!(self.peers.remove(&public_key).is_some(), "removed nobody");
                }
            }
        }
    }

    fn upsert(&mut self, peer: UpsertedPeer) {
        let others = self.peers.iter().filter(|(key, _)| **key != peer.public_key);
        for (_, held) in others {
            let has_other = peer.prefixes.iter().any(|prefix| held.contains(prefix));
            assert!(!has_other, "a prefix has two owners");
        }
        self.peers.insert(peer.public_key, peer.prefixes);
    }

    fn end(&mut self, choice: usize) -> Option<AttemptId> {
        let attempt = self.attempts.get(choice % self.attempts.len().max(1)).copied()?;
        self.attempts.retain(|held| *held != attempt);
        Some(attempt)
    }

    fn check_invariants(&self, sites: &Sites) {
        let progress = sites.progress();
        assert!(self.peers.len() <= progress.total * 3, "a site has too many peers");
        assert!(progress.established <= self.peers.len());
        // Whatever happened, something goes on: a session, an attempt or a timer.
        if progress.total > 0 {
            assert!(!self.attempts.is_empty() || sites.poll_timeout().is_some(), "{sites:?}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_prefixes_have_one_owner_and_the_search_goes_on(steps in steps()) {
        let configs = configs();
        let mut now = Now::read();
        let mut sites = Sites::new(Jitter::from_seed(11), CarrierChoice::Auto);
        let mut world = World::default();
        sites.handle_config(&configs[0], now);
        for step in steps {
            let endpoint = "192.0.2.1:443".parse().unwrap();
            match step {
                Step::Admit(choice) => {
                    let count = world.attempts.len().max(1);
                    if let Some(attempt) = world.attempts.get(choice % count) {
                        sites.handle_admitted(*attempt, endpoint, None, None, now);
                    }
                }
                Step::Unreachable(choice) => {
                    if let Some(attempt) = world.end(choice) {
                        sites.handle_ended(attempt, SessionEnd::Unreachable(String::new()), now);
                    }
                }
                Step::Lose(choice) => {
                    if let Some(attempt) = world.end(choice) {
                        sites.handle_ended(attempt, SessionEnd::Lost(String::new()), now);
                    }
                }
                Step::Refuse(choice) => {
                    if let Some(attempt) = world.end(choice) {
                        let end = SessionEnd::Refused(Reason::CredentialExpired);
                        sites.handle_ended(attempt, end, now);
                    }
                }
                Step::Drain(choice) => {
                    let count = world.attempts.len().max(1);
                    if let Some(attempt) = world.attempts.get(choice % count) {
                        sites.handle_draining(*attempt, now);
                    }
                }
                Step::CarrierUp(number, carrier) => {
                    let key = connector(number).wireguard_public_key;
                    sites.handle_carrier_up(&key, carrier, now);
                }
                Step::CarrierDown(number, carrier) => {
                    let key = connector(number).wireguard_public_key;
                    sites.handle_carrier_down(&key, carrier, "silent", now);
                }
                Step::Suspect(number) => {
                    let key = connector(number).wireguard_public_key;
                    sites.handle_suspected(&key, now);
                }
                Step::Pong(choice, request_id, load) => {
                    let count = world.attempts.len().max(1);
                    if let Some(attempt) = world.attempts.get(choice % count) {
                        sites.handle_pong(*attempt, request_id, load, now);
                    }
                }
                Step::Wait(millis) => {
                    now = now.after(Duration::from_millis(millis));
                    sites.handle_timeout(now);
                }
                Step::Configure(choice) => sites.handle_config(&configs[choice], now),
            }
            world.carry_out(std::iter::from_fn(|| sites.poll_command()).collect());
            world.check_invariants(&sites);
        }
        sites.stop();
        world.carry_out(std::iter::from_fn(|| sites.poll_command()).collect());
        prop_assert!(world.attempts.is_empty() && world.peers.is_empty(), "{world:?}");
    }
}
