use rcgen::{CertifiedKey, generate_simple_self_signed};
use sha2::{Digest as _, Sha256};

use crate::pair::Side;

/// A key and a certificate that it signed itself, for tunnels that want certificates.
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
    /// SHA-256 of the certificate.
    pub(super) fingerprint: Vec<u8>,
}

impl Identity {
    /// Makes one for an end of the tunnel, valid for its address.
    pub(super) fn new(side: &Side<'_>) -> Self {
        let names = vec![side.outer.to_string()];
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(names).expect("an address is a valid name");

        Self {
            certificate: cert.pem(),
            key: signing_key.serialize_pem(),
            fingerprint: Sha256::digest(cert.der()).to_vec(),
        }
    }

    /// Returns the fingerprint in hexadecimal, with this between two bytes.
    pub(super) fn fingerprint(&self, separator: &str) -> String {
        let bytes = self.fingerprint.iter().map(|byte| format!("{byte:02x}"));
        bytes.collect::<Vec<_>>().join(separator)
    }
}
