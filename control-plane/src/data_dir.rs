//! The folder that holds all that must outlive the process.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use adit_proto::Pin;
use anyhow::{Context as _, bail};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use tracing::info;

/// A folder of which this process alone has the use.
#[derive(Debug)]
pub(crate) struct DataDir {
    folder: PathBuf,
    _lock: File,
}

/// The HTTPS certificate, ready for use.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) pin: Pin,
}

impl DataDir {
    /// Makes the folder when there is none, and takes it for this process.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let shown = folder.display();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(|| {
            format!("failed to make {shown}; choose a folder that can be written with --data-dir")
        })?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(folder.join("lock"))
            .with_context(|| format!("failed to write to {shown}; check owner and permissions"))?;
        match lock.try_lock() {
            Ok(()) => {
                // SQLite gives its other files the mode of this one.
                let mut open = OpenOptions::new();
                open.create(true).truncate(false).write(true).mode(0o600);
                open.open(database(folder)).with_context(|| {
                    format!("failed to write to {shown}; check owner, permissions and disk")
                })?;
                Ok(Self { folder: folder.to_owned(), _lock: lock })
            }
            Err(TryLockError::WouldBlock) => {
                bail!("{shown} is in use; stop the other adit-control or choose another folder")
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("failed to lock {shown}"))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn database(&self) -> PathBuf {
        database(&self.folder)
    }

    pub(crate) fn organisation_key(&self) -> PathBuf {
        self.folder.join("organisation-key")
    }

    pub(crate) fn sealing_key(&self) -> PathBuf {
        self.folder.join("sealing-key")
    }

    pub(crate) fn admin_token(&self) -> PathBuf {
        admin_token_file(&self.folder)
    }

    pub(crate) fn audit_head(&self) -> PathBuf {
        audit_head(&self.folder)
    }

    pub(crate) fn certificate_file(&self) -> PathBuf {
        certificate_file(&self.folder)
    }

    fn key_file(&self) -> PathBuf {
        self.folder.join("tls-key.pem")
    }

    /// Writes a secret so that a crash leaves the whole file or none, and only its owner reads it.
    pub(crate) fn write_secret(&self, file: &Path, content: &str) -> io::Result<()> {
        let aside = file.with_extension("new");
        let _ = fs::remove_file(&aside);
        let mut open = OpenOptions::new();
        let mut written = open.write(true).create_new(true).mode(0o600).open(&aside)?;
        written.write_all(content.as_bytes())?;
        written.sync_all()?;
        fs::rename(&aside, file)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Says where the server is found on this machine, for commands that are given the folder.
    pub(crate) fn write_local_url(&self, address: SocketAddr) -> anyhow::Result<()> {
        let ip = match address.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let url = format!("https://{}\n", SocketAddr::new(ip, address.port()));
        let file = local_url_file(&self.folder);
        self.write_secret(&file, &url)
            .with_context(|| format!("failed to write {}; is the disk full?", file.display()))
    }

    /// The certificate in the folder; made for the host of `public_url` when there is none.
    pub(crate) fn certificate(&self, public_url: &str) -> anyhow::Result<Certificate> {
        let (cert_file, key_file) = (self.certificate_file(), self.key_file());
        if !cert_file.exists() {
            // The certificate comes last: where it is, its key is.
            let (cert, key) = make_certificate(public_url).context("failed to make certificate")?;
            self.write_secret(&key_file, &key)
                .and_then(|()| self.write_secret(&cert_file, &cert))
                .context("failed to write the certificate; is the disk full?")?;
            info!(file = %cert_file.display(), "Made the HTTPS certificate");
        }
        load_certificate(&cert_file, &key_file).with_context(|| {
            format!(
                "failed to use {} with {}; delete both to have new ones made, after which clients \
                 and connectors must join anew",
                cert_file.display(),
                key_file.display()
            )
        })
    }
}

/// Where the database of a folder is.
pub(crate) fn database(folder: &Path) -> PathBuf {
    folder.join("adit.db")
}

/// Where the last signed head of the audit log is, in a data directory.
pub(crate) fn audit_head(folder: &Path) -> PathBuf {
    folder.join("audit-head")
}

/// Where the first administrator's token of a folder is.
pub(crate) fn admin_token_file(folder: &Path) -> PathBuf {
    folder.join("admin-token")
}

/// Where the HTTPS certificate of a folder is.
pub(crate) fn certificate_file(folder: &Path) -> PathBuf {
    folder.join("tls-cert.pem")
}

/// Where it stands under which URL the control plane of a folder is found on its own machine.
pub(crate) fn local_url_file(folder: &Path) -> PathBuf {
    folder.join("local-url")
}

fn make_certificate(public_url: &str) -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate()?;
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    for name in [host(public_url), hostname()].into_iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Adit control plane");
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn host(url: &str) -> Option<String> {
    let url: axum::http::Uri = url.parse().ok()?;
    let host = url.host()?;
    Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

/// The name of this machine, when it is one that a certificate can bear.
pub(crate) fn hostname() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let is_name = !name.is_empty()
        && name.parse::<IpAddr>().is_err()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    is_name.then(|| name.to_owned())
}

fn load_certificate(cert_file: &Path, key_file: &Path) -> anyhow::Result<Certificate> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert_file)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key_file)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let certified = CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider)?;
    let spki = certified.key.public_key().context("the key has no public half")?;
    let pin = Pin::from_spki(&spki);

    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Certificate { tls: Arc::new(tls), pin })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_serves_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = DataDir::open(folder.path()).unwrap();
        assert!(DataDir::open(folder.path()).unwrap_err().to_string().contains("is in use"));
        drop(held);
        DataDir::open(folder.path()).unwrap();
    }

    #[test]
    fn the_certificate_and_its_pin_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path()).unwrap();
        let made = data_dir.certificate("https://control.example:8443").unwrap();
        let loaded = data_dir.certificate("https://other.example").unwrap();
        assert_eq!(made.pin, loaded.pin);
        let mode = fs::metadata(data_dir.key_file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_host_of_a_url_is_bare() {
        assert_eq!(host("https://[fd00::1]:8443").as_deref(), Some("fd00::1"));
        assert_eq!(host("https://c.example").as_deref(), Some("c.example"));
    }
}
