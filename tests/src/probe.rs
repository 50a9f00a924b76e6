//! The probe's subcommands as typed calls on a [`Host`].

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use crate::{Command, Host, Process, binary, process::parse_events};

/// Time for a server to print its port, and for a client to print its first event.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A server of the probe, and where it listens.
pub struct Server {
    /// Address and the port chosen by the kernel.
    pub address: SocketAddr,
    /// The server itself; killed when dropped.
    pub process: Process,
}

/// How a TCP connection went.
#[derive(Debug, Clone, Deserialize)]
pub struct Ended {
    /// `eof`, `reset`, `idle` (nothing for the idle time), `refused`, `unreachable`, `prohibited`,
    /// `timeout` (no connection in time), or the operating system's words.
    pub how: String,
    /// Bytes received.
    pub bytes: u64,
    /// Monotonic clock at the end.
    pub t: u64,
    /// Monotonic clock when the last byte arrived, if any did.
    pub last_byte_t: Option<u64>,
    /// Monotonic clock when the connection was tried.
    pub started_t: u64,
}

/// How an exchange of UDP datagrams went.
#[derive(Debug, Clone, Deserialize)]
pub struct Pinged {
    /// Datagrams sent.
    pub sent: u64,
    /// Answers received.
    pub received: u64,
    /// Errors that ICMP messages caused, each once, in the words of [`Ended::how`].
    pub errors: Vec<String>,
    /// Monotonic clock when the last answer arrived, if any did.
    pub last_answer_t: Option<u64>,
}

/// How a connection of [`Host::tcp_poll`] went.
#[derive(Debug, Clone, Deserialize)]
pub struct Polled {
    /// `answered`, or in the words of [`Ended::how`].
    pub how: String,
    /// Monotonic clock when the connection was tried.
    pub started_t: u64,
    /// Monotonic clock at the end.
    pub t: u64,
}

/// What a checked transfer carried.
#[derive(Debug, Clone, Deserialize)]
pub struct Transferred {
    /// Bytes that arrived.
    pub bytes: u64,
    /// SHA-256 of what the receiver got, in hexadecimal.
    pub sha256: String,
    /// SHA-256 of what the sender made, in hexadecimal.
    pub expected: String,
    /// Duration in seconds.
    pub seconds: f64,
}

impl Host {
    /// Prepares a subcommand of the probe.
    #[track_caller]
    pub fn probe(&self, subcommand: &str) -> Command {
        self.command(binary("adit-probe")).arg(subcommand)
    }

    /// Starts a TCP server that sends back what it gets.
    #[track_caller]
    pub fn tcp_echo(&self, ip: &str) -> Server {
        listen(self.probe("tcp-serve").args(["--bind", ip, "--mode", "echo"]))
    }

    /// Starts a TCP server that sends forever, or what `marker` repeats.
    #[track_caller]
    pub fn tcp_sender(&self, ip: &str, marker: Option<&str>) -> Server {
        let command = self.probe("tcp-serve").args(["--bind", ip, "--mode", "send"]);
        listen(match marker {
            Some(marker) => command.args(["--marker", marker]),
            None => command,
        })
    }

    /// Starts a TCP server that sends forever, about two megabytes a second.
    #[track_caller]
    pub fn tcp_pacer(&self, ip: &str) -> Server {
        listen(self.probe("tcp-serve").args(["--bind", ip, "--mode", "pace"]))
    }

    /// Starts a TCP server that sends one byte after each pause (`pulse` is its event).
    #[track_caller]
    pub fn tcp_pulse(&self, ip: &str, pause: Duration) -> Server {
        let pause = pause.as_millis().to_string();
        listen(self.probe("tcp-serve").args([
            "--bind",
            ip,
            "--mode",
            "pulse",
            "--pause-ms",
            &pause,
        ]))
    }

    /// Starts a UDP server that sends back what it gets.
    #[track_caller]
    pub fn udp_echo(&self, ip: &str) -> Server {
        listen(self.probe("udp-serve").args(["--bind", ip]))
    }

    /// Starts a UDP server that sends back what it gets, after a pause for which it does nothing else.
    #[track_caller]
    pub fn udp_late_echo(&self, ip: &str, pause: Duration) -> Server {
        let pause = pause.as_millis().to_string();
        listen(self.probe("udp-serve").args(["--bind", ip, "--pause-ms", &pause]))
    }

    /// Starts a server that counts the datagrams of `udp-load`.
    #[track_caller]
    pub fn udp_counter(&self, ip: &str) -> Server {
        listen(self.probe("udp-count").args(["--bind", ip]))
    }

    /// Starts a web server whose every page is `body`.
    #[track_caller]
    pub fn http_server(&self, ip: &str, body: &str) -> Server {
        listen(self.probe("http-serve").args(["--bind", ip, "--body", body]))
    }

    /// Starts a server for [`Self::download`] and [`Self::upload`].
    #[track_caller]
    pub fn transfer_server(&self, ip: &str) -> Server {
        listen(self.probe("transfer-serve").args(["--bind", ip]))
    }

    /// Starts a download whose progress is an event (`progress`) at least every `every`, as long
    /// as bytes come; `end` is the last event, see [`ended`].
    #[track_caller]
    pub fn tcp_download(&self, from: SocketAddr, every: Duration) -> Process {
        let every = every.as_millis().to_string();
        self.probe("tcp-download").arg(from.to_string()).args(["--every-ms", &every]).spawn()
    }

    /// Connects, sends `text`, and returns what came back, or how the attempt ended.
    #[track_caller]
    pub fn tcp_ask(&self, to: SocketAddr, text: &str) -> Result<String, Ended> {
        self.tcp_ask_within(to, text, Duration::from_secs(5))
    }

    #[track_caller]
    fn tcp_ask_within(
        &self,
        to: SocketAddr,
        text: &str,
        timeout: Duration,
    ) -> Result<String, Ended> {
        let timeout = timeout.as_millis().to_string();
        let output = self
            .probe("tcp-ask")
            .arg(to.to_string())
            .args(["--text", text, "--timeout-ms", &timeout])
            .run();
        let events = parse_events(&output.stdout);
        match events.iter().find(|event| event["event"] == "answer") {
            Some(answer) => Ok(answer["text"].as_str().unwrap_or_default().to_owned()),
            None => Err(find(&events, "end", &output.command)),
        }
    }

    /// As [`Self::tcp_ask`], but gives up early: for asking again and again.
    #[track_caller]
    pub fn tcp_try(&self, to: SocketAddr, text: &str) -> Result<String, Ended> {
        self.tcp_ask_within(to, text, Duration::from_millis(500))
    }

    /// Starts to ask a TCP echo server by a new connection every so often.
    #[track_caller]
    pub fn tcp_poll(&self, to: SocketAddr, every: Duration) -> Process {
        let every = every.as_millis().to_string();
        self.probe("tcp-poll").arg(to.to_string()).args(["--every-ms", &every]).spawn()
    }

    /// Sends `count` datagrams, one per `every`, and counts the answers.
    #[track_caller]
    pub fn udp_ping(&self, to: SocketAddr, count: u32, every: Duration) -> Pinged {
        let (count, every) = (count.to_string(), every.as_millis().to_string());
        let command = self.probe("udp-ping").arg(to.to_string());
        let output = command.args(["--count", &count, "--every-ms", &every]).run();

        find(&parse_events(&output.stdout), "pinged", &output.command)
    }

    /// Downloads `bytes` from a transfer server and compares checksums.
    #[track_caller]
    pub fn download(&self, from: SocketAddr, bytes: u64) -> Transferred {
        self.transfer("download", from, bytes)
    }

    /// Uploads `bytes` to a transfer server and compares checksums.
    #[track_caller]
    pub fn upload(&self, to: SocketAddr, bytes: u64) -> Transferred {
        self.transfer("upload", to, bytes)
    }

    /// Sends UDP datagrams with any source address out of an interface without link-layer
    /// addresses (TUN, WireGuard, loopback), whatever the routes say.
    #[track_caller]
    pub fn send_spoofed(&self, interface: &str, from: SocketAddr, to: SocketAddr, payload: &str) {
        self.probe("send-raw")
            .args(["--interface", interface, "--from", &from.to_string(), "--to", &to.to_string()])
            .args(["--payload", payload])
            .check();
    }

    /// As [`Self::send_spoofed`], but sends the SYN of a TCP connection.
    #[track_caller]
    pub fn send_syn(&self, interface: &str, from: SocketAddr, to: SocketAddr) {
        self.probe("send-raw")
            .args(["--interface", interface, "--from", &from.to_string(), "--to", &to.to_string()])
            .arg("--syn")
            .check();
    }

    #[track_caller]
    fn transfer(&self, subcommand: &str, peer: SocketAddr, bytes: u64) -> Transferred {
        let command = self.probe(subcommand).arg(peer.to_string());
        let output =
            command.args(["--bytes", &bytes.to_string()]).timeout(Duration::from_secs(240)).run();

        find(&parse_events(&output.stdout), "transferred", &output.command)
    }
}

/// Waits for the end of a [`Host::tcp_download`] and returns how it went.
#[must_use]
#[track_caller]
pub fn ended(download: &Process, timeout: Duration) -> Ended {
    let event = download.wait_for_event("end", timeout);
    serde_json::from_value(event).expect("the probe prints every field of an end")
}

/// Returns the connections of a [`Host::tcp_poll`] that have ended so far.
#[must_use]
pub fn polled(poll: &Process) -> Vec<Polled> {
    let events = poll.events().into_iter().filter(|event| event["event"] == "polled");
    let polled = events.map(serde_json::from_value);
    polled.map(|polled| polled.expect("the probe prints every field of a poll")).collect()
}

/// Waits until a [`Host::tcp_download`] has received `bytes`.
#[track_caller]
pub fn downloaded(download: &Process, bytes: u64, timeout: Duration) {
    download.wait_for_events(&format!("{bytes} bytes"), timeout, |events| {
        events.iter().any(|event| event["bytes"].as_u64() >= Some(bytes)).then_some(())
    });
}

/// When a [`Host::tcp_download`] received something last, by [`monotonic_ns`](crate::monotonic_ns).
#[must_use]
#[track_caller]
pub fn last_progress(download: &Process) -> u64 {
    let events = download.events().into_iter().rev();
    let mut times = events.filter(|event| event["event"] == "progress").map(|it| it["t"].as_u64());
    times.next().flatten().expect("it has received something")
}

#[track_caller]
fn listen(command: Command) -> Server {
    let process = command.spawn();
    let event = process.wait_for_event("listening", START_TIMEOUT);
    let address = event["address"].as_str().and_then(|text| text.parse().ok());

    Server { address: address.expect("the probe prints where it listens"), process }
}

#[track_caller]
fn find<T: for<'de> Deserialize<'de>>(events: &[Value], name: &str, command: &str) -> T {
    let event = events.iter().find(|event| event["event"] == name);
    let event = event.unwrap_or_else(|| panic!("no event {name} from {command}: {events:#?}"));

    serde_json::from_value(event.clone())
        .unwrap_or_else(|e| panic!("event of {command} is not a {name} ({e}): {event}"))
}
