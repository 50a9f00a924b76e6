//! The outside of a WireGuard message: what can be told before any key is touched.

use super::DropReason;

/// What sealing adds to a packet.
pub const DATA_OVERHEAD: usize = 32;

/// The longest payload of UDP over IPv6 without jumbograms; IPv4 has less.
pub(super) const MAX_DATAGRAM_LEN: usize = 65_527;

/// What boringtun wants of a destination buffer at least: the length of an initiation.
pub(super) const MIN_BUFFER_LEN: usize = INITIATION_LEN;

pub(super) const INITIATION_LEN: usize = 148;
const RESPONSE_LEN: usize = 92;
const COOKIE_REPLY_LEN: usize = 64;

/// WireGuard whitepaper §6.5. boringtun's replay window would overflow past it.
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// A message by its type, with the index of its receiver where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    Initiation,
    Response { receiver: u32 },
    CookieReply { receiver: u32 },
    Data { receiver: u32 },
}

impl Message {
    pub(super) fn try_parse(datagram: &[u8]) -> Result<Self, DropReason> {
        if datagram.len() > MAX_DATAGRAM_LEN {
            return Err(DropReason::Oversize);
        }
        let (kind, rest) = datagram.split_first_chunk::<4>().ok_or(DropReason::Malformed)?;
        let (first, rest) = rest.split_first_chunk::<4>().ok_or(DropReason::Malformed)?;
        match (kind, datagram.len()) {
            ([1, 0, 0, 0], INITIATION_LEN) => Ok(Self::Initiation),
            ([2, 0, 0, 0], RESPONSE_LEN) => {
                let receiver = rest.first_chunk().ok_or(DropReason::Malformed)?;
                Ok(Self::Response { receiver: u32::from_le_bytes(*receiver) })
            }
            ([3, 0, 0, 0], COOKIE_REPLY_LEN) => {
                Ok(Self::CookieReply { receiver: u32::from_le_bytes(*first) })
            }
            ([4, 0, 0, 0], DATA_OVERHEAD..) => {
                let counter = rest.first_chunk().ok_or(DropReason::Malformed)?;
                if u64::from_le_bytes(*counter) >= REJECT_AFTER_MESSAGES {
                    return Err(DropReason::CounterExhausted);
                }
                Ok(Self::Data { receiver: u32::from_le_bytes(*first) })
            }
            _ => Err(DropReason::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(counter: u64) -> Vec<u8> {
        let mut datagram = vec![4, 0, 0, 0, 7, 0, 0, 0];
        datagram.extend_from_slice(&counter.to_le_bytes());
        datagram.resize(32, 0);
        datagram
    }

    #[test]
    fn counters_end_at_the_limit_of_the_protocol() {
        let last = u64::MAX - (1 << 13) - 1;
        assert_eq!(Message::try_parse(&data(last)), Ok(Message::Data { receiver: 7 }));
        for counter in [last + 1, u64::MAX - 1, u64::MAX] {
            assert_eq!(Message::try_parse(&data(counter)), Err(DropReason::CounterExhausted));
        }
    }

    #[test]
    fn a_type_with_the_length_of_another_is_malformed() {
        for kind in 0..=5 {
            for len in [0, 1, 4, 8, 31, 63, 65, 91, 93, 147, 149] {
                let mut datagram = vec![0; len];
                if let Some(first) = datagram.first_mut() {
                    *first = kind;
                }
                let is_data = kind == 4 && len >= 32;
                assert_eq!(Message::try_parse(&datagram).is_ok(), is_data, "{kind} {len}");
            }
        }
    }

    #[test]
    fn nothing_longer_than_a_datagram_is_parsed() {
        let mut datagram = data(0);
        datagram.resize(MAX_DATAGRAM_LEN + 1, 0);
        assert_eq!(Message::try_parse(&datagram), Err(DropReason::Oversize));
    }
}
