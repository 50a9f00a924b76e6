use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};

use super::{ControlPlane, READY_TIMEOUT};
use crate::{Host, Process, node_package};

/// The certified `oidc-provider`, and its registration at a control plane.
pub struct IdentityProvider {
    host: Host,
    process: Process,
    issuer: String,
}

/// A certificate for a provider at an address, and its key.
#[derive(Debug, Clone)]
pub struct ProviderCertificate {
    /// PEM; for whoever is to trust it.
    pub certificate: PathBuf,
    key: PathBuf,
    ip: String,
}

impl ProviderCertificate {
    /// Makes one on a host.
    #[must_use]
    #[track_caller]
    pub fn make(host: &Host, ip: &str) -> Self {
        let (certificate, key) = (host.dir().join("idp-cert.pem"), host.dir().join("idp-key.pem"));
        host.command("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "2", "-subj", "/CN=idp", "-addext"])
            .arg(format!("subjectAltName=IP:{ip}"))
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .check();

        Self { certificate, key, ip: ip.to_owned() }
    }
}

impl IdentityProvider {
    /// Starts it on a host, and registers it.
    #[must_use]
    #[track_caller]
    pub fn start(
        host: &Host,
        certificate: &ProviderCertificate,
        control_plane: &ControlPlane,
    ) -> Self {
        let secret = "a secret of the tests";
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/oidc_provider.mjs");
        let groups = host.write("idp-groups.json", "{}");
        let process = host
            .command("node")
            .arg(script)
            .arg(node_package("oidc-provider"))
            .arg(&certificate.ip)
            .args([&certificate.certificate, &certificate.key])
            .args([&format!("{}/sign-in/callback", control_plane.url()), secret])
            .arg(groups)
            .spawn();
        let listening = process.wait_for_event("listening", READY_TIMEOUT);
        let issuer = listening["issuer"].as_str().expect("the provider says it").to_owned();
        let body = json!({
            "name": "Staff", "issuer": issuer, "client_id": "adit-control",
            "client_secret": secret, "groups_claim": "groups", "scopes": ["profile", "groups"],
        });
        let created = control_plane.post("/v1/identity-providers", &body).ok();
        assert_eq!(created["redirect_uri"], format!("{}/sign-in/callback", control_plane.url()));

        Self { host: host.clone(), process, issuer }
    }

    /// Returns its issuer URL.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Returns the running program.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Says in which groups a user is, from the next sign-in on.
    #[track_caller]
    pub fn set_groups(&self, user: &str, groups: &[&str]) {
        let groups: Value = json!({ user: groups });
        self.host.write("idp-groups.json", groups.to_string());
    }
}

/// A browser as far as these forms need one: it follows redirects, keeps cookies, and fills in what
/// it is shown.
pub struct Browser {
    host: Host,
    jar: PathBuf,
}

impl Browser {
    /// A fresh one on a host.
    #[must_use]
    #[track_caller]
    pub fn new(host: &Host, name: &str) -> Self {
        Self { host: host.clone(), jar: host.dir().join(format!("{name}-cookies")) }
    }

    /// Opens the page that `adit login` shows, chooses the provider, logs in there, and returns the
    /// last page.
    #[track_caller]
    pub fn sign_in(&self, control_plane: &ControlPlane, code: &str, user: &str) -> String {
        let origin = control_plane.url();
        let page = self.fetch(&format!("{origin}/sign-in?user_code={code}"), &[]);
        let provider = attribute(&page.body, "name=\"identity_provider_id\" value");
        let choice = format!("identity_provider_id={provider}");
        let user_code = format!("user_code={code}");
        let url = format!("{origin}/sign-in");
        let origin = format!("Origin: {origin}");
        let leave =
            self.fetch(&url, &["--header", &origin, "--data", &user_code, "--data", &choice]);
        let mut page = self.fetch(&attribute(&leave.body, "href"), &[]);
        // The provider asks for name and password, and then for consent; or for neither.
        for _ in 0..3 {
            if !page.body.contains("name=\"prompt\"") {
                break;
            }
            let action = attribute(&page.body, "action");
            let action = match action.strip_prefix('/') {
                Some(path) => {
                    let host: Vec<_> = page.url.splitn(4, '/').take(3).collect();
                    format!("{}/{path}", host.join("/"))
                }
                None => action,
            };
            let prompt = attribute(&page.body, "name=\"prompt\" value");
            let (prompt, login) = (format!("prompt={prompt}"), format!("login={user}"));
            page = self
                .fetch(&action, &["--data", &prompt, "--data", &login, "--data", "password=any"]);
        }

        page.body
    }

    #[track_caller]
    fn fetch(&self, url: &str, args: &[&str]) -> Page {
        const MARK: &str = "\nCAME TO ";

        let output = self
            .host
            .command("curl")
            .args(["--silent", "--show-error", "--insecure", "--location", "--max-time", "15"])
            .args(["--write-out", &format!("{MARK}%{{url_effective}}"), "--cookie-jar"])
            .arg(&self.jar)
            .arg("--cookie")
            .arg(&self.jar)
            .args(args)
            .arg(url)
            .timeout(Duration::from_secs(30))
            .run();
        assert!(output.success(), "{url}: {output:#?}");
        let (body, url) = output.stdout.rsplit_once(MARK).expect("curl was told to say it");

        Page { url: url.to_owned(), body: body.to_owned() }
    }
}

struct Page {
    url: String,
    body: String,
}

/// The value of the first attribute of this name.
#[track_caller]
fn attribute(html: &str, name: &str) -> String {
    let value = html.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
    value.unwrap_or_else(|| panic!("no {name} in {html}")).replace("&amp;", "&")
}
