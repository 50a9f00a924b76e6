//! TLS 1.3 between parts that know each other by the pin of their public key.
//!
//! There is no certificate authority: a certificate only carries a key. Its names, dates and
//! issuer decide nothing; the pin does, and the handshake's signature proves possession of the key.

mod cipher_suites;

use std::{error::Error, fmt, io, sync::Arc};

use adit_proto::Pin;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName,
    OtherError, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, kx_group},
        verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::SingleCertAndKey,
};

use rustls_platform_verifier::BuilderVerifierExt as _;

use crate::identity::KeyPair;

/// For a client that trusts the server with this pin and no other, and shows its own certificate
/// when it has an identity.
///
/// With an identity it speaks to a part of Adit, and then exchanges keys by the hybrid of X25519 and
/// ML-KEM-768 alone: what is recorded today stays secret from a quantum computer of later years.
pub fn client_config(pin: Pin, identity: Option<&KeyPair>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut provider = provider();
    if identity.is_some() {
        provider.kx_groups = vec![kx_group::X25519MLKEM768];
    }
    let provider = Arc::new(provider);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has cipher suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedServer { pin, provider }));
    let mut config = match identity {
        Some(identity) => builder
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key()))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // A resumed session would not show its certificate again.
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// For a client that trusts whomever this machine's certificate authorities vouch for.
pub(crate) fn public_client_config(alpn: &[&[u8]]) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_platform_verifier()?
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// For a server that demands a certificate of each client: any one, as the caller decides by
/// [`peer_pin`].
pub fn server_config(identity: &KeyPair, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let provider = Arc::new(provider());
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has cipher suites of TLS 1.3")
        .with_client_cert_verifier(Arc::new(AnyClient { provider }))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// The pin of the certificate that the peer has shown, when the handshake is complete.
pub fn peer_pin(connection: &CommonState) -> Option<Pin> {
    pin_of(connection.peer_certificates()?.first()?).ok()
}

/// Whether a pin that did not match is at the bottom of an error.
pub fn is_pin_mismatch(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) =
            error.downcast_ref::<rustls::Error>()
        {
            return other.0.is::<PinMismatch>();
        }
        // The source of an I/O error is that of the error inside, which is thereby left out.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if inside.is_some_and(|inside| is_pin_mismatch(inside)) {
            return true;
        }
        next = error.source();
    }
    false
}

/// The cryptography of TLS, whatever the process's default, with the hybrid key exchange before the
/// classical ones that others may need.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: cipher_suites::cipher_suites(),
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// The certificate shown is of another key than the one that is trusted.
#[derive(Debug, thiserror::Error)]
#[error("certificate does not match the pin")]
struct PinMismatch;

pub(crate) fn pin_of(certificate: &CertificateDer<'_>) -> Result<Pin, rustls::Error> {
    let spki = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    Ok(Pin::from_spki(&spki))
}

fn verify_signature(
    provider: &CryptoProvider,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    verify_tls13_signature(
        message,
        certificate,
        signature,
        &provider.signature_verification_algorithms,
    )
}

/// INVARIANT: both configurations allow TLS 1.3 alone.
fn refuse_tls12() -> rustls::Error {
    rustls::Error::General("TLS 1.2 is not spoken".to_owned())
}

struct PinnedServer {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for PinnedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedServer({})", self.pin)
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if pin_of(end_entity)? != self.pin {
            return Err(CertificateError::Other(OtherError(Arc::new(PinMismatch))).into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(&self.provider, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

struct AnyClient {
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for AnyClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyClient")
    }
}

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let _parsed = ParsedCertificate::try_from(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(&self.provider, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes records to and fro until neither side has any.
    fn shake(
        client: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
    ) -> (rustls::ServerConnection, Result<(), rustls::Error>, Result<(), rustls::Error>) {
        let name = ServerName::try_from("any.example").unwrap();
        let mut client = rustls::ClientConnection::new(Arc::clone(client), name).unwrap();
        let mut server = rustls::ServerConnection::new(Arc::clone(server)).unwrap();
        let (mut on_client, mut on_server) = (Ok(()), Ok(()));
        while client.wants_write() || server.wants_write() {
            let mut records = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut records).unwrap();
            }
            server.read_tls(&mut records.as_slice()).unwrap();
            on_server = on_server.and(server.process_new_packets().map(|_state| ()));
            let mut records = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut records).unwrap();
            }
            client.read_tls(&mut records.as_slice()).unwrap();
            on_client = on_client.and(client.process_new_packets().map(|_state| ()));
        }
        (server, on_client, on_server)
    }

    #[test]
    fn a_server_learns_the_pin_of_its_client() {
        let (client, server) = (KeyPair::try_generate().unwrap(), KeyPair::try_generate().unwrap());
        let (connection, on_client, on_server) = shake(
            &client_config(server.pin(), Some(&client), &[b"h2"]),
            &server_config(&server, &[b"h2"]),
        );
        on_client.unwrap();
        on_server.unwrap();
        assert_eq!(peer_pin(&connection), Some(client.pin()));
        assert_eq!(connection.alpn_protocol(), Some(b"h2".as_slice()));
    }

    #[test]
    fn keys_are_exchanged_by_the_hybrid_alone_between_parts_of_adit() {
        let (client, server) = (KeyPair::try_generate().unwrap(), KeyPair::try_generate().unwrap());
        let (connection, ..) =
            shake(&client_config(server.pin(), Some(&client), &[]), &server_config(&server, &[]));
        let group = connection.negotiated_key_exchange_group().map(|group| group.name());
        assert_eq!(group, Some(rustls::NamedGroup::X25519MLKEM768));

        let mut classical = ServerConfig::clone(&server_config(&server, &[]));
        let provider =
            CryptoProvider { kx_groups: vec![kx_group::X25519], ..aws_lc_rs::default_provider() };
        classical = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(classical.cert_resolver);
        let (_connection, on_client, on_server) =
            shake(&client_config(server.pin(), Some(&client), &[]), &Arc::new(classical));
        assert!(on_client.is_err() || on_server.is_err());
    }

    #[test]
    fn a_server_of_another_key_is_refused() {
        let (client, server) = (KeyPair::try_generate().unwrap(), KeyPair::try_generate().unwrap());
        let (connection, on_client, on_server) =
            shake(&client_config(client.pin(), Some(&client), &[]), &server_config(&server, &[]));
        let error = on_client.unwrap_err();
        assert!(is_pin_mismatch(&error), "{error}");
        assert!(is_pin_mismatch(&io::Error::new(io::ErrorKind::InvalidData, error)));
        let on_server = on_server.unwrap_err();
        assert!(matches!(on_server, rustls::Error::AlertReceived(_)), "{on_server}");
        assert!(!is_pin_mismatch(&on_server));
        assert_eq!(peer_pin(&connection), None);
    }

    #[test]
    fn a_client_without_a_certificate_is_refused() {
        let server = KeyPair::try_generate().unwrap();
        let (_connection, _on_client, on_server) =
            shake(&client_config(server.pin(), None, &[]), &server_config(&server, &[]));
        assert_eq!(on_server, Err(rustls::Error::NoCertificatesPresented));
    }

    #[test]
    fn a_certificate_without_its_private_key_proves_nothing() {
        let (victim, thief) = (KeyPair::try_generate().unwrap(), KeyPair::try_generate().unwrap());
        let server = KeyPair::try_generate().unwrap();
        let stolen = rustls::sign::CertifiedKey::new(
            vec![victim.certificate()],
            Arc::clone(&thief.certified_key().key),
        );
        let mut client = ClientConfig::clone(&client_config(server.pin(), None, &[]));
        client.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(stolen));
        let (_connection, _on_client, on_server) =
            shake(&Arc::new(client), &server_config(&server, &[]));
        let error = on_server.unwrap_err();
        assert!(
            matches!(error, rustls::Error::InvalidCertificate(CertificateError::BadSignature)),
            "{error}"
        );
    }

    #[test]
    fn tls_1_2_is_not_spoken() {
        let server = KeyPair::try_generate().unwrap();
        let old = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let (_connection, _on_client, on_server) =
            shake(&Arc::new(old), &server_config(&server, &[]));
        assert!(matches!(on_server, Err(rustls::Error::PeerIncompatible(_))));
    }
}
