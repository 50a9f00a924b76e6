//! Who may send packets: a state machine without input and output.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::IpAddr,
};

use adit_policy::{Authentication, Subject};
use adit_proto::{
    Bundle, Credential, DeviceId, PresharedKey, Reason, RevokedSubject, SessionId, Timestamp,
    WireguardDevice, WireguardPublicKey,
};

use crate::{data_plane::DeviceOnConnector, enforced::Standing};

/// What is to be done, in this order.
#[derive(Debug)]
pub(crate) enum Output {
    /// The data plane expects this device.
    Upsert(Box<DeviceOnConnector>),
    /// The data plane forgets this device and cuts its flows.
    Remove { device_id: DeviceId, reason: Reason },
    /// The session is told why it ends, then it ends.
    Refuse { session_id: SessionId, reason: Reason },
    /// The session ends, because the device has opened another.
    Close { session_id: SessionId },
}

/// The devices that are admitted, by credential or by the bundle.
///
/// - `handle_*` put something in;
/// - after any of them, [`poll_output`](Self::poll_output) until it is empty, then sleep until
///   [`poll_timeout`](Self::poll_timeout).
///
/// INVARIANT: no two devices own the same inner address or the same WireGuard key.
#[derive(Default)]
pub(crate) struct Admission {
    standing: Standing,
    devices: BTreeMap<DeviceId, AdmittedDevice>,
    by_address: HashMap<IpAddr, DeviceId>,
    by_key: HashMap<WireguardPublicKey, DeviceId>,
    by_session: HashMap<SessionId, DeviceId>,
    expiries: BTreeSet<(Timestamp, DeviceId)>,
    outputs: VecDeque<Output>,
}

struct AdmittedDevice {
    device: DeviceOnConnector,
    proof: Proof,
    /// The serial of the newest session that has spoken for it.
    newest_session: u64,
}

/// A session that shows a credential.
#[derive(Debug, Clone)]
pub(crate) struct Presenting {
    pub(crate) session_id: SessionId,
    /// Grows in the order in which sessions begin.
    pub(crate) serial: u64,
    /// Of this session.
    pub(crate) preshared_key: PresharedKey,
}

/// By what a device is admitted.
enum Proof {
    /// A credential, which outlives its session: a client that roams comes back.
    Credential { issued_at: Timestamp, expires_at: Timestamp, session_id: Option<SessionId> },
    /// The bundle names it.
    Bundle,
}

impl Admission {
    pub(crate) fn session_count(&self) -> usize {
        self.by_session.len()
    }

    /// The session of a device, if it has one open.
    pub(crate) fn session_of(&self, device_id: DeviceId) -> Option<SessionId> {
        self.devices.get(&device_id)?.session_id()
    }

    /// The device of a session that is open.
    pub(crate) fn device_of(&self, session_id: SessionId) -> Option<DeviceId> {
        self.by_session.get(&session_id).copied()
    }

    /// What is known of a device that is admitted.
    pub(crate) fn device(&self, device_id: DeviceId) -> Option<DeviceOnConnector> {
        self.devices.get(&device_id).map(|admitted| admitted.device.clone())
    }

    /// A session shows a credential whose signature, holder and times are verified already.
    ///
    /// Says until when the device is admitted, or why it is not: a session that another of the same
    /// device has replaced takes nothing back, as the device has the preshared key of the newer one.
    pub(crate) fn handle_present(
        &mut self,
        presenting: Presenting,
        credential: Credential,
    ) -> Result<Timestamp, Reason> {
        self.admit(Some(presenting), credential)
    }

    /// The same of a request that is no session; the session of the device, if it has one, stays,
    /// and so does the preshared key.
    pub(crate) fn handle_credential(
        &mut self,
        credential: Credential,
    ) -> Result<Timestamp, Reason> {
        self.admit(None, credential)
    }

    fn admit(
        &mut self,
        presenting: Option<Presenting>,
        credential: Credential,
    ) -> Result<Timestamp, Reason> {
        let session_id = presenting.as_ref().map(|session| session.session_id);
        let Some(enforced) = self.standing.live() else { return Err(Reason::BundleStale) };
        let bundle = enforced.bundle();
        let device_id = credential.device_id;
        let issued_at = credential.issued_at.0;
        if let Some(reason) = revoked(bundle, device_id, &credential) {
            return Err(reason);
        }
        let in_range = |address: &IpAddr| bundle.device_ranges.iter().any(|r| r.contains(address));
        if credential.addresses.is_empty() || !credential.addresses.iter().all(in_range) {
            return Err(Reason::CredentialInvalid);
        }
        let owner = session_id.and_then(|session_id| self.by_session.get(&session_id));
        if owner.is_some_and(|known| *known != device_id) {
            return Err(Reason::CredentialInvalid);
        }
        let rivals =
            self.rivals(device_id, &credential.addresses, &credential.wireguard_public_key);
        let is_newest = |rival: &DeviceId| match self.devices.get(rival).map(|known| &known.proof) {
            Some(Proof::Credential { issued_at: rival, .. }) => *rival < issued_at,
            Some(Proof::Bundle) => false,
            None => true,
        };
        if !rivals.iter().all(is_newest) {
            return Err(Reason::CredentialInvalid);
        }
        let known = self.devices.get(&device_id);
        let (newest_session, known_key) = known
            .map(|known| (known.newest_session, known.device.preshared_key.clone()))
            .unwrap_or_default();
        let (serial, preshared_key) = match presenting {
            Some(session) => (session.serial, Some(session.preshared_key)),
            None => (newest_session, known_key),
        };
        if serial < newest_session {
            return Err(Reason::CredentialInvalid);
        }
        match known.map(|known| &known.proof) {
            Some(Proof::Bundle) => return Err(Reason::CredentialInvalid),
            Some(Proof::Credential { issued_at: known, expires_at, .. }) if *known > issued_at => {
                // A newer credential of this device was seen; the older one takes nothing back.
                let expires_at = *expires_at;
                if let Some(session_id) = session_id {
                    self.take_over_session(device_id, session_id);
                    self.change_preshared_key(device_id, serial, preshared_key);
                }
                return Ok(expires_at);
            }
            Some(Proof::Credential { .. }) | None => {}
        }

        for rival in rivals {
            self.remove(rival, Reason::CredentialInvalid);
        }
        let expires_at = credential.expires_at.0;
        if let Some(session_id) = session_id {
            self.take_over_session(device_id, session_id);
        }
        let session_id = session_id.or_else(|| self.session_of(device_id));
        let proof = Proof::Credential { issued_at, expires_at, session_id };
        let device = from_credential(credential, preshared_key);
        self.insert(AdmittedDevice { device, proof, newest_session: serial });
        Ok(expires_at)
    }

    /// A session has ended; the device stays until its credential expires.
    pub(crate) fn handle_closed(&mut self, session_id: SessionId) {
        let Some(device_id) = self.by_session.remove(&session_id) else { return };
        if let Some(AdmittedDevice { proof: Proof::Credential { session_id: current, .. }, .. }) =
            self.devices.get_mut(&device_id)
            && *current == Some(session_id)
        {
            *current = None;
        }
    }

    /// The data plane cannot take a device.
    pub(crate) fn handle_upsert_failed(&mut self, device_id: DeviceId) {
        self.remove(device_id, Reason::CredentialInvalid);
    }

    /// Another bundle, or none, is enforced: those it revokes or omits go at once.
    ///
    /// Says whether resources or policies are others than before.
    pub(crate) fn handle_standing(&mut self, standing: Standing) -> bool {
        let before = std::mem::replace(&mut self.standing, standing);
        let Some(enforced) = self.standing.newest().cloned() else { return false };
        let bundle = enforced.bundle();
        self.apply(bundle);
        before.newest().is_none_or(|before| {
            let before = before.bundle();
            before.resources != bundle.resources || before.policies != bundle.policies
        })
    }

    /// Removes the devices whose credentials have expired.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        while let Some((expires_at, device_id)) = self.expiries.first().copied() {
            if expires_at > now {
                return;
            }
            self.remove(device_id, Reason::CredentialExpired);
            // Also when the device is unknown, so that the loop ends.
            self.expiries.remove(&(expires_at, device_id));
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        self.expiries.first().map(|(expires_at, _device_id)| *expires_at)
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn apply(&mut self, bundle: &Bundle) {
        let named: BTreeMap<DeviceId, &WireguardDevice> =
            bundle.wireguard_devices.iter().map(|device| (device.device_id, device)).collect();

        let fallen: Vec<(DeviceId, Reason)> = self
            .devices
            .iter()
            .filter_map(|(device_id, known)| {
                let reason = match known.proof {
                    Proof::Credential { issued_at, .. } => reason_of_revocation(
                        bundle,
                        *device_id,
                        known.device.subject.user_id,
                        issued_at,
                    ),
                    Proof::Bundle => match named.get(device_id) {
                        None => Some(Reason::DeviceRevoked),
                        // Its addresses may be another's from here on, so it frees them first.
                        Some(device) if device.addresses != known.device.addresses => {
                            Some(Reason::CredentialInvalid)
                        }
                        Some(_) => None,
                    },
                };
                reason.map(|reason| (*device_id, reason))
            })
            .collect();
        for (device_id, reason) in fallen {
            self.remove(device_id, reason);
        }
        for device in named.into_values() {
            self.admit_wireguard_device(device);
        }
    }

    fn admit_wireguard_device(&mut self, named: &WireguardDevice) {
        let device = from_bundle(named);
        let device_id = named.device_id;
        if let Some(known) = self.devices.get(&device_id)
            && let Proof::Bundle = known.proof
            && known.device.public_key == device.public_key
            && known.device.subject.user_id == device.subject.user_id
            && known.device.subject.groups == device.subject.groups
        {
            return;
        }
        for rival in self.rivals(device_id, &named.addresses, &named.public_key) {
            self.remove(rival, Reason::CredentialInvalid);
        }
        self.insert(AdmittedDevice { device, proof: Proof::Bundle, newest_session: 0 });
    }

    /// Other devices that own one of these addresses or this key.
    fn rivals(
        &self,
        device_id: DeviceId,
        addresses: &[IpAddr],
        key: &WireguardPublicKey,
    ) -> BTreeSet<DeviceId> {
        let by_address = addresses.iter().filter_map(|address| self.by_address.get(address));
        by_address.chain(self.by_key.get(key)).copied().filter(|id| *id != device_id).collect()
    }

    fn take_over_session(&mut self, device_id: DeviceId, session_id: SessionId) {
        self.by_session.insert(session_id, device_id);
        let Some(AdmittedDevice { proof: Proof::Credential { session_id: current, .. }, .. }) =
            self.devices.get_mut(&device_id)
        else {
            return;
        };
        let replaced = current.replace(session_id).filter(|old| *old != session_id);
        if let Some(old) = replaced {
            self.by_session.remove(&old);
            self.outputs.push_back(Output::Close { session_id: old });
        }
    }

    fn change_preshared_key(
        &mut self,
        device_id: DeviceId,
        newest_session: u64,
        key: Option<PresharedKey>,
    ) {
        if let Some(admitted) = self.devices.get_mut(&device_id) {
            admitted.newest_session = newest_session;
            admitted.device.preshared_key = key;
            self.outputs.push_back(Output::Upsert(Box::new(admitted.device.clone())));
        }
    }

    fn insert(&mut self, admitted: AdmittedDevice) {
        let device_id = admitted.device.subject.device_id;
        self.forget(device_id);
        for address in &admitted.device.addresses {
            self.by_address.insert(*address, device_id);
        }
        self.by_key.insert(admitted.device.public_key, device_id);
        if let Proof::Credential { expires_at, .. } = admitted.proof {
            self.expiries.insert((expires_at, device_id));
        }
        self.outputs.push_back(Output::Upsert(Box::new(admitted.device.clone())));
        self.devices.insert(device_id, admitted);
    }

    fn remove(&mut self, device_id: DeviceId, reason: Reason) {
        let Some(removed) = self.forget(device_id) else { return };
        self.outputs.push_back(Output::Remove { device_id, reason });
        if let Some(session_id) = removed.session_id() {
            self.by_session.remove(&session_id);
            self.outputs.push_back(Output::Refuse { session_id, reason });
        }
    }

    /// Takes a device out of every index.
    fn forget(&mut self, device_id: DeviceId) -> Option<AdmittedDevice> {
        let known = self.devices.remove(&device_id)?;
        for address in &known.device.addresses {
            self.by_address.remove(address);
        }
        self.by_key.remove(&known.device.public_key);
        if let Proof::Credential { expires_at, .. } = known.proof {
            self.expiries.remove(&(expires_at, device_id));
        }
        Some(known)
    }
}

impl AdmittedDevice {
    const fn session_id(&self) -> Option<SessionId> {
        match self.proof {
            Proof::Credential { session_id, .. } => session_id,
            Proof::Bundle => None,
        }
    }
}

fn revoked(bundle: &Bundle, device_id: DeviceId, credential: &Credential) -> Option<Reason> {
    reason_of_revocation(bundle, device_id, credential.user_id, credential.issued_at.0)
}

fn reason_of_revocation(
    bundle: &Bundle,
    device_id: DeviceId,
    user_id: adit_proto::UserId,
    issued_at: Timestamp,
) -> Option<Reason> {
    let revocation = bundle.revocation(device_id, user_id, issued_at)?;
    Some(match revocation.subject {
        RevokedSubject::Device(_) => Reason::DeviceRevoked,
        RevokedSubject::User(_) => Reason::UserRevoked,
    })
}

/// The subject of a credential; its outer address is learnt from its packets.
pub(crate) fn subject_of(credential: &Credential) -> Subject {
    Subject {
        device_id: credential.device_id,
        user_id: credential.user_id,
        groups: credential.groups.clone(),
        posture: credential.posture.clone(),
        source: None,
        authentication: Some(Authentication {
            at: credential.auth_time.0,
            methods: credential.authentication_methods.clone(),
        }),
        expires_at: Some(credential.expires_at.0),
    }
}

fn from_credential(
    credential: Credential,
    preshared_key: Option<PresharedKey>,
) -> DeviceOnConnector {
    DeviceOnConnector {
        preshared_key,
        subject: subject_of(&credential),
        public_key: credential.wireguard_public_key,
        addresses: credential.addresses,
    }
}

fn from_bundle(device: &WireguardDevice) -> DeviceOnConnector {
    DeviceOnConnector {
        preshared_key: None,
        subject: Subject {
            device_id: device.device_id,
            user_id: device.user_id,
            groups: device.groups.clone(),
            posture: Vec::new(),
            source: None,
            authentication: None,
            expires_at: None,
        },
        public_key: device.public_key,
        addresses: device.addresses.clone(),
    }
}
