//! Which cipher seals records and packets, and whose implementation of it.

use rustls::{
    SupportedCipherSuite,
    crypto::{aws_lc_rs, ring},
};

/// The cipher suites of a provider, the one that a client likes best first.
///
/// That is AES-128-GCM, which costs a quarter less than AES-256-GCM and is as good against everybody
/// who cannot try 2^128 keys; quantum computers cannot, either (NIST's category 1).
pub(super) fn cipher_suites() -> Vec<SupportedCipherSuite> {
    let aes_gcm = if ring_is_faster() {
        use ring::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384};
        [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384]
    } else {
        use aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384};
        [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384]
    };
    let is_other = |suite: &SupportedCipherSuite| {
        aes_gcm.iter().all(|aes_gcm| aes_gcm.suite() != suite.suite())
    };
    let all = aws_lc_rs::DEFAULT_CIPHER_SUITES.iter().copied();

    aes_gcm.into_iter().chain(all.filter(is_other)).collect()
}

/// Whether the processor has the vector instructions for AES in the width for which only *ring* has
/// code, as those of most laptops have; the wider ones *aws-lc* uses as well.
fn ring_is_faster() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        has!("vaes") && has!("vpclmulqdq") && has!("avx2") && !has!("avx512f")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(test)]
mod tests {
    use rustls::CipherSuite;

    use super::*;

    #[test]
    fn each_cipher_suite_is_there_once_and_aes_128_first() {
        let names = |suites: &[SupportedCipherSuite]| -> Vec<u16> {
            suites.iter().map(|suite| suite.suite().into()).collect()
        };
        let mut preferred = names(&cipher_suites());
        assert_eq!(preferred[0], u16::from(CipherSuite::TLS13_AES_128_GCM_SHA256));
        let mut all = names(aws_lc_rs::DEFAULT_CIPHER_SUITES);
        preferred.sort_unstable();
        all.sort_unstable();
        assert_eq!(preferred, all);
    }
}
