//! A person signs in, stays so for a while, and signs out.

use std::{net::SocketAddr, time::Duration};

use adit_tests::{
    Client, ControlPlane, Lab, Scene,
    lab::{Browser, IdentityProvider, ProviderCertificate, READY_TIMEOUT, SVC_V4},
    probe, report, wait_until,
};
use serde_json::{Value, json};

#[test]
fn whom_an_administrator_lets_in_connects_renews_without_a_cut_and_is_cut_by_signing_out() {
    let scene = Scene::new("sign-in");
    let (lab, control_plane) = (&scene.lab, &scene.control_plane);
    let pacer = lab.svc.tcp_pacer(SVC_V4);
    let user = user_of(&scene, pacer.address);
    let client = Client::start(&lab.laptop);
    let unknown = client.adit(&["login", "--no-browser"]);
    assert!(!unknown.success() && unknown.stderr.contains("adit login https://"), "{unknown:#?}");
    // The certificate is the control plane's own: without its pin nobody vouches for it.
    let untrusted = client.adit(&["login", "--no-browser", control_plane.url()]);
    assert!(!untrusted.success() && untrusted.stderr.contains("#PIN"), "{untrusted:#?}");

    client.log_in(&[&control_plane.login_url()], control_plane, &user);
    client.up();
    let first = session_of(&scene, &user);
    let download = client.host().tcp_download(pacer.address, Duration::from_millis(10));
    probe::downloaded(&download, 100 << 10, READY_TIMEOUT);

    client.log_in(&[], control_plane, &user);
    let second = session_of(&scene, &user);
    assert_ne!(first["id"], second["id"]);
    assert_eq!(first["device_id"], second["device_id"]);
    let device = second["device_id"].as_str().unwrap_or_default().to_owned();
    // The fresh credential has come to the connector, and nothing was cut.
    wait_until("the connector sees the new sign-in", READY_TIMEOUT, || {
        let seen = control_plane.get(&format!("/v1/devices/{device}")).ok();
        (seen["last_seen_at"].as_str() > second["authenticated_at"].as_str()).then_some(())
    });
    probe::downloaded(&download, 400 << 10, READY_TIMEOUT);

    let output = client.adit(&["logout"]);
    assert!(output.success(), "{output:#?}");
    let answered = adit_tests::monotonic_ns();
    wait_until("the client says what is wrong", READY_TIMEOUT, || {
        (client.status()["problem"]["code"] == "session-expired").then_some(())
    });
    let up = client.adit(&["up"]);
    assert!(!up.success() && up.stderr.contains("adit login"), "{up:#?}");
    // The client has left the tunnel by itself, so that nobody tells the download of its end.
    wait_until("nothing has come for a second", READY_TIMEOUT, || {
        let silent_ns = adit_tests::monotonic_ns() - probe::last_progress(&download);
        (silent_ns > 1_000_000_000).then_some(())
    });
    let cut = Duration::from_nanos(probe::last_progress(&download).saturating_sub(answered));
    report(&json!({ "what": "signed out: last byte of a live flow", "ms": cut.as_millis() }));
    assert!(cut < Duration::from_secs(1), "{cut:?}");
    let path = format!("/v1/devices/{device}");
    assert_eq!(control_plane.get(&path).ok()["state"], "approved");

    client.log_in(&[], control_plane, &user);
    client.wait_for_state("connected", READY_TIMEOUT);
    assert_eq!(session_of(&scene, &user)["device_id"], device.as_str());
}

#[test]
fn a_session_ends_by_itself_after_a_warning() {
    let scene = Scene::new("session-end");
    let (lab, control_plane) = (&scene.lab, &scene.control_plane);
    let pacer = lab.svc.tcp_pacer(SVC_V4);
    let user = user_of(&scene, pacer.address);
    control_plane.set_session_lifetime(Some(15));
    let client = Client::start(&lab.laptop);
    client.log_in(&[&control_plane.login_url()], control_plane, &user);
    client.up();
    let download = client.host().tcp_download(pacer.address, Duration::from_millis(10));
    probe::downloaded(&download, 10 << 10, READY_TIMEOUT);
    let warning = client.status()["warnings"].to_string();
    assert!(warning.contains("adit login"), "{warning}");

    let _ = probe::ended(&download, READY_TIMEOUT);
    wait_until("the client says what is wrong", READY_TIMEOUT, || {
        (client.status()["problem"]["code"] == "session-expired").then_some(())
    });

    control_plane.set_session_lifetime(None);
    client.log_in(&[], control_plane, &user);
    client.wait_for_state("connected", READY_TIMEOUT);
    assert_eq!(client.status()["session_ends_at"], Value::Null);
}

#[test]
fn a_denied_sign_in_enrols_nothing() {
    let scene = Scene::new("sign-in-denied");
    let control_plane = &scene.control_plane;
    let client = Client::start(&scene.lab.laptop);
    let (login, code) = client.begin_login(&[&control_plane.login_url()]);
    let path = "/v1/sign-ins";
    let found = control_plane.wait_for_item(path, READY_TIMEOUT, |it| it["user_code"] == *code);
    let id = found["id"].as_str().unwrap_or_default();
    let denied = control_plane.request("POST", &format!("{path}/{id}/deny"), &[], None);
    assert_eq!(denied.status, 200, "{denied:?}");

    let output = login.wait(READY_TIMEOUT);
    assert!(!output.success() && output.stderr.contains("denied"), "{output:#?}");
    assert_eq!(client.status()["device"], Value::Null);
}

/// A user who may reach a server.
fn user_of(scene: &Scene, server: SocketAddr) -> String {
    let port = server.port().to_string();
    let filters: [(&str, &[&str]); 1] = [("tcp", &[&port])];
    let control_plane = &scene.control_plane;
    let resource =
        control_plane.create_resource(&scene.site, "web", &[&format!("{SVC_V4}/32")], &filters);
    let user = control_plane.create_user("ada");
    control_plane.permit(&[&user], &[&resource]);

    user
}

fn session_of(scene: &Scene, user: &str) -> Value {
    let list = scene.control_plane.get(&format!("/v1/sessions?user_id={user}")).ok();
    list["items"][0].clone()
}

#[test]
fn a_user_of_a_certified_provider_signs_in_changes_groups_and_is_disabled() {
    let lab = Lab::new("oidc");
    let ip = "198.18.20.2";
    let certificate = ProviderCertificate::make(&lab.cp, ip);
    let trusted = Some(certificate.certificate.clone());
    let control_plane = ControlPlane::start_trusting(&lab.cp, ip, trusted);
    let scene = Scene::in_lab(lab, control_plane, "198.18.10.2");
    let (lab, control_plane) = (&scene.lab, &scene.control_plane);
    let provider = IdentityProvider::start(&lab.cp, &certificate, control_plane);
    provider.set_groups("ada", &["engineers"]);
    let (echo, pacer) = (lab.svc.tcp_echo(SVC_V4), lab.svc.tcp_pacer(SVC_V4));
    let resource =
        control_plane.create_resource(&scene.site, "web", &[&format!("{SVC_V4}/32")], &[]);
    let client = Client::start(&lab.laptop);
    let browser = Browser::new(&lab.laptop, "ada");

    // A first sign-in makes user, group and device.
    let (login, code) = client.begin_login(&[&control_plane.login_url()]);
    let page = browser.sign_in(control_plane, &code, "ada");
    assert!(page.contains("You may close this window"), "{page}\n{}", provider.process().output());
    let output = login.wait(READY_TIMEOUT);
    assert!(output.success(), "{output:#?}");
    let user = control_plane.get("/v1/users?name=ada").ok()["items"][0].clone();
    let user = user["id"].as_str().expect("the user was made").to_owned();
    let session = session_of(&scene, &user);
    assert!(session["identity_provider_id"].is_string(), "{session}");
    let group = control_plane.get("/v1/groups?name=engineers").ok()["items"][0].clone();
    control_plane.create_policy(
        "engineers",
        "permit",
        &json!({ "groups": [group["id"]] }),
        &json!({ "ids": [resource] }),
    );
    client.up();
    client.wait_until_reached(echo.address);
    let download = client.host().tcp_download(pacer.address, Duration::from_millis(10));
    probe::downloaded(&download, 100 << 10, READY_TIMEOUT);

    // Signing in anew, while the provider remembers the user, cuts nothing.
    let (login, code) = client.begin_login(&[]);
    let page = browser.sign_in(control_plane, &code, "ada");
    assert!(page.contains("You may close this window"), "{page}");
    assert!(login.wait(READY_TIMEOUT).success());
    assert_ne!(session_of(&scene, &user)["id"], session["id"]);
    probe::downloaded(&download, 300 << 10, READY_TIMEOUT);

    // Another person at the same provider does not take the device over.
    let (login, code) = client.begin_login(&[]);
    let page = Browser::new(&lab.laptop, "eve").sign_in(control_plane, &code, "eve");
    assert!(page.contains("belongs to another user"), "{page}");
    let output = login.wait(READY_TIMEOUT);
    assert!(!output.success() && output.stderr.contains("denied"), "{output:#?}");

    // Whoever has left the group at the provider loses what it permitted.
    provider.set_groups("ada", &[]);
    let (login, code) = client.begin_login(&[]);
    let _ = browser.sign_in(control_plane, &code, "ada");
    assert!(login.wait(READY_TIMEOUT).success());
    let _ = probe::ended(&download, READY_TIMEOUT);

    // A user who is disabled here stays out, whatever the provider says.
    let disabled = control_plane.set_user_disabled(&user, true);
    assert_eq!(disabled.status, 200, "{disabled:?}");
    let other = Client::start(&lab.laptop2);
    let (login, code) = other.begin_login(&[&control_plane.login_url()]);
    let page = Browser::new(&lab.laptop2, "ada").sign_in(control_plane, &code, "ada");
    assert!(page.contains("disabled"), "{page}");
    assert!(!login.wait(READY_TIMEOUT).success());
    let audit = control_plane.get("/v1/audit-events?limit=200").ok().to_string();
    assert_eq!(audit.matches("sign-in.refuse").count(), 2, "{audit}");
}
