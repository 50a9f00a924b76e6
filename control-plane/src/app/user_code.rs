//! Codes that people type (RFC 8628 §6.1).

use crate::{app::random, error::ApiError};

/// The letters that RFC 8628 §6.1 recommends: upper case, no vowels that would make words.
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// 20^8 codes: 34 bits, of which a thousand are good at a time.
const LEN: usize = 8;

/// A random code: `WDJB-MJHT`.
pub(crate) fn draw() -> Result<String, ApiError> {
    // The largest multiple of the alphabet's length, so that no letter is likelier than another.
    const FAIR: u8 = 240;
    let mut code = String::with_capacity(LEN);
    while code.len() < LEN {
        let mut bytes = [0; LEN];
        random::fill(&mut bytes)?;
        let letters = bytes
            .iter()
            .filter(|byte| **byte < FAIR)
            .filter_map(|byte| ALPHABET.get(usize::from(*byte) % ALPHABET.len()))
            .map(|letter| char::from(*letter));
        code.extend(letters.take(LEN - code.len()));
    }
    Ok(hyphenated(&code))
}

/// What a person has typed, in any case, with or without hyphens and spaces.
pub(crate) fn parse(typed: &str) -> Option<String> {
    if typed.len() > 4 * LEN {
        return None;
    }
    let is_letter = |char: &char| !matches!(char, '-' | ' ');
    let code: String = typed.chars().filter(is_letter).map(|c| c.to_ascii_uppercase()).collect();
    let is_code = code.len() == LEN && code.bytes().all(|letter| ALPHABET.contains(&letter));
    is_code.then(|| hyphenated(&code))
}

fn hyphenated(code: &str) -> String {
    match code.split_at_checked(LEN / 2) {
        Some((one, other)) => format!("{one}-{other}"),
        None => code.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        for typed in ["WDJB-MJHT", "wdjbmjht", " wdjb mjht ", "W-D-J-B-MJHT"] {
            assert_eq!(parse(typed).as_deref(), Some("WDJB-MJHT"), "{typed}");
        }
        for typed in ["", "WDJB-MJH", "WDJB-MJHTT", "WDJB-MJHA", "WDJB-MJH1", "ſDJB-MJHT"] {
            assert_eq!(parse(typed), None, "{typed}");
        }
    }

    #[test]
    fn a_drawn_code_is_one_and_has_any_letter() {
        let mut letters = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let code = draw().unwrap();
            assert_eq!(parse(&code), Some(code.clone()));
            letters.extend(code.bytes());
        }
        assert_eq!(letters.len(), ALPHABET.len() + "-".len());
    }
}
