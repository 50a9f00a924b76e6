//! Programs that others wrote, as people use them.

use std::{net::SocketAddr, time::Duration};

use adit_tests::{
    Host, Process, Scene,
    lab::{SVC_V4, SVC_V6},
    probe, report, wait_until,
};
use ipnet::IpNet;
use serde_json::json;

const READY: Duration = Duration::from_secs(15);

/// WireGuard makes new keys after 120 s (REKEY_AFTER_TIME), a little later when both sides could.
const REKEY_TIMEOUT: Duration = Duration::from_secs(140);

#[test]
fn a_plain_wireguard_device_has_its_rights_and_no_more_through_a_rekey() {
    let scene = Scene::new("wireguard-go");
    let (lab, control_plane) = (&scene.lab, &scene.control_plane);
    let user = control_plane.create_user("router");
    let permitted = lab.svc.tcp_echo(SVC_V4);
    let permitted_v6 = lab.svc.tcp_echo(SVC_V6);
    let pacer = lab.svc.tcp_pacer(SVC_V4);
    let denied = lab.svc.tcp_echo("10.9.0.3");
    let resources = [
        tcp_resource(&scene, "echo", permitted.address),
        tcp_resource(&scene, "echo-v6", permitted_v6.address),
        tcp_resource(&scene, "pacer", pacer.address),
    ];
    // On the same prefix, so that packets get as far as the connector.
    let denied_resource = tcp_resource(&scene, "denied", denied.address);
    control_plane.permit(&[&user], &resources.each_ref().map(String::as_str));
    let laptop = &lab.laptop;
    let private = laptop.check(["wg", "genkey"]);
    let public = laptop.command("wg").arg("pubkey").stdin(private.clone()).check();
    let device = control_plane
        .post(
            "/v1/devices",
            &json!({ "name": "router", "user_id": user, "wireguard_public_key": public.trim() }),
        )
        .id();
    let answer = control_plane.get(&format!("/v1/devices/{device}/wireguard-config"));
    let config = answer.ok().as_str().expect("a text").to_owned();
    assert!(config.contains("# PrivateKey = "), "{config}");
    let config = config
        .replace("# PrivateKey = ", &format!("PrivateKey = {}", private.trim()))
        .replace("AllowedIPs = ", "AllowedIPs = 10.9.0.3/32, ");

    laptop.wg_quick("wg-plain", &config);

    for server in [&permitted, &permitted_v6] {
        let answer = laptop.tcp_ask(server.address, "hello");
        assert_eq!(answer.expect("it is permitted"), "hello", "{}", server.address);
    }
    let refused = laptop.tcp_ask(denied.address, "hello").expect_err("it is denied");
    assert_eq!(refused.how, "refused", "{refused:?}");
    let explained = control_plane
        .post(
            "/v1/policy/explain",
            &json!({
                "device_id": device, "destination": "10.9.0.3", "port": denied.address.port(),
                "protocol": "tcp",
            }),
        )
        .ok();
    assert_eq!(explained["reason"], "no-policy-permits", "{explained}");
    assert_eq!(explained["resource_id"], denied_resource.as_str(), "{explained}");

    let download = laptop.tcp_download(pacer.address, Duration::from_millis(200));
    probe::downloaded(&download, 1, READY);
    let first = latest_handshake(laptop);
    let second = wait_until("a second handshake", REKEY_TIMEOUT, || {
        assert!(download.is_running(), "the download ended: {}", download.output());
        Some(latest_handshake(laptop)).filter(|latest| *latest > first)
    });
    let so_far = download.events().last().and_then(|event| event["bytes"].as_u64());
    let more = so_far.expect("bytes came") + 2_000_000;
    probe::downloaded(&download, more, READY);
    let events = download.events();
    let times = events.iter().filter_map(|event| event["t"].as_u64()).collect::<Vec<_>>();
    let longest_pause = times.windows(2).map(|pair| pair[1] - pair[0]).max();
    report(&json!({
        "id": "S3", "what": "wireguard-go through a rekey",
        "handshakes_apart_s": second - first, "bytes": more,
        "longest_pause_ms": longest_pause.map(|pause| pause / 1_000_000),
    }));
    assert!(longest_pause < Some(5_000_000_000), "{longest_pause:?}");
    assert_eq!(laptop.tcp_ask(permitted.address, "hello").expect("it is permitted"), "hello");
}

#[test]
fn curl_reaches_nginx_through_the_tunnel() {
    let scene = Scene::new("nginx");
    let user = scene.control_plane.create_user("ada");
    let v6 = format!("{SVC_V6}/128");
    let web = scene.control_plane.create_resource(
        &scene.site,
        "web",
        &["10.9.0.2/32", &v6],
        &[("tcp", &["80"])],
    );
    scene.control_plane.permit(&[&user], &[&web]);
    let svc = &scene.lab.svc;
    let page = "<p>The intranet</p>\n".repeat(50_000);
    let nginx = start_nginx(svc, &page);
    let _client = scene.start_client(&scene.lab.laptop, &user);
    let curl = |url: &str| {
        let command =
            scene.lab.laptop.command("curl").args(["--silent", "--show-error", "--globoff"]);
        command.args(["--max-time", "20", url])
    };

    for url in [format!("http://{SVC_V4}/"), format!("http://[{SVC_V6}]/")] {
        wait_until("the tunnel carries", READY, || curl(&url).run().success().then_some(()));
        assert_eq!(curl(&url).check(), page, "{url}");
    }
    // Many requests on one connection, and many connections.
    let urls = format!("http://{SVC_V4}/?[1-50]");
    let globbed = scene.lab.laptop.command("curl").args(["--silent", "--fail", "--max-time", "30"]);
    let output = globbed.args(["--parallel", "--output", "/dev/null", &urls]).run();
    assert!(output.success(), "{output:#?}");
    let log = svc.read("nginx/access.log");
    assert!(log.lines().count() >= 54, "{log}");
    assert!(nginx.is_running(), "{}", nginx.output());
}

#[test]
fn iperf3_measures_both_directions_and_udp_through_the_tunnel() {
    let scene = Scene::new("iperf3");
    let user = scene.control_plane.create_user("ada");
    let resource =
        scene.control_plane.create_resource(&scene.site, "iperf3", &["10.9.0.2/32"], &[]);
    scene.control_plane.permit(&[&user], &[&resource]);
    let server = scene.lab.svc.spawn(["iperf3", "--server", "--bind", SVC_V4, "--forceflush"]);
    server.wait_for_line("Server listening", READY);
    let _client = scene.start_client(&scene.lab.laptop, &user);
    let laptop = &scene.lab.laptop;
    wait_until("the tunnel carries", READY, || {
        laptop.tcp_try(SocketAddr::new(SVC_V4.parse().ok()?, 5201), "").ok()
    });

    let mut measured = json!({ "id": "S3", "what": "iperf3 through the tunnel" });
    for (name, flags) in [
        ("upload_mbit_s", &[][..]),
        ("download_mbit_s", &["--reverse"][..]),
        ("udp_mbit_s", &["--udp", "--bitrate", "20M"][..]),
    ] {
        // The probe above may still be the one client that the server serves.
        let output = wait_until(name, READY, || {
            let command = laptop.command("iperf3").args(["--client", SVC_V4, "--time", "3"]);
            let output = command.arg("--json").args(flags).run();
            let busy = output.stdout.contains("the server is busy");
            (!busy).then_some(output)
        });
        assert!(output.success(), "{output:#?}");
        let end = &output.json()["end"];
        let received = if name.starts_with("udp") { &end["sum"] } else { &end["sum_received"] };
        let bits = received["bits_per_second"].as_f64().expect("a rate");
        measured[name] = json!((bits / 1e5).round() / 10.0);
        assert!(bits > 5e6, "{name}: {end}");
        if name.starts_with("udp") {
            let count = |member: &str| received[member].as_u64().expect("a number");
            // What the server itself was too slow to take has come through the tunnel.
            let came_too_fast = full_udp_sockets(&scene.lab.svc);
            let lost = count("lost_packets").saturating_sub(came_too_fast);
            measured["udp_packets"] = json!(count("packets"));
            measured["udp_lost"] = json!(lost);
            measured["udp_came_too_fast"] = json!(came_too_fast);
            assert!(lost * 20 < count("packets"), "{came_too_fast} {end}");
        }
    }
    report(&measured);
}

#[test]
fn ssh_runs_a_command_and_scp_copies_a_file_through_the_tunnel() {
    let scene = Scene::new("ssh");
    let user = scene.control_plane.create_user("ada");
    let resource = scene.control_plane.create_resource(
        &scene.site,
        "ssh",
        &["10.9.0.2/32"],
        &[("tcp", &["22"])],
    );
    scene.control_plane.permit(&[&user], &[&resource]);
    let (svc, laptop) = (&scene.lab.svc, &scene.lab.laptop);
    let sshd = start_sshd(svc, laptop);
    let _client = scene.start_client(laptop, &user);
    let account = laptop.check(["id", "--user", "--name"]);
    let target = format!("{}@{SVC_V4}", account.trim());
    let options = [
        "-F",
        "none",
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=5",
        "-o",
        "UserKnownHostsFile=known_hosts",
        "-o",
        "IdentitiesOnly=yes",
        "-i",
        "id",
    ];
    let in_dir = |program: &str| {
        let script = format!("cd {} && exec {program} \"$@\"", laptop.dir().display());
        laptop.command("sh").args(["-c", &script, "sh"]).args(options)
    };

    wait_until("ssh connects", READY, || {
        in_dir("ssh").args([&target, "true"]).run().success().then_some(())
    });
    let said = in_dir("ssh").args([&target, "cat; echo $((6 * 7)); exit 3"]).stdin("in\n").run();
    assert_eq!((said.stdout.as_str(), said.code), ("in\n42\n", Some(3)), "{said:#?}");

    let file = "0123456789abcdef\n".repeat(300_000);
    laptop.write("file", &file);
    let there = format!("{target}:{}", svc.dir().join("copy").display());
    in_dir("scp").args(["file", &there]).check();
    assert!(svc.read("copy") == file, "the copy differs");
    in_dir("scp").args([&there, "back"]).check();
    assert!(laptop.read("back") == file, "the copy of the copy differs");
    assert!(sshd.is_running(), "{}", sshd.output());
}

fn tcp_resource(scene: &Scene, name: &str, address: SocketAddr) -> String {
    let (prefix, port) = (IpNet::from(address.ip()).to_string(), address.port().to_string());
    let filters: &[(&str, &[&str])] = &[("tcp", &[&port])];

    scene.control_plane.create_resource(&scene.site, name, &[&prefix], filters)
}

/// Returns the time of the last handshake with the one peer, in seconds since 1970.
fn latest_handshake(host: &Host) -> u64 {
    let shown = host.check(["wg", "show", "wg-plain", "latest-handshakes"]);
    let time = shown.split_whitespace().nth(1).and_then(|time| time.parse().ok());

    time.unwrap_or_else(|| panic!("no handshake in {shown:?}"))
}

/// How many datagrams found the socket full that they were for.
fn full_udp_sockets(host: &Host) -> u64 {
    let counters = host.check(["cat", "/proc/net/snmp"]);
    let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut counters = names.split(' ').zip(values.split(' '));
    let counter = counters.find_map(|(name, value)| (name == "RcvbufErrors").then_some(value));

    counter.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("not in {names:?}"))
}

fn start_nginx(host: &Host, page: &str) -> Process {
    host.sh(&format!("mkdir -p {0}/nginx/www {0}/nginx/tmp", host.dir().display()));
    host.write("nginx/www/index.html", page);
    let dir = host.dir().join("nginx");
    let dir = dir.display();
    // In a world that was made without privileges there is no other user.
    let config = format!(
        "daemon off;\n\
         master_process off;\n\
         user root;\n\
         pid {dir}/pid;\n\
         error_log stderr info;\n\
         events {{ }}\n\
         http {{\n\
           default_type text/html;\n\
           access_log {dir}/access.log;\n\
           client_body_temp_path {dir}/tmp/body;\n\
           proxy_temp_path {dir}/tmp/proxy;\n\
           fastcgi_temp_path {dir}/tmp/fastcgi;\n\
           uwsgi_temp_path {dir}/tmp/uwsgi;\n\
           scgi_temp_path {dir}/tmp/scgi;\n\
           server {{\n\
             listen {SVC_V4}:80;\n\
             listen [{SVC_V6}]:80;\n\
             root {dir}/www;\n\
           }}\n\
         }}\n"
    );
    let config = host.write("nginx/nginx.conf", config);
    let nginx = host.command("nginx").args(["-e", "stderr", "-c"]).arg(config).spawn();
    wait_until("nginx serves", READY, || {
        assert!(nginx.is_running(), "{}", nginx.output());
        let url = format!("http://{SVC_V4}/");
        host.run(["curl", "--silent", "--output", "/dev/null", &url]).success().then_some(())
    });

    nginx
}

/// Starts an SSH server that lets the key of `client` in; both know each other's keys.
fn start_sshd(host: &Host, client: &Host) -> Process {
    let dir = host.dir();
    let dir = dir.display();
    // sshd insists on an absolute path of its own program, and on this folder.
    host.sh(&format!(
        "mkdir -p /run/sshd && ssh-keygen -q -t ed25519 -N '' -f {dir}/host_key && \
         ssh-keygen -q -t ed25519 -N '' -f {}/id",
        client.dir().display()
    ));
    host.write("authorized_keys", client.read("id.pub"));
    client.write("known_hosts", format!("{SVC_V4} {}", host.read("host_key.pub")));
    let config = format!(
        "ListenAddress {SVC_V4}:22\n\
         HostKey {dir}/host_key\n\
         PidFile none\n\
         AuthorizedKeysFile {dir}/authorized_keys\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\n\
         StrictModes no\n\
         UsePAM no\n\
         Subsystem sftp internal-sftp\n"
    );
    let config = host.write("sshd_config", config);
    let script = "exec \"$(command -v sshd)\" -D -e -f \"$1\"";
    let sshd = host.command("sh").args(["-c", script, "sh"]).arg(config).spawn();
    sshd.wait_for_line("Server listening", READY);

    sshd
}
