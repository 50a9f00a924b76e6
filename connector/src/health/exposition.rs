//! Metrics in the text format of Prometheus.

use std::fmt::{Display, Write as _};

use adit_proto::Timestamp;

use super::Health;
use crate::enforced::Standing;

pub(super) fn render(health: &Health, now: Timestamp) -> String {
    let mut page = Page::default();

    let standing = health.standing.borrow();
    let bundle = standing.newest().map(|enforced| enforced.bundle());
    page.gauge("adit_connector_bundle_sequence", "Sequence of the bundle that is enforced");
    page.value(&[], bundle.map_or(0, |bundle| bundle.sequence));
    page.gauge("adit_connector_bundle_age_seconds", "How long ago that bundle was made");
    page.value(&[], bundle.map_or(0, |b| now.saturating_duration_since(b.issued_at).as_secs()));
    page.gauge("adit_connector_bundle_stale", "1 when every flow is denied for want of contact");
    page.value(&[], u8::from(matches!(*standing, Standing::Stale(_))));
    page.gauge("adit_connector_contact_age_seconds", "How long the control plane has been silent");
    page.value(&[], now.saturating_duration_since(*health.last_contact.borrow()).as_secs());
    page.gauge("adit_connector_sessions", "Open session channels");
    page.value(&[], *health.sessions.borrow());

    let data_plane = health.data_plane.borrow();
    page.gauge("adit_connector_load_percent", "How busy the busiest lane is");
    page.value(&[], data_plane.load);
    page.gauge("adit_connector_peers", "Devices whose packets are expected");
    page.value(&[], data_plane.peers);
    page.gauge("adit_connector_flows", "Flows that are let through");
    page.value(&[], data_plane.flows);

    let forwarder = &data_plane.forwarder;
    let directions = [("from_device", forwarder.from_devices), ("to_device", forwarder.to_devices)];
    page.counter("adit_connector_network_io_bytes_total", "Inner bytes that passed");
    for (direction, volume) in directions {
        page.value(&[("direction", direction)], volume.bytes);
    }
    page.counter("adit_connector_network_io_packets_total", "Inner packets that passed");
    for (direction, volume) in directions {
        page.value(&[("direction", direction)], volume.packets);
    }
    page.counter("adit_connector_decisions_total", "Decisions about flows");
    for (reason, count) in &forwarder.decisions {
        page.value(&[("reason", reason.code())], count);
    }
    page.counter("adit_connector_packets_dropped_total", "Packets that ended here");
    for (reason, count) in &forwarder.drops {
        page.value(&[("stage", "policy"), ("reason", reason.code())], count);
    }
    for (reason, count) in data_plane.tunnel_drops.iter() {
        page.value(&[("stage", "wireguard"), ("reason", reason.code())], count);
    }
    let (losses, send_losses) = (&data_plane.losses, &data_plane.send_losses);
    for (reason, count) in [
        ("socket-full", send_losses.socket_full),
        ("too-big", send_losses.too_big),
        ("unreachable", send_losses.unreachable),
        ("control", losses.control),
        ("kernel-refused", losses.kernel_refused),
        ("lane-full", losses.lane_full),
        ("retry", losses.retries),
    ] {
        page.value(&[("stage", "io"), ("reason", reason)], count);
    }
    let quic = &data_plane.quic;
    page.gauge("adit_connector_quic_connections", "Connections of QUIC");
    page.value(&[], quic.connections);
    page.counter(
        "adit_connector_quic_handshakes_total",
        "Handshakes of QUIC, by what became of them",
    );
    for (outcome, count) in
        [("begun", quic.handshakes), ("retry", quic.retries), ("refused", quic.refused)]
    {
        page.value(&[("outcome", outcome)], count);
    }

    let events = health.events.borrow();
    page.counter("adit_connector_access_events_sent_total", "Access events that were delivered");
    page.value(&[], events.sent);
    page.counter("adit_connector_access_events_dropped_total", "Access events that were lost");
    page.value(&[("reason", "queue-full")], losses.records);
    page.value(&[("reason", "refused")], events.refused);
    page.counter("adit_connector_denied_messages_dropped_total", "Messages to clients, lost");
    page.value(&[], losses.denials);
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    fn gauge(&mut self, name: &'static str, help: &str) {
        self.family(name, help, "gauge");
    }

    fn counter(&mut self, name: &'static str, help: &str) {
        self.family(name, help, "counter");
    }

    fn family(&mut self, name: &'static str, help: &str, kind: &str) {
        self.name = name;
        self.line(format_args!("# HELP {name} {help}."));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn value(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let name = self.name;
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("writing to a string cannot fail");
    }
}
