//! Batches of packets are a matter of speed alone: without them everything is as it was.

use std::thread;

use adit_tests::{Client, Lab, Scene, lab::SVC_V4};

use crate::{
    revocation::leave_a_group,
    transfers::{assert_secrecy, start_client_with_all_of_the_site},
};

const BYTES: u64 = 64 << 20;

#[test]
fn transfers_are_whole_with_every_offload_off() {
    let mut scene = Scene::new("offloads-off");
    let mut client = start_client_with_all_of_the_site(&scene);
    scene.connector.restart_with(&["--offloads", "none"]);
    client.restart_with(&["--offloads", "none"]);
    for process in [client.process(), scene.connector.process()] {
        let line = process.wait_for_line("Opened the TUN device", adit_tests::lab::READY_TIMEOUT);
        assert!(line.contains("tso=false uso=false"), "{line}");
    }

    transfer_both_ways(&scene, &client);
}

#[test]
fn transfers_are_whole_when_only_one_end_has_offloads() {
    for (name, end) in [("offloads-conn", "connector"), ("offloads-lap", "client")] {
        let mut scene = Scene::new(name);
        let mut client = start_client_with_all_of_the_site(&scene);
        match end {
            "connector" => scene.connector.restart_with(&["--offloads", "tso,gro"]),
            _ => client.restart_with(&["--offloads", "none"]),
        }

        transfer_both_ways(&scene, &client);
    }
}

#[test]
fn a_transfer_goes_on_when_kernel_and_network_stop_taking_batches() {
    let scene = Scene::new("offloads-lost");
    let lab = &scene.lab;
    let client = start_client_with_all_of_the_site(&scene);
    let server = lab.svc.transfer_server(SVC_V4);
    client.wait_until_reached(lab.svc.tcp_echo(SVC_V4).address);

    thread::scope(|scope| {
        let transfers = [
            scope.spawn(|| lab.laptop.download(server.address, 4 * BYTES)),
            scope.spawn(|| lab.laptop.upload(server.address, 4 * BYTES)),
        ];
        lose_offloads(lab);
        for transfer in transfers {
            let transfer = transfer.join().unwrap();
            assert_eq!(transfer.bytes, 4 * BYTES, "{transfer:?}");
            assert_eq!(transfer.sha256, transfer.expected, "{transfer:?}");
        }
    });
}

#[test]
fn access_ends_at_once_and_nothing_leaks_with_every_offload_off() {
    leave_a_group("off-leave", [&["--offloads", "none"]; 2], |_lab| {});

    let mut scene = Scene::new("off-secrecy");
    let mut client = start_client_with_all_of_the_site(&scene);
    scene.connector.restart_with(&["--offloads", "none"]);
    client.restart_with(&["--offloads", "none"]);
    assert_secrecy(&scene, &client);
}

#[test]
fn access_ends_at_once_and_nothing_leaks_when_offloads_are_lost_in_mid_flight() {
    leave_a_group("lost-leave", [&[], &[]], lose_offloads);

    let scene = Scene::new("lost-secrecy");
    let client = start_client_with_all_of_the_site(&scene);
    let server = scene.lab.svc.transfer_server(SVC_V4);
    client.wait_until_reached(scene.lab.svc.tcp_echo(SVC_V4).address);
    thread::scope(|scope| {
        let transfer = scope.spawn(|| scene.lab.laptop.upload(server.address, BYTES));
        lose_offloads(&scene.lab);
        let transfer = transfer.join().unwrap();
        assert_eq!(transfer.sha256, transfer.expected, "{transfer:?}");
    });
    assert_secrecy(&scene, &client);
}

/// Cards without checksums refuse trains on some kernels; a device without TSO gives single packets.
fn lose_offloads(lab: &Lab) {
    for (host, device) in [
        (&lab.laptop, lab.laptop_link.a().interface()),
        (&lab.connector, lab.connector_link.a().interface()),
    ] {
        host.check(["ethtool", "-K", device, "tx", "off"]);
    }
    lab.laptop.check(["ethtool", "-K", "adit0", "tso", "off"]);
}

#[track_caller]
fn transfer_both_ways(scene: &Scene, client: &Client) {
    let lab = &scene.lab;
    let server = lab.svc.transfer_server(SVC_V4);
    client.wait_until_reached(lab.svc.tcp_echo(SVC_V4).address);
    for transfer in
        [lab.laptop.download(server.address, BYTES), lab.laptop.upload(server.address, BYTES)]
    {
        assert_eq!(transfer.bytes, BYTES, "{transfer:?}");
        assert_eq!(transfer.sha256, transfer.expected, "{transfer:?}");
    }
}
