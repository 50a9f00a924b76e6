//! Small and silent paths: what does not fit is noticed, whoever says so or keeps silent.

use adit_tests::{
    Scene,
    lab::{READY_TIMEOUT, SVC_V4, SVC_V6},
    wait_until,
};

use crate::transfers::start_client_with_all_of_the_site;

/// Outer IPv4 and UDP headers, and WireGuard's own.
const OVERHEAD: u16 = 20 + 8 + 32;

#[test]
fn a_small_path_carries_transfers_whether_it_speaks_of_its_size_or_not() {
    for (name, mtu, is_silent) in
        [("mtu-1280", 1_280, true), ("mtu-1372", 1_372, true), ("mtu-1420", 1_420, false)]
    {
        const BYTES: u64 = 4 << 20;
        let scene = Scene::new(name);
        let lab = &scene.lab;
        if is_silent {
            lab.inet.sh("nft 'add table inet silence
                 add chain inet silence out { type filter hook output priority 0; }
                 add rule inet silence out icmp type destination-unreachable drop
                 add rule inet silence out icmpv6 type packet-too-big drop'");
        }
        lab.laptop_link.set_mtu(mtu);
        let client = start_client_with_all_of_the_site(&scene);
        let server = lab.svc.transfer_server(SVC_V4);
        client.wait_until_reached(lab.svc.tcp_echo(SVC_V4).address);
        for transfer in
            [lab.laptop.download(server.address, BYTES), lab.laptop.upload(server.address, BYTES)]
        {
            assert_eq!(transfer.bytes, BYTES, "{mtu} {transfer:?}");
            assert_eq!(transfer.sha256, transfer.expected, "{mtu} {transfer:?}");
        }

        // The others have more around a packet, and a stream for what is too long.
        if client.carrier().as_deref() != Some("wireguard") {
            continue;
        }
        // The longest packet that fits passes, and nothing is said to be longer than it is.
        let fits = mtu - OVERHEAD - 4;
        let payload = (fits - 28).to_string();
        wait_until(&format!("{fits} bytes pass on {mtu}"), READY_TIMEOUT, || {
            let ping = ["ping", "-M", "do", "-c", "1", "-W", "1", "-s", &payload, SVC_V4];
            lab.laptop.run(ping).success().then_some(())
        });
        let payload = (mtu - OVERHEAD + 1 - 28).to_string();
        let refused = wait_until(&format!("{mtu} is found"), READY_TIMEOUT, || {
            let ping = ["ping", "-M", "do", "-c", "1", "-W", "1", "-s", &payload, SVC_V4];
            let output = lab.laptop.run(ping);
            let text = format!("{}{}", output.stdout, output.stderr);
            (text.contains("mtu") || text.contains("too long")).then_some(text)
        });
        assert!(!refused.contains("1 received"), "{refused}");
    }
}

#[test]
fn the_smallest_path_of_ipv6_carries_what_nobody_need_shorten() {
    let scene = Scene::with_connector_at("mtu-pieces", "2001:db8:10::2");
    let lab = &scene.lab;
    lab.laptop_link.set_mtu(1_280);
    let client = start_client_with_all_of_the_site(&scene);
    client.wait_until_reached(lab.svc.tcp_echo(SVC_V4).address);
    // No host has to send shorter packets over IPv6, and over IPv4 who allows it to be cut need not.
    let longest: [(&str, u16, &[&str]); 2] =
        [(SVC_V6, 1_280 - 40 - 8, &["-M", "do"]), (SVC_V4, 1_420 - 20 - 8, &["-M", "dont"])];
    for (service, payload, options) in longest {
        wait_until(&format!("{payload} bytes to {service} pass"), READY_TIMEOUT, || {
            let ping = ["ping", "-c", "1", "-W", "1", "-s", &payload.to_string(), service];
            let output = lab.laptop.run(ping.iter().chain(options).copied());
            output.success().then_some(())
        });
    }
}

#[test]
fn a_path_of_jumbo_frames_carries_them() {
    const BYTES: u64 = 64 << 20;
    const JUMBO: u16 = 9_000;
    let mut scene = Scene::new("mtu-jumbo");
    for link in [&scene.lab.laptop_link, &scene.lab.connector_link, &scene.lab.site_link] {
        link.set_mtu(JUMBO);
    }
    scene.connector.restart();
    let lab = &scene.lab;
    let client = start_client_with_all_of_the_site(&scene);
    let server = lab.svc.transfer_server(SVC_V4);
    client.wait_until_reached(lab.svc.tcp_echo(SVC_V4).address);
    let payload = (JUMBO - 80 - 28).to_string();
    wait_until("jumbo frames pass", READY_TIMEOUT, || {
        let ping = ["ping", "-M", "do", "-c", "1", "-W", "1", "-s", &payload, SVC_V4];
        lab.laptop.run(ping).success().then_some(())
    });
    for transfer in
        [lab.laptop.download(server.address, BYTES), lab.laptop.upload(server.address, BYTES)]
    {
        assert_eq!(transfer.sha256, transfer.expected, "{transfer:?}");
    }
}

#[test]
fn a_path_that_shrinks_and_swallows_icmp_does_not_end_a_transfer() {
    const BYTES: u64 = 512 << 20;
    let scene = Scene::new("mtu-shrinks");
    let lab = &scene.lab;
    let client = start_client_with_all_of_the_site(&scene);
    let server = lab.svc.transfer_server(SVC_V4);
    client.wait_until_reached(lab.svc.tcp_echo(SVC_V4).address);
    lab.inet.sh("nft 'add table inet silence
         add chain inet silence out { type filter hook output priority 0; }
         add rule inet silence out icmp type destination-unreachable drop'");

    std::thread::scope(|scope| {
        let transfer = scope.spawn(|| lab.laptop.download(server.address, BYTES));
        lab.laptop_link.set_mtu(1_300);
        let transfer = transfer.join().unwrap();
        assert_eq!(transfer.bytes, BYTES, "{transfer:?}");
        assert_eq!(transfer.sha256, transfer.expected, "{transfer:?}");
    });
}
