//! What an endpoint says about itself, once, first on its control stream.

use std::collections::BTreeSet;

use crate::http3::{
    error::Http3Error,
    frame::SETTINGS,
    varint::{decode_varint, encode_varint},
};

const QPACK_MAX_TABLE_CAPACITY: u64 = 0x01;
const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
const QPACK_BLOCKED_STREAMS: u64 = 0x07;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
const H3_DATAGRAM: u64 = 0x33;

/// The settings of an endpoint (RFC 9114 §7.2.4). The default is what holds for one that sends none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Whether extended CONNECT is understood (RFC 9220 §3).
    pub enable_connect_protocol: bool,
    /// Whether HTTP datagrams are understood (RFC 9297 §2.1.1).
    pub datagrams: bool,
    /// Longest field section that is accepted, in bytes and with 32 more for each field (RFC 9114
    /// §4.2.2); none when there is no limit.
    pub max_field_section_len: Option<u64>,
    /// Greatest capacity of the peer's dynamic table, in bytes (RFC 9204 §5).
    pub qpack_max_table_capacity: u64,
    /// How many streams may wait for the dynamic table (RFC 9204 §5).
    pub qpack_blocked_streams: u64,
}

impl Settings {
    /// Appends a whole SETTINGS frame (RFC 9114 §7.2.4). Settings with default values are left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        let values = [
            (QPACK_MAX_TABLE_CAPACITY, self.qpack_max_table_capacity, 0),
            (QPACK_BLOCKED_STREAMS, self.qpack_blocked_streams, 0),
            (ENABLE_CONNECT_PROTOCOL, self.enable_connect_protocol.into(), 0),
            (H3_DATAGRAM, self.datagrams.into(), 0),
            (MAX_FIELD_SECTION_SIZE, self.max_field_section_len.unwrap_or(u64::MAX), u64::MAX),
        ];
        for (setting, value, default) in values {
            if value != default {
                encode_varint(setting, &mut payload);
                encode_varint(value, &mut payload);
            }
        }
        encode_varint(SETTINGS, out);
        encode_varint(payload.len() as u64, out);
        out.extend_from_slice(&payload);
    }

    /// Reads the payload of a SETTINGS frame (RFC 9114 §7.2.4). Unknown settings are ignored.
    ///
    /// # Errors
    ///
    /// When the payload is cut, a setting occurs twice or is reserved (RFC 9114 §7.2.4.1), or what
    /// should be a boolean is neither 0 nor 1.
    pub fn decode(payload: &[u8]) -> Result<Self, Http3Error> {
        let mut settings = Self::default();
        let mut seen = BTreeSet::new();
        let mut rest = payload;
        while !rest.is_empty() {
            let setting = take_varint(&mut rest)?;
            let value = take_varint(&mut rest)?;
            if !seen.insert(setting) {
                return Err(Http3Error::SettingTwice { setting });
            }
            let boolean = || match value {
                0 => Ok(false),
                1 => Ok(true),
                2.. => Err(Http3Error::SettingValue { setting }),
            };
            match setting {
                QPACK_MAX_TABLE_CAPACITY => settings.qpack_max_table_capacity = value,
                MAX_FIELD_SECTION_SIZE => settings.max_field_section_len = Some(value),
                QPACK_BLOCKED_STREAMS => settings.qpack_blocked_streams = value,
                ENABLE_CONNECT_PROTOCOL => settings.enable_connect_protocol = boolean()?,
                H3_DATAGRAM => settings.datagrams = boolean()?,
                0x00 | 0x02..=0x05 => return Err(Http3Error::SettingReserved { setting }),
                _ => {}
            }
        }
        Ok(settings)
    }
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, Http3Error> {
    let (value, len) =
        decode_varint(rest).ok_or(Http3Error::FramePayload { frame_type: SETTINGS })?;
    *rest = &rest[len..];
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http3::{code::Http3Code, varint::MAX_VARINT};

    fn payload(settings: &[(u64, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (setting, value) in settings {
            encode_varint(*setting, &mut out);
            encode_varint(*value, &mut out);
        }
        out
    }

    fn error_code(settings: &[(u64, u64)]) -> Http3Code {
        Settings::decode(&payload(settings)).unwrap_err().code()
    }

    #[test]
    fn unknown_settings_are_ignored() {
        let settings = Settings::decode(&payload(&[(0x21, 7), (0x33, 1), (0x2b60, 9)])).unwrap();
        assert_eq!(settings, Settings { datagrams: true, ..Settings::default() });
    }

    #[test]
    fn a_setting_must_not_occur_twice() {
        assert_eq!(error_code(&[(0x33, 1), (0x33, 1)]), Http3Code::SettingsError);
        assert_eq!(error_code(&[(0x21, 1), (0x21, 2)]), Http3Code::SettingsError);
    }

    #[test]
    fn settings_of_http2_are_refused() {
        for setting in [0, 2, 3, 4, 5] {
            assert_eq!(error_code(&[(setting, 0)]), Http3Code::SettingsError);
        }
    }

    #[test]
    fn a_boolean_is_zero_or_one() {
        assert_eq!(error_code(&[(ENABLE_CONNECT_PROTOCOL, 2)]), Http3Code::SettingsError);
        assert_eq!(error_code(&[(H3_DATAGRAM, MAX_VARINT)]), Http3Code::SettingsError);
    }

    #[test]
    fn a_cut_payload_is_a_frame_error() {
        let whole = payload(&[(0x33, 1)]);
        let error = Settings::decode(&whole[..whole.len() - 1]).unwrap_err();
        assert_eq!(error.code(), Http3Code::FrameError);
    }

    proptest! {
        #[test]
        fn settings_survive_a_round_trip(
            enable_connect_protocol: bool,
            datagrams: bool,
            max_field_section_len in proptest::option::of(0..=MAX_VARINT),
            qpack_max_table_capacity in 0..=MAX_VARINT,
            qpack_blocked_streams in 0..=MAX_VARINT,
        ) {
            let settings = Settings {
                enable_connect_protocol,
                datagrams,
                max_field_section_len,
                qpack_max_table_capacity,
                qpack_blocked_streams,
            };
            let mut frame = Vec::new();
            settings.encode(&mut frame);
            let (frame_type, type_len) = decode_varint(&frame).unwrap();
            let (len, len_len) = decode_varint(&frame[type_len..]).unwrap();
            let payload = &frame[type_len + len_len..];
            prop_assert_eq!((frame_type, len), (SETTINGS, payload.len() as u64));
            prop_assert_eq!(Settings::decode(payload).unwrap(), settings);
        }

        #[test]
        fn any_payload_is_survived(payload: Vec<u8>) {
            drop(Settings::decode(&payload));
        }
    }
}
