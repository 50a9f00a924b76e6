use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use super::READY_TIMEOUT;
use crate::{Host, Process, binary, monotonic_ns, wait_until};

/// A running control plane and its REST API.
pub struct ControlPlane {
    host: Host,
    url: String,
    address: SocketAddr,
    data_dir: PathBuf,
    /// Certificates that it trusts in the machine's place.
    authorities: Option<PathBuf>,
    process: Process,
}

/// What the API answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Request, for messages.
    pub request: String,
    /// HTTP status.
    pub status: u16,
    /// Header names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// Body; null when there is none.
    pub body: Value,
    /// Monotonic clock before the request was sent.
    pub sent_ns: u64,
    /// Monotonic clock when the answer had arrived.
    pub answered_ns: u64,
}

impl Answer {
    /// Returns a header by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body of an answer that must be a success.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{self:#?}");

        self.body
    }

    /// Returns the `id` of the object in an answer that must be a success.
    #[must_use]
    #[track_caller]
    pub fn id(self) -> String {
        text(&self.ok(), "id")
    }
}

impl ControlPlane {
    /// Starts a control plane with an empty data directory at a port the kernel chooses.
    #[track_caller]
    pub fn start(host: &Host, ip: &str) -> Self {
        Self::start_trusting(host, ip, None)
    }

    /// As [`Self::start`]; the certificates in this file are all that it trusts.
    #[track_caller]
    pub fn start_trusting(host: &Host, ip: &str, authorities: Option<PathBuf>) -> Self {
        let data_dir = host.dir().join("control-plane");
        let port = free_port(host, ip);
        let ip: IpAddr = ip.parse().unwrap_or_else(|e| panic!("{ip}: {e}"));
        let address = SocketAddr::new(ip, port);
        let process = spawn(host, &data_dir, address, authorities.as_deref());
        let plane = Self {
            host: host.clone(),
            url: format!("https://{address}"),
            address,
            data_dir,
            authorities,
            process,
        };
        plane.wait_until_ready();

        plane
    }

    /// Returns the public URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns what `adit login` takes: the public URL with the pin of the certificate.
    #[must_use]
    #[track_caller]
    pub fn login_url(&self) -> String {
        let line = self.process.wait_for_line("login_url=", READY_TIMEOUT);
        let url = line.split("login_url=").nth(1).and_then(|rest| rest.split_whitespace().next());
        url.unwrap_or_else(|| panic!("no URL: {line}")).to_owned()
    }

    /// Returns the data directory, as seen on its host.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Returns the running program.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Starts the program again, with the same data, after [`Self::process`] was stopped.
    #[track_caller]
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(&self.host, &self.data_dir, self.address, self.authorities.as_deref());
        self.wait_until_ready();
    }

    #[track_caller]
    fn wait_until_ready(&self) {
        wait_until("the control plane is ready", READY_TIMEOUT, || {
            assert!(
                self.process.is_running(),
                "the control plane ended: {}",
                self.process.output()
            );
            let ready = self.curl().arg(format!("{}/readyz", self.url)).run();
            (ready.stdout.starts_with("HTTP/1.1 200")).then_some(())
        });
        let token = self.host.read(self.data_dir.join("admin-token"));
        self.host.write("api-headers", format!("Authorization: Bearer {}\n", token.trim()));
    }

    fn curl(&self) -> crate::Command {
        // The certificate is the control plane's own; the name in it is not what is tested here.
        self.host
            .command("curl")
            .args(["--silent", "--show-error", "--insecure", "--include", "--http1.1", "--globoff"])
            .args(["--max-time", "15"])
    }

    /// Sends a request as the admin. `headers` are whole lines.
    #[track_caller]
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: Option<&Value>,
    ) -> Answer {
        let mut command = self
            .curl()
            .args(["--request", method, "--header"])
            .arg(format!("@{}", self.host.dir().join("api-headers").display()));
        for header in headers {
            command = command.args(["--header", header]);
        }
        if let Some(body) = body {
            command = command
                .args(["--header", "Content-Type: application/json", "--data-binary", "@-"])
                .stdin(body.to_string());
        }
        let sent_ns = monotonic_ns();
        let output = command.arg(format!("{}{path}", self.url)).run();
        assert!(output.success(), "{method} {path}: {output:#?}");

        let (head, body) = output.stdout.split_once("\r\n\r\n").unwrap_or((&output.stdout, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();

        Answer {
            request: format!("{method} {path}"),
            status: status.unwrap_or_else(|| panic!("no HTTP answer: {output:#?}")),
            headers,
            body: serde_json::from_str(body).unwrap_or_else(|_| {
                if body.is_empty() { Value::Null } else { Value::String(body.to_owned()) }
            }),
            sent_ns,
            answered_ns: output.first_output_ns.unwrap_or(sent_ns),
        }
    }

    /// Reads an object or a list.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], None)
    }

    /// Creates an object, or runs an action.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, &[], Some(body))
    }

    /// Replaces an object, whatever version of it is there.
    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> Answer {
        let if_match = self.if_match(path);
        self.request("PUT", path, &[&if_match], Some(body))
    }

    /// Replaces an object by what `change` makes of it.
    #[track_caller]
    pub fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) -> Answer {
        let answer = self.get(path);
        let if_match = format!("If-Match: {}", etag(&answer));
        let mut body = answer.ok();
        if let Some(members) = body.as_object_mut() {
            // What cannot be written is not part of what is sent.
            for read_only in ["id", "created_at", "updated_at", "keys", "device_ranges"] {
                members.remove(read_only);
            }
        }
        change(&mut body);

        self.request("PUT", path, &[&if_match], Some(&body))
    }

    /// Removes an object, whatever version of it is there.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        let if_match = self.if_match(path);
        self.request("DELETE", path, &[&if_match], None)
    }

    #[track_caller]
    fn if_match(&self, path: &str) -> String {
        format!("If-Match: {}", etag(&self.get(path)))
    }

    /// Creates a user and returns its id.
    #[track_caller]
    pub fn create_user(&self, name: &str) -> String {
        self.post("/v1/users", &json!({ "name": name })).id()
    }

    /// Disables or enables a user.
    #[track_caller]
    pub fn set_user_disabled(&self, id: &str, disabled: bool) -> Answer {
        let path = format!("/v1/users/{id}");
        let user = self.get(&path);
        let if_match = format!("If-Match: {}", etag(&user));
        let user = user.ok();
        let body = json!({ "name": user["name"], "email": user["email"], "disabled": disabled });

        self.request("PUT", &path, &[&if_match], Some(&body))
    }

    /// Creates a group with members and returns its id.
    #[track_caller]
    pub fn create_group(&self, name: &str, users: &[&str]) -> String {
        let group = self.post("/v1/groups", &json!({ "name": name })).id();
        for user in users {
            let path = format!("/v1/groups/{group}/members/{user}");
            let _ = self.request("PUT", &path, &[], None).ok();
        }

        group
    }

    /// Creates a site and returns its id.
    #[track_caller]
    pub fn create_site(&self, name: &str) -> String {
        self.post("/v1/sites", &json!({ "name": name })).id()
    }

    /// Creates a token for one connector of a site and returns it.
    #[must_use]
    #[track_caller]
    pub fn create_connector_token(&self, site: &str) -> String {
        let path = format!("/v1/sites/{site}/connector-tokens");
        text(&self.post(&path, &json!({ "name": "connector" })).ok(), "token")
    }

    /// Creates a resource and returns its id. `filters` holds pairs of a protocol and its ports,
    /// such as `("tcp", &["80", "8000-8100"])`.
    #[track_caller]
    pub fn create_resource(
        &self,
        site: &str,
        name: &str,
        addresses: &[&str],
        filters: &[(&str, &[&str])],
    ) -> String {
        let filters: Vec<_> = filters
            .iter()
            .map(|(protocol, ports)| json!({ "protocol": protocol, "ports": ports }))
            .collect();
        let body = json!({
            "name": name, "site_id": site, "addresses": addresses, "filters": filters, "tags": [],
        });

        self.post("/v1/resources", &body).id()
    }

    /// Creates a policy and returns its id. `subjects` and `resources` are as in the API:
    /// `{"users": [..]}`, `{"everyone": true}`; `{"ids": [..]}`, `{"all": true}`.
    #[track_caller]
    pub fn create_policy(
        &self,
        name: &str,
        effect: &str,
        subjects: &Value,
        resources: &Value,
    ) -> String {
        let body = json!({
            "name": name, "effect": effect, "subjects": subjects, "resources": resources,
        });

        self.post("/v1/policies", &body).id()
    }

    /// Creates a policy that lets users reach resources and returns its id.
    #[track_caller]
    pub fn permit(&self, users: &[&str], resources: &[&str]) -> String {
        // Names are unique, and too short for many ids.
        let name = format!("permit {}", monotonic_ns());
        let (users, resources) = (json!({ "users": users }), json!({ "ids": resources }));

        self.create_policy(&name, "permit", &users, &resources)
    }

    /// Creates an enrolment key for one device of a user and returns it.
    #[must_use]
    #[track_caller]
    pub fn create_enrollment_key(&self, user: &str) -> String {
        let body = json!({ "name": "test", "user_id": user, "uses": 1, "approved": true });
        text(&self.post("/v1/enrollment-keys", &body).ok(), "key")
    }

    /// Signs a user in on the device that shows this code.
    #[track_caller]
    pub fn approve_sign_in(&self, user_code: &str, user: &str) -> Answer {
        let path = "/v1/sign-ins?state=pending";
        let sign_in = self.wait_for_item(path, READY_TIMEOUT, |it| it["user_code"] == user_code);
        let path = format!("/v1/sign-ins/{}/approve", text(&sign_in, "id"));
        self.post(&path, &json!({ "user_id": user }))
    }

    /// Sets how long users stay signed in from now on.
    #[track_caller]
    pub fn set_session_lifetime(&self, seconds: Option<u64>) {
        let answer = self.edit("/v1/organisation", |it| it["session_lifetime_s"] = json!(seconds));
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Returns the ids of a user's devices.
    #[must_use]
    #[track_caller]
    pub fn devices_of(&self, user: &str) -> Vec<String> {
        let devices = self.get("/v1/devices").ok();
        let items = devices["items"].as_array().cloned().unwrap_or_default();
        items
            .iter()
            .filter(|device| device["user_id"] == user)
            .map(|device| text(device, "id"))
            .collect()
    }

    /// Revokes a device.
    #[track_caller]
    pub fn revoke_device(&self, id: &str) -> Answer {
        self.request("POST", &format!("/v1/devices/{id}/revoke"), &[], None)
    }

    /// Waits until an object of a list satisfies `condition`, and returns it.
    #[track_caller]
    pub fn wait_for_item(
        &self,
        path: &str,
        timeout: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        wait_until(&format!("an item of {path}"), timeout, || {
            let list = self.get(path).ok();
            list["items"].as_array()?.iter().find(|item| condition(item)).cloned()
        })
    }
}

/// Returns the `ETag` of an answer that must be a success.
#[must_use]
#[track_caller]
pub fn etag(answer: &Answer) -> String {
    assert!((200..300).contains(&answer.status), "{answer:#?}");
    answer.header("etag").unwrap_or_else(|| panic!("no ETag: {answer:#?}")).to_owned()
}

#[track_caller]
fn text(object: &Value, field: &str) -> String {
    let value = object[field].as_str();
    value.unwrap_or_else(|| panic!("no {field} in {object}")).to_owned()
}

#[track_caller]
fn spawn(host: &Host, data_dir: &Path, address: SocketAddr, authorities: Option<&Path>) -> Process {
    let command = host
        .command(binary("adit-control"))
        .arg("serve")
        // Tests ask and fail more often than anybody should.
        .args(["--requests-per-address=1000000000", "--requests-per-token=1000000000"])
        .args(["--failures-per-address=1000000000", "--data-dir"])
        .arg(data_dir)
        .args(["--listen", &address.to_string()])
        .args(["--public-url", &format!("https://{address}")])
        .env("RUST_LOG", super::log_filter());
    match authorities {
        Some(file) => command.env("SSL_CERT_FILE", file).spawn(),
        None => command.spawn(),
    }
}

/// Returns a port nobody uses on a host that has only what the test starts on it.
#[track_caller]
pub(super) fn free_port(host: &Host, ip: &str) -> u16 {
    let server = host.tcp_echo(ip);
    // Dropped, it would end at some time, and so would its hold on the port.
    server.process.kill();
    server.address.port()
}
