//! Whoever loses access loses it at once, whatever runs at that moment.

use std::{net::SocketAddr, sync::Mutex, thread, time::Duration};

use adit_tests::{
    Client, Distribution, Host, Lab, Process, Random, Scene, lab::SVC_V4, lab::SVC_V6,
    monotonic_ns, probe, report,
};
use serde_json::{Value, json};

/// Machines that lose and regain access, at the same time and independently of each other.
const LAPTOPS: u8 = 8;

/// How often each of them loses it; in all at least 200 times.
const REPETITIONS: usize = 26;

/// What is promised: from the answer of the API to the last byte.
const PROMISE_MS: f64 = 1_000.0;

/// Time for a client to notice that it has access again, on a busy machine.
const BACK_TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn revoking_a_device_or_disabling_its_user_cuts_live_flows_within_a_second() {
    let scene = Scene::new("revocation");
    let servers = Servers::start(&scene);
    let measured = Mutex::new(Measured::default());

    thread::scope(|scope| {
        let (scene, servers, measured) = (&scene, &servers, &measured);
        let threads: Vec<_> = (0..LAPTOPS)
            .map(|number| {
                let laptop = laptop(&scene.lab, number);
                scope.spawn(move || {
                    let own = lose_access_again_and_again(scene, servers, &laptop, number);
                    measured.lock().expect("no thread panicked").extend(&own);
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no thread panicked");
        }
    });

    let measured = measured.into_inner().expect("no thread panicked");
    let mut all = measured.devices.clone();
    all.extend(&measured.users);
    report(&json!({
        "id": "S31",
        "what": "from the API's answer to the last byte or datagram of a live flow",
        "cut": all.to_json(),
        "device_revoked": measured.devices.to_json(),
        "user_disabled": measured.users.to_json(),
        "access_again": measured.back.to_json(),
        "survivors": 0,
    }));
    assert!(all.count() >= 200, "{}", all.count());
    assert!(all.percentile_ms(99) <= PROMISE_MS, "{:?}", all.to_json());
}

#[test]
fn leaving_a_group_cuts_what_the_group_may_reach_and_nothing_else() {
    leave_a_group("leave-group", [&[], &[]], |_lab| {});
}

/// Ends one user's access while it is used. The connector is started with the first arguments, the
/// clients with the others, and something may be done to the lab while the flows are there.
pub(crate) fn leave_a_group(
    name: &str,
    [of_connector, of_clients]: [&[&str]; 2],
    in_mid_flight: impl FnOnce(&Lab),
) {
    let mut scene = Scene::new(name);
    if !of_connector.is_empty() {
        scene.connector.restart_with(of_connector);
    }
    let control_plane = &scene.control_plane;
    let servers = Servers::start(&scene);
    let (ada, bob) = (control_plane.create_user("ada"), control_plane.create_user("bob"));
    let group = control_plane.create_group("staff", &[&ada, &bob]);
    control_plane.create_policy(
        "staff",
        "permit",
        &json!({ "groups": [group] }),
        &json!({ "ids": [servers.resource] }),
    );
    let (laptop, laptop2) = (&scene.lab.laptop, &scene.lab.laptop2);
    let mut clients = [scene.start_client(laptop, &ada), scene.start_client(laptop2, &bob)];
    if !of_clients.is_empty() {
        for client in &mut clients {
            client.restart_with(of_clients);
        }
    }
    let traffic = servers.use_access(laptop);
    traffic.wait_for_event("flowing", BACK_TIMEOUT);
    let other = laptop2.tcp_download(servers.download_v4, Duration::ZERO);
    probe::downloaded(&other, 1, BACK_TIMEOUT);
    in_mid_flight(&scene.lab);

    let path = format!("/v1/groups/{group}/members/{ada}");
    let answer = control_plane.request("DELETE", &path, &[], None);

    assert_eq!(answer.status, 204, "{answer:?}");
    let quiet = wait_until_quiet(&traffic);
    let latency_ns = last_sign_of_life(&quiet).saturating_sub(answer.answered_ns);
    report(&json!({ "id": "S31", "what": "left a group", "cut_ms": latency_ns / 1_000_000 }));
    assert!(latency_ns < 1_000_000_000, "{quiet}");
    let before = other.events().len();
    other.wait_for_events("the other goes on", Duration::from_secs(5), |events| {
        (events.len() > before + 10).then_some(())
    });
    assert!(!other.events().iter().any(|event| event["event"] == "end"));
}

/// What is used while access is lost.
struct Servers {
    resource: String,
    download_v4: SocketAddr,
    download_v6: SocketAddr,
    udp: SocketAddr,
    idle: SocketAddr,
    _processes: Vec<Process>,
}

impl Servers {
    fn start(scene: &Scene) -> Self {
        let svc = &scene.lab.svc;
        let servers = [
            svc.tcp_pacer(SVC_V4),
            svc.tcp_pacer(SVC_V6),
            svc.udp_echo(SVC_V4),
            svc.tcp_echo(SVC_V6),
        ];
        let [download_v4, download_v6, udp, idle] = servers.each_ref().map(|server| server.address);
        let resource = scene.control_plane.create_resource(
            &scene.site,
            "services",
            &[&format!("{SVC_V4}/32"), &format!("{SVC_V6}/128")],
            &[],
        );
        let _processes = servers.into_iter().map(|server| server.process).collect();

        Self { resource, download_v4, download_v6, udp, idle, _processes }
    }

    /// Uses everything, until nothing comes any more.
    fn use_access(&self, host: &Host) -> Process {
        // Both protocols, over the machines.
        let download = if host.name().ends_with(['1', '3', '5', '7']) {
            self.download_v6
        } else {
            self.download_v4
        };
        host.probe("use-access")
            .args(["--download", &download.to_string(), "--udp", &self.udp.to_string()])
            .args(["--idle", &self.idle.to_string()])
            .spawn()
    }
}

#[derive(Default)]
struct Measured {
    devices: Distribution,
    users: Distribution,
    back: Distribution,
}

impl Measured {
    fn extend(&mut self, other: &Self) {
        self.devices.extend(&other.devices);
        self.users.extend(&other.users);
        self.back.extend(&other.back);
    }
}

fn laptop(lab: &Lab, number: u8) -> Host {
    let host = lab.world.host(&format!("many{number}"));
    let net = 100 + number;
    lab.world.link(
        (&host, &format!("198.18.{net}.2/24 2001:db8:{net}::2/64")),
        (&lab.inet, &format!("198.18.{net}.1/24 2001:db8:{net}::1/64")),
    );
    host.default_route(&format!("198.18.{net}.1"));
    host.default_route(&format!("2001:db8:{net}::1"));

    host
}

fn lose_access_again_and_again(
    scene: &Scene,
    servers: &Servers,
    laptop: &Host,
    number: u8,
) -> Measured {
    let control_plane = &scene.control_plane;
    let user = control_plane.create_user(laptop.name());
    control_plane.permit(&[&user], &[&servers.resource]);
    let _client: Client = scene.start_client(laptop, &user);
    let device = control_plane.devices_of(&user).pop().expect("it was enrolled");
    let mut random = Random::from_seed(number.into());
    let mut measured = Measured::default();

    for repetition in 0..REPETITIONS {
        let traffic = servers.use_access(laptop);
        let flowing = traffic.wait_for_event("flowing", BACK_TIMEOUT);
        if repetition > 0 {
            measured.back.add_ns(nanoseconds(&flowing, "t") - nanoseconds(&flowing, "started_t"));
        }
        // Any moment of a transfer is as good as another.
        thread::sleep(Duration::from_millis(random.below(100) as u64));
        wait_until_alive(&traffic);

        let by_device = (repetition + usize::from(number)) % 2 == 0;
        let answer = if by_device {
            control_plane.revoke_device(&device)
        } else {
            control_plane.set_user_disabled(&user, true)
        };
        assert_eq!(answer.status, 200, "{answer:?}");

        let quiet = wait_until_quiet(&traffic);
        let last = last_sign_of_life(&quiet);
        assert!(last + 200_000_000 > answer.sent_ns, "silent before it was cut: {quiet}");
        let latency = last.saturating_sub(answer.answered_ns);
        if by_device {
            measured.devices.add_ns(latency);
            let path = format!("/v1/devices/{device}/approve");
            assert_eq!(control_plane.request("POST", &path, &[], None).status, 200);
        } else {
            measured.users.add_ns(latency);
            assert_eq!(control_plane.set_user_disabled(&user, false).status, 200);
        }
    }

    measured
}

/// Waits until the newest byte and the newest datagram are no older than a moment: a busy machine
/// may not run a sender for longer than that, and what pauses by itself cannot be seen to be cut.
fn wait_until_alive(traffic: &Process) {
    const MOMENT_NS: u64 = 50_000_000;

    traffic.wait_for_events("traffic at this moment", Duration::from_secs(10), |events| {
        let newest = events.iter().rev().find(|event| event["event"] == "alive")?;
        (monotonic_ns() < nanoseconds(newest, "t") + MOMENT_NS).then_some(())
    });
}

/// Waits until nothing comes any more, by any flow.
fn wait_until_quiet(traffic: &Process) -> Value {
    let quiet = traffic.wait_for_event("quiet", Duration::from_secs(15));
    assert_eq!(quiet["idle_works"], false, "an idle connection survived: {quiet}");

    quiet
}

fn last_sign_of_life(quiet: &Value) -> u64 {
    nanoseconds(quiet, "last_byte_t").max(nanoseconds(quiet, "last_answer_t"))
}

fn nanoseconds(event: &Value, member: &str) -> u64 {
    event[member].as_u64().unwrap_or_else(|| panic!("no {member} in {event}"))
}
