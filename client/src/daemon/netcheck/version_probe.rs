//! Packets of a version of QUIC that nobody speaks, and the answers (RFC 9000 §6, RFC 8999).
//!
//! Whoever speaks QUIC says which versions it speaks instead, without keeping anything. The answer
//! bears the probe's source connection id, by which answers to different probes are told apart.

/// The least length to which there is an answer (RFC 9000 §14.1).
pub(super) const MIN_LEN: u16 = 1200;

/// What makes the connection ids of one check its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nonce(pub(super) [u8; NONCE_LEN]);

/// Which probe it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProbeId {
    /// The place of its target.
    pub(super) target: u16,
    /// Its length in bytes, without headers of UDP and IP.
    pub(super) len: u16,
    /// How many of that length went to that target before.
    pub(super) attempt: u8,
}

const NONCE_LEN: usize = 12;
const CID_LEN: usize = NONCE_LEN + 5;

/// A long header with the fixed bit; the rest of the first byte belongs to the version.
const FIRST_BYTE: u8 = 0xc0;

/// One of those that are reserved to make peers negotiate: `0x?a?a?a?a` (RFC 9000 §15).
const RESERVED_VERSION: [u8; 4] = [0x6a, 0xfa, 0xca, 0xba];

/// The packet of a probe. Shorter ones than [`MIN_LEN`] are made that long.
pub(super) fn encode(nonce: Nonce, id: ProbeId) -> Vec<u8> {
    let id = ProbeId { len: id.len.max(MIN_LEN), ..id };
    let cid = cid_of(nonce, id);
    let mut packet = Vec::with_capacity(id.len.into());
    packet.push(FIRST_BYTE);
    packet.extend_from_slice(&RESERVED_VERSION);
    // To nobody yet, from us.
    for cid in [&nonce.0[..8], &cid[..]] {
        packet.push(u8::try_from(cid.len()).expect("a connection id is short"));
        packet.extend_from_slice(cid);
    }
    packet.resize(id.len.into(), 0);
    packet
}

/// Which probe a datagram answers; none if it is no Version Negotiation to one with this nonce.
pub(super) fn decode(nonce: Nonce, datagram: &[u8]) -> Option<ProbeId> {
    let (&[first, 0, 0, 0, 0, CID_LEN_BYTE], rest) = datagram.split_first_chunk()? else {
        return None;
    };
    if first & 0x80 == 0 {
        return None;
    }
    let (cid, rest) = rest.split_first_chunk::<CID_LEN>()?;
    let (&source_len, rest) = rest.split_first()?;
    let versions = rest.get(usize::from(source_len)..)?;
    let (own, place) = cid.split_first_chunk::<NONCE_LEN>()?;
    let &[t0, t1, l0, l1, attempt] = place else { return None };
    let is_list = !versions.is_empty() && versions.len().is_multiple_of(4);
    (*own == nonce.0 && is_list).then(|| ProbeId {
        target: u16::from_be_bytes([t0, t1]),
        len: u16::from_be_bytes([l0, l1]),
        attempt,
    })
}

const CID_LEN_BYTE: u8 = CID_LEN as u8;

fn cid_of(nonce: Nonce, id: ProbeId) -> [u8; CID_LEN] {
    let mut cid = [0; CID_LEN];
    let (target, len) = (id.target.to_be_bytes(), id.len.to_be_bytes());
    let parts = nonce.0.into_iter().chain(target).chain(len).chain([id.attempt]);
    for (byte, value) in cid.iter_mut().zip(parts) {
        *byte = value;
    }
    cid
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: Nonce = Nonce([7; NONCE_LEN]);

    /// What a peer says (RFC 9000 §17.2.1).
    fn answer(probe: &[u8]) -> Vec<u8> {
        let destination_len = usize::from(probe[5]);
        let (destination, rest) = probe[6..].split_at(destination_len);
        let source = &rest[1..=usize::from(rest[0])];
        let mut answer = vec![0xc1, 0, 0, 0, 0];
        for cid in [source, destination] {
            answer.push(u8::try_from(cid.len()).unwrap());
            answer.extend_from_slice(cid);
        }
        answer.extend_from_slice(&[0x1a, 0x2a, 0x3a, 0x4a, 0, 0, 0, 1]);
        answer
    }

    proptest! {
        #[test]
        fn an_answer_says_which_probe_it_answers(
            target: u16, len in MIN_LEN..=9000, attempt: u8,
        ) {
            let id = ProbeId { target, len, attempt };
            let probe = encode(NONCE, id);
            prop_assert_eq!(probe.len(), usize::from(len));
            prop_assert!(adit_tunnel::is_quic(&probe));
            prop_assert_eq!(decode(NONCE, &answer(&probe)), Some(id));
        }

        #[test]
        fn an_answer_to_another_check_is_not_believed(nonce: [u8; NONCE_LEN]) {
            prop_assume!(nonce != NONCE.0);
            let probe = encode(Nonce(nonce), ProbeId { target: 1, len: 1200, attempt: 0 });
            prop_assert_eq!(decode(NONCE, &answer(&probe)), None);
        }

        #[test]
        fn junk_is_no_answer(junk: Vec<u8>) {
            prop_assert_eq!(decode(NONCE, &junk), None);
        }

        #[test]
        fn a_cut_or_damaged_answer_does_no_harm(
            cut in 0_usize..60, place in 0_usize..60, value: u8,
        ) {
            let mut answer = answer(&encode(NONCE, ProbeId { target: 1, len: 1500, attempt: 0 }));
            if let Some(byte) = answer.get_mut(place) {
                *byte = value;
            }
            answer.truncate(cut);
            let _either = decode(NONCE, &answer);
        }
    }

    #[test]
    fn a_probe_is_no_answer() {
        assert_eq!(
            decode(NONCE, &encode(NONCE, ProbeId { target: 0, len: 1200, attempt: 0 })),
            None
        );
    }

    #[test]
    fn a_probe_that_nobody_would_answer_is_made_longer() {
        assert_eq!(encode(NONCE, ProbeId { target: 0, len: 10, attempt: 0 }).len(), 1200);
    }
}
