//! Shows Adit at work in a world of its own: permitted, denied with a reason, and revoked while a
//! download runs. Everything it prints is what the programs really said; it fails when one of them
//! does not behave.

#[path = "demo/narration.rs"]
mod narration;

use std::{
    io,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use adit_tests::{Client, Lab, Process, Scene, lab::SVC_V4, probe, wait_until};
use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::{Value, json};

use self::narration::{chapter, say, show};

/// Shows Adit at work: permitted, denied with a reason, and revoked while it runs.
#[derive(Parser)]
struct Cli {
    /// Hold the world when done, and print the commands to look around in it.
    #[arg(long)]
    keep: bool,
}

const PICTURE: &str = "
  laptop ──── the internet ──┬── connector ──── svc 10.9.0.2, with no way in or out
                             └── control plane
";

const PAGE: &str = "Welcome to the intranet.\n";

const TIMEOUT: Duration = Duration::from_secs(20);

/// What is promised of a revocation.
const PROMISE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let began = Instant::now();
    let scene = set_up();
    let services = Services::start(&scene.lab);
    let rights = write_policy(&scene)?;
    let client = enroll(&scene, &rights.user)?;
    permitted(&scene, &client)?;
    denied(&scene, &client)?;
    revoked(&scene, &client, &services, &rights.user)?;
    say(&format!("\nDone in {:.0} s.", began.elapsed().as_secs_f64()));

    if cli.keep {
        hold(&scene, &client, &rights.user)?;
    }

    Ok(())
}

fn set_up() -> Scene {
    say("Each of these is a host of its own, made of network namespaces:");
    say(PICTURE);
    chapter("A control plane, and a connector that joins it with one string");
    let lab = Lab::new("demo");
    let control_plane = lab.start_control_plane();
    let said = control_plane.process().output();
    let advice: Vec<_> = said.lines().filter(|line| !is_log(line)).collect();
    show("cp", "adit-control serve --data-dir control-plane", advice.join("\n").trim());
    let site = control_plane.create_site("office");
    let connector = lab.start_connector(&control_plane, &site);
    show(
        "connector",
        &format!("adit-connector run --token-file connector-token --listen {}", connector.listen()),
        &log_lines(&connector.process().output(), &["Listening address", "Joined"]),
    );

    Scene { connector, control_plane, site, lab }
}

/// Whether a line is one of a log, which begins with the time.
fn is_log(line: &str) -> bool {
    line.starts_with(|first: char| first.is_ascii_digit())
}

/// The lines of a log that hold any of these words.
fn log_lines(said: &str, words: &[&str]) -> String {
    let lines = said.lines().filter(|line| words.iter().any(|words| line.contains(words)));
    lines.collect::<Vec<_>>().join("\n")
}

/// What the laptop would like to reach.
struct Services {
    files: std::net::SocketAddr,
    _processes: Vec<Process>,
}

impl Services {
    fn start(lab: &Lab) -> Self {
        let page = |port, body| {
            let command = lab.svc.probe("http-serve");
            let process = command.args(["--bind", SVC_V4, "--port", port, "--body", body]).spawn();
            process.wait_for_event("listening", TIMEOUT);
            process
        };
        let files = lab.svc.tcp_sender(SVC_V4, None);
        let _processes =
            vec![page("80", PAGE), page("8080", "Nobody should see this.\n"), files.process];

        Self { files: files.address, _processes }
    }
}

struct Rights {
    user: String,
}

fn write_policy(scene: &Scene) -> anyhow::Result<Rights> {
    chapter("An administrator says who may reach what");
    let user = post(scene, "/v1/users", &json!({ "name": "ada" }))?;
    let resource = |name: &str, ports: &[&str]| {
        let body = json!({
            "name": name,
            "site_id": scene.site,
            "addresses": ["10.9.0.2/32"],
            "filters": [{ "protocol": "tcp", "ports": ports }],
        });
        post(scene, "/v1/resources", &body)
    };
    let intranet = resource("intranet", &["80"])?;
    let files = resource("files", &["1024-8079", "8081-65535"])?;
    resource("admin console", &["8080"])?;
    let policy = json!({
        "name": "ada works here",
        "effect": "permit",
        "subjects": { "users": [user] },
        "resources": { "ids": [intranet, files] },
    });
    post(scene, "/v1/policies", &policy)?;

    Ok(Rights { user })
}

fn enroll(scene: &Scene, user: &str) -> anyhow::Result<Client> {
    chapter("The laptop enrols with one string, and connects");
    let laptop = &scene.lab.laptop;
    let client = Client::start(laptop);
    laptop.write("key", scene.control_plane.create_enrollment_key(user));
    let key = laptop.dir().join("key");
    adit(&client, &["enroll", "--key-file", &key.to_string_lossy(), "--name", "laptop"], true)?;
    adit(&client, &["up"], true)?;
    client.wait_for_state("connected", TIMEOUT);
    adit(&client, &["resources"], true)?;

    Ok(client)
}

fn permitted(scene: &Scene, client: &Client) -> anyhow::Result<()> {
    chapter("What policy permits passes through the tunnel");
    let output = curl(scene, "http://10.9.0.2/");
    ensure!(output.success() && output.stdout == PAGE, "the page did not arrive: {output:#?}");
    adit(client, &["explain", "10.9.0.2:80"], true)
}

fn denied(scene: &Scene, client: &Client) -> anyhow::Result<()> {
    chapter("What no policy permits is refused at once, and everyone learns why");
    let output = curl(scene, "http://10.9.0.2:8080/");
    // 7: failed to connect; a time-out would be 28.
    ensure!(output.code == Some(7), "the connection was not refused: {output:#?}");
    adit(client, &["explain", "10.9.0.2:8080"], false)?;
    let path = "/v1/access-events?verdict=deny";
    let event = wait_until("the connector reports the denial", TIMEOUT, || {
        scene.control_plane.get(path).ok()["items"].get(0).cloned()
    });
    let event = json!({
        "device_id": event["device_id"], "verdict": event["verdict"], "reason": event["reason"],
    });
    show("cp", &format!("GET {path}"), &format!("{event}\n"));
    ensure!(event["reason"] == "no-policy-permits", "the reason is another: {event}");

    Ok(())
}

fn revoked(scene: &Scene, client: &Client, services: &Services, user: &str) -> anyhow::Result<()> {
    chapter("Whoever is revoked is cut off while a download runs");
    let download = scene.lab.laptop.tcp_download(services.files, Duration::from_millis(1));
    probe::downloaded(&download, 20_000_000, TIMEOUT);
    say(&format!(
        "laptop: downloading from {}, {} MB so far",
        services.files,
        bytes(&download) / 1_000_000
    ));
    let device = scene.control_plane.devices_of(user).pop().context("there is no device")?;
    let path = format!("/v1/devices/{device}/revoke");
    let answer = scene.control_plane.request("POST", &path, &[], None);
    show("cp", &format!("POST {path}"), &format!("{} {}\n", answer.status, answer.body["state"]));
    ensure!(answer.status == 200, "the device was not revoked: {answer:?}");
    // Silent for as long as it was promised not to take.
    let last = wait_until("the download is cut", TIMEOUT, || {
        let last = last_byte(&download);
        let silent = adit_tests::monotonic_ns().saturating_sub(last);
        (silent > 1_000_000_000).then_some(last)
    });
    let took = Duration::from_nanos(last.saturating_sub(answer.answered_ns));
    say(&format!(
        "laptop: the last byte of {} MB came {:.1} ms after that answer",
        bytes(&download) / 1_000_000,
        took.as_secs_f64() * 1000.0
    ));
    ensure!(took < PROMISE, "the revocation took {took:?}");
    let output = curl(scene, "http://10.9.0.2/");
    ensure!(!output.success(), "the page still arrives: {output:#?}");
    let output = client.adit(&["status"]);
    show("laptop", "adit status", &format!("{}{}", output.stdout, output.stderr));

    Ok(())
}

fn hold(scene: &Scene, client: &Client, user: &str) -> anyhow::Result<()> {
    let device = scene.control_plane.devices_of(user).pop().context("there is no device")?;
    let answer =
        scene.control_plane.request("POST", &format!("/v1/devices/{device}/approve"), &[], None);
    ensure!(answer.status == 200, "the device was not approved again: {answer:?}");

    let lab = &scene.lab;
    let dir = std::env::current_exe().context("Linux knows the running executable")?;
    let dir = dir.parent().context("an executable is in a folder")?;
    chapter("The world is yours; the laptop was approved again");
    say("A shell on each host, to be opened in another terminal:");
    for host in [&lab.laptop, &lab.connector, &lab.svc, &lab.cp, &lab.inet] {
        say(&format!("  {:<10} {}", host.name(), host.shell_line()));
    }
    say("\nThere, for example:");
    say(&format!(
        "  export PATH={}:$PATH ADIT_SOCKET={}",
        dir.display(),
        client.socket().display()
    ));
    say(
        "  laptop     adit status; adit resources; curl http://10.9.0.2/; adit explain 10.9.0.2:8080",
    );
    say(&format!(
        "  cp         curl --insecure --header @{}/api-headers {}/v1/devices",
        lab.cp.dir().display(),
        scene.control_plane.url()
    ));
    say(&format!(
        "  connector  curl {}; nft list ruleset; ip route",
        scene.connector.health_url("metrics")
    ));
    say("\nPress Enter to end it.");
    let mut line = String::new();
    if io::stdin().read_line(&mut line).context("failed to wait for Enter")? == 0 {
        // No terminal: until a signal ends this process, and the world with it.
        loop {
            thread::park();
        }
    }

    Ok(())
}

/// Creates an object, shows request and answer, and returns its id.
fn post(scene: &Scene, path: &str, body: &Value) -> anyhow::Result<String> {
    let answer = scene.control_plane.post(path, body);
    let id = answer.body["id"].as_str().unwrap_or_default().to_owned();
    show("cp", &format!("POST {path} {body}"), &format!("{} {id}\n", answer.status));
    ensure!(answer.status == 201, "{path}: {answer:?}");

    Ok(id)
}

/// Runs `adit` on the laptop and shows what it says; `expected` is whether it should succeed.
fn adit(client: &Client, args: &[&str], expected: bool) -> anyhow::Result<()> {
    let output = client.adit(args);
    let command = format!("adit {}", args.join(" "));
    show("laptop", &command, &format!("{}{}", output.stdout, output.stderr));
    ensure!(output.success() == expected, "`{command}` did not do what it should: {output:#?}");

    Ok(())
}

fn curl(scene: &Scene, url: &str) -> adit_tests::Output {
    let command = scene.lab.laptop.command("curl");
    let output = command.args(["--no-progress-meter", "--max-time", "10", url]).run();
    show("laptop", &format!("curl {url}"), &format!("{}{}", output.stdout, output.stderr));

    output
}

fn bytes(download: &Process) -> u64 {
    download.events().iter().filter_map(|event| event["bytes"].as_u64()).max().unwrap_or_default()
}

/// When the last byte is known to have come, to a millisecond.
fn last_byte(download: &Process) -> u64 {
    let events = download.events();
    let end = events.iter().find_map(|event| event["last_byte_t"].as_u64());
    let progress = events.iter().rev().find(|event| event["event"] == "progress");

    end.or_else(|| progress?["t"].as_u64()).unwrap_or_default()
}
