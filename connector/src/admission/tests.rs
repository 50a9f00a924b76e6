use std::{sync::Arc, time::Duration};

use adit_proto::{
    Bundle, Confirmation, ConnectorId, Credential, DeviceId, NumericDate, OrganisationId, Pin,
    PresharedKey, Reason, Revocation, RevokedSubject, SessionId, SiteId, Timestamp, UserId,
    WireguardDevice, WireguardPublicKey,
};
use uuid::Uuid;

use super::{Admission, Output, Presenting};
use crate::enforced::{Enforced, Standing};

#[test]
fn a_device_with_a_credential_becomes_a_peer() {
    let mut world = World::new();
    assert_eq!(world.present(1, credential(1)), Ok(at(3600)));
    assert_eq!(world.outputs(), [Did::Upsert(device(1))]);
}

#[test]
fn without_a_bundle_nobody_is_admitted() {
    let mut admission = Admission::default();
    assert_eq!(admission.handle_present(presenting(1), credential(1)), Err(Reason::BundleStale));
}

#[test]
fn a_refresh_moves_the_expiry() {
    let mut world = World::new();
    world.present(1, credential(1)).unwrap();
    world.present(1, issued(credential(1), 1800)).unwrap();
    world.outputs();
    world.admission.handle_timeout(at(3600));
    assert_eq!(world.outputs(), []);
    world.admission.handle_timeout(at(5400));
    assert_eq!(
        world.outputs(),
        [
            Did::Remove(device(1), Reason::CredentialExpired),
            Did::Refuse(session(1), Reason::CredentialExpired),
        ]
    );
    assert_eq!(world.admission.poll_timeout(), None);
}

#[test]
fn a_device_that_connects_again_replaces_its_session() {
    let mut world = World::new();
    world.present(1, credential(1)).unwrap();
    world.present(2, credential(1)).unwrap();
    assert_eq!(
        world.outputs(),
        [Did::Upsert(device(1)), Did::Close(session(1)), Did::Upsert(device(1))]
    );
    // The old session's end comes late and takes nothing from the new one.
    world.admission.handle_closed(session(1));
    assert_eq!(world.admission.session_of(device(1)), Some(session(2)));
}

#[test]
fn a_session_that_was_replaced_takes_nothing_back() {
    let mut world = World::new();
    world.present(1, credential(1)).unwrap();
    world.present(2, credential(1)).unwrap();
    assert_eq!(world.preshared_key(), Some(preshared_key(2)));
    world.outputs();
    // What the old session has said before it hears of its end, with whatever credential.
    for old in [credential(1), issued(credential(1), 1)] {
        assert_eq!(world.present(1, old), Err(Reason::CredentialInvalid));
    }
    assert_eq!(world.outputs(), []);
    assert_eq!(world.preshared_key(), Some(preshared_key(2)));
    assert_eq!(world.admission.session_of(device(1)), Some(session(2)));

    world.admission.handle_closed(session(2));
    assert_eq!(world.present(1, credential(1)), Err(Reason::CredentialInvalid));
    world.present(2, issued(credential(1), 2)).unwrap();
    world.present(3, credential(1)).unwrap();
    assert_eq!(world.preshared_key(), Some(preshared_key(3)), "by an older credential");
    assert_eq!(world.present(2, issued(credential(1), 3)), Err(Reason::CredentialInvalid));
}

#[test]
fn a_request_that_is_no_session_leaves_the_session_and_its_preshared_key() {
    let mut world = World::new();
    world.present(1, credential(1)).unwrap();
    world.outputs();
    world.admission.handle_credential(issued(credential(1), 1)).unwrap();
    assert_eq!(world.preshared_key(), Some(preshared_key(1)));
    assert_eq!(world.admission.session_of(device(1)), Some(session(1)));
}

#[test]
fn a_device_outlives_its_session_until_its_credential_expires() {
    let mut world = World::new();
    world.present(1, credential(1)).unwrap();
    world.admission.handle_closed(session(1));
    world.outputs();
    assert_eq!(world.admission.session_count(), 0);
    world.admission.handle_timeout(at(3599));
    assert_eq!(world.outputs(), []);
    world.admission.handle_timeout(at(3600));
    assert_eq!(world.outputs(), [Did::Remove(device(1), Reason::CredentialExpired)]);
}

#[test]
fn an_older_credential_takes_nothing_back() {
    let mut world = World::new();
    world.present(1, issued(credential(1), 1800)).unwrap();
    assert_eq!(world.present(2, credential(1)), Ok(at(5400)));
}

#[test]
fn a_revoked_credential_is_refused() {
    let mut world = World::new();
    world.enforce(vec![revocation(RevokedSubject::Device(device(1)), 0)], Vec::new());
    assert_eq!(world.present(1, credential(1)), Err(Reason::DeviceRevoked));
    world.present(1, issued(credential(1), 1)).unwrap();
}

#[test]
fn a_revocation_ends_a_session_at_once_and_leaves_the_others() {
    let mut world = World::new();
    world.present(1, credential(1)).unwrap();
    world.present(2, credential(2)).unwrap();
    world.outputs();
    world.enforce(vec![revocation(RevokedSubject::User(user(1)), 0)], Vec::new());
    assert_eq!(
        world.outputs(),
        [Did::Remove(device(1), Reason::UserRevoked), Did::Refuse(session(1), Reason::UserRevoked),]
    );
    assert_eq!(world.admission.session_of(device(2)), Some(session(2)));
}

#[test]
fn no_address_ever_has_two_owners() {
    let mut world = World::new();
    world.present(1, credential(1)).unwrap();
    let claim = Credential { addresses: credential(1).addresses, ..credential(2) };
    assert_eq!(world.present(2, claim.clone()), Err(Reason::CredentialInvalid));
    world.outputs();

    // A newer credential is the organisation's later word.
    world.present(2, issued(claim, 10)).unwrap();
    assert_eq!(
        world.outputs(),
        [
            Did::Remove(device(1), Reason::CredentialInvalid),
            Did::Refuse(session(1), Reason::CredentialInvalid),
            Did::Upsert(device(2)),
        ]
    );
}

#[test]
fn an_address_outside_the_device_ranges_is_refused() {
    let mut world = World::new();
    let claim = Credential { addresses: vec!["10.9.0.2".parse().unwrap()], ..credential(1) };
    assert_eq!(world.present(1, claim), Err(Reason::CredentialInvalid));
    let none = Credential { addresses: Vec::new(), ..credential(1) };
    assert_eq!(world.present(1, none), Err(Reason::CredentialInvalid));
}

#[test]
fn one_session_speaks_for_one_device() {
    let mut world = World::new();
    world.present(1, credential(1)).unwrap();
    assert_eq!(world.present(1, credential(2)), Err(Reason::CredentialInvalid));
}

#[test]
fn plain_wireguard_devices_come_and_go_with_the_bundle() {
    let mut world = World::new();
    world.enforce(Vec::new(), vec![router(9, "100.80.0.9")]);
    assert_eq!(world.outputs(), [Did::Upsert(device(9))]);
    // The same bundle again disturbs nobody.
    world.enforce(Vec::new(), vec![router(9, "100.80.0.9")]);
    assert_eq!(world.outputs(), []);
    world.enforce(Vec::new(), Vec::new());
    assert_eq!(world.outputs(), [Did::Remove(device(9), Reason::DeviceRevoked)]);
}

#[test]
fn plain_wireguard_devices_may_swap_their_addresses() {
    let mut world = World::new();
    world.enforce(Vec::new(), vec![router(8, "100.80.0.8"), router(9, "100.80.0.9")]);
    world.outputs();
    world.enforce(Vec::new(), vec![router(8, "100.80.0.9"), router(9, "100.80.0.8")]);
    assert_eq!(
        world.outputs(),
        [
            Did::Remove(device(8), Reason::CredentialInvalid),
            Did::Remove(device(9), Reason::CredentialInvalid),
            Did::Upsert(device(8)),
            Did::Upsert(device(9)),
        ]
    );
}

#[test]
fn a_credential_never_takes_an_address_of_a_plain_wireguard_device() {
    let mut world = World::new();
    world.enforce(Vec::new(), vec![router(9, "100.80.0.1")]);
    assert_eq!(world.present(1, issued(credential(1), 100)), Err(Reason::CredentialInvalid));
}

#[test]
fn devices_stay_while_the_bundle_is_stale_but_none_is_added() {
    let mut world = World::new();
    world.present(1, credential(1)).unwrap();
    world.outputs();
    let stale = Standing::Stale(Arc::new(Enforced::try_new(bundle(vec![], vec![])).unwrap()));
    world.admission.handle_standing(stale);
    assert_eq!(world.outputs(), []);
    assert_eq!(world.present(2, credential(2)), Err(Reason::BundleStale));
}

struct World {
    admission: Admission,
}

/// An [`Output`] that can be compared.
#[derive(Debug, PartialEq, Eq)]
enum Did {
    Upsert(DeviceId),
    Remove(DeviceId, Reason),
    Refuse(SessionId, Reason),
    Close(SessionId),
}

impl World {
    fn new() -> Self {
        let mut world = Self { admission: Admission::default() };
        world.enforce(Vec::new(), Vec::new());
        world
    }

    fn enforce(&mut self, revocations: Vec<Revocation>, devices: Vec<WireguardDevice>) {
        let enforced = Enforced::try_new(bundle(revocations, devices)).unwrap();
        self.admission.handle_standing(Standing::Live(Arc::new(enforced)));
    }

    fn present(
        &mut self,
        session_number: u128,
        credential: Credential,
    ) -> Result<Timestamp, Reason> {
        self.admission.handle_present(presenting(session_number), credential)
    }

    /// Of the first device.
    fn preshared_key(&self) -> Option<PresharedKey> {
        self.admission.device(device(1)).and_then(|device| device.preshared_key)
    }

    fn outputs(&mut self) -> Vec<Did> {
        std::iter::from_fn(|| self.admission.poll_output())
            .map(|output| match output {
                Output::Upsert(device) => Did::Upsert(device.subject.device_id),
                Output::Remove { device_id, reason } => Did::Remove(device_id, reason),
                Output::Refuse { session_id, reason } => Did::Refuse(session_id, reason),
                Output::Close { session_id } => Did::Close(session_id),
            })
            .collect()
    }
}

fn bundle(revocations: Vec<Revocation>, wireguard_devices: Vec<WireguardDevice>) -> Bundle {
    Bundle {
        organisation_id: OrganisationId::from_uuid(Uuid::nil()),
        connector_id: ConnectorId::from_uuid(Uuid::nil()),
        site_id: SiteId::from_uuid(Uuid::nil()),
        sequence: 1,
        issued_at: at(0),
        max_offline_s: 3600,
        device_ranges: vec!["100.80.0.0/12".parse().unwrap()],
        organisation_keys: Vec::new(),
        resources: Vec::new(),
        policies: Vec::new(),
        revocations,
        wireguard_devices,
    }
}

/// Issued at 0 for an hour.
fn credential(number: u128) -> Credential {
    let last = u8::try_from(number).unwrap();
    Credential {
        device_id: device(number),
        user_id: user(number),
        groups: Vec::new(),
        posture: Vec::new(),
        addresses: vec![[100, 80, 0, last].into()],
        wireguard_public_key: key(last),
        confirmation: Confirmation { pin: Pin::from_spki(b"key") },
        auth_time: NumericDate(at(0)),
        authentication_methods: Vec::new(),
        issued_at: NumericDate(at(0)),
        expires_at: NumericDate(at(3600)),
    }
}

fn issued(credential: Credential, secs: u64) -> Credential {
    Credential {
        issued_at: NumericDate(at(secs)),
        expires_at: NumericDate(at(secs + 3600)),
        ..credential
    }
}

fn router(number: u128, address: &str) -> WireguardDevice {
    WireguardDevice {
        device_id: device(number),
        user_id: user(number),
        groups: Vec::new(),
        public_key: key(u8::try_from(number).unwrap()),
        addresses: vec![address.parse().unwrap()],
    }
}

fn revocation(subject: RevokedSubject, secs: u64) -> Revocation {
    Revocation { subject, not_before: at(secs) }
}

fn key(number: u8) -> WireguardPublicKey {
    WireguardPublicKey::try_from_bytes([number + 100; 32]).unwrap()
}

fn device(number: u128) -> DeviceId {
    DeviceId::from_uuid(Uuid::from_u128(number))
}

fn user(number: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(number))
}

fn session(number: u128) -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(number))
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_millis(1_767_225_600_000).saturating_add(Duration::from_secs(secs))
}

fn presenting(number: u128) -> Presenting {
    Presenting {
        session_id: session(number),
        serial: u64::try_from(number).unwrap(),
        preshared_key: preshared_key(number),
    }
}

fn preshared_key(number: u128) -> PresharedKey {
    PresharedKey::from_bytes([u8::try_from(number).unwrap(); 32])
}
