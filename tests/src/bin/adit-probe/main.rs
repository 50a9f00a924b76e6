//! What the end-to-end tests need inside a host. Prints JSON lines, see [`event::print()`].

mod access;
mod agreement;
mod connect_forward;
mod crowd;
mod download;
mod durability;
mod enroll;
mod enrolled_device;
mod event;
mod flood;
mod hold;
mod http;
mod impair;
mod load;
mod packet_socket;
mod poll;
mod populate;
mod quic_flood;
mod raw;
mod replay;
mod serve;
mod sniff;
mod transfer;
mod udp;

use std::{net::IpAddr, process::ExitCode};

use clap::Parser;

/// Servers, clients and sniffers for the end-to-end tests.
#[derive(Parser)]
enum Cli {
    /// Serve TCP: echo, or send forever.
    TcpServe(serve::Args),
    /// Connect, send a text, print the answer.
    TcpAsk(download::AskArgs),
    /// Connect and ask again and again.
    TcpPoll(poll::Args),
    /// Read from a TCP server until it ends, printing progress.
    TcpDownload(download::Args),
    /// Send datagrams back.
    UdpServe(udp::ServeArgs),
    /// Send datagrams and count the answers.
    UdpPing(udp::PingArgs),
    /// Count datagrams of udp-load, and send back those of udp-round-trip.
    UdpCount(load::CountArgs),
    /// Send datagrams at a rate, and ask how many arrived.
    UdpLoad(load::SendArgs),
    /// Ask how many datagrams arrived.
    UdpReport(load::ReportArgs),
    /// Measure how long datagrams take there and back.
    UdpRoundTrip(load::RoundTripArgs),
    /// Serve one web page.
    HttpServe(http::Args),
    /// Serve checked transfers.
    TransferServe(transfer::ServeArgs),
    /// Download pseudo-random bytes and compare checksums.
    Download(transfer::Args),
    /// Upload pseudo-random bytes and compare checksums.
    Upload(transfer::Args),
    /// Send what others send once more.
    Replay(replay::Args),
    /// Pass frames between two interfaces, as a bad path would.
    Impair(impair::Args),
    /// Carry connections of TCP by CONNECT to a connector.
    ConnectForward(connect_forward::Args),
    /// Send a packet with any source address.
    SendRaw(raw::Args),
    /// Count packets that contain a marker.
    Sniff(sniff::Args),
    /// Keep connections until nothing comes any more.
    UseAccess(access::Args),
    /// Kill a control plane again and again while it is written to.
    Durability(durability::Args),
    /// Ask control plane and connector the same questions, and decide them alone.
    Agreement(agreement::Args),
    /// Write policies and register devices.
    Populate(populate::Args),
    /// Enrol a device for a client of others.
    Enroll(enroll::Args),
    /// Be many WireGuard devices.
    Crowd(crowd::Args),
    /// Send handshakes of nobody.
    HandshakeFlood(flood::Args),
    /// Send handshakes of QUIC that nobody finishes, or what is none.
    QuicFlood(quic_flood::Args),
    /// Make a world and keep it until killed.
    HoldWorld,
}

/// Where a server listens; the kernel chooses the port.
#[derive(clap::Args)]
struct Bind {
    /// Address to listen on.
    #[arg(long)]
    bind: IpAddr,
    /// Port to listen on; chosen by the kernel if not given.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

fn main() -> ExitCode {
    let result = match Cli::parse() {
        Cli::TcpServe(args) => serve::run(args),
        Cli::TcpAsk(args) => download::ask(&args),
        Cli::TcpPoll(args) => poll::run(&args),
        Cli::TcpDownload(args) => download::run(&args),
        Cli::UdpServe(args) => udp::serve(&args),
        Cli::UdpPing(args) => udp::ping(&args),
        Cli::UdpCount(args) => load::count(&args),
        Cli::UdpLoad(args) => load::send(&args),
        Cli::UdpReport(args) => load::report(&args),
        Cli::UdpRoundTrip(args) => load::round_trip(&args),
        Cli::HttpServe(args) => http::run(args),
        Cli::TransferServe(args) => transfer::serve(&args),
        Cli::Download(args) => transfer::download(&args),
        Cli::Upload(args) => transfer::upload(&args),
        Cli::Replay(args) => replay::run(args),
        Cli::Impair(args) => impair::run(&args),
        Cli::ConnectForward(args) => connect_forward::run(&args),
        Cli::SendRaw(args) => raw::run(&args),
        Cli::Sniff(args) => sniff::run(&args),
        Cli::UseAccess(args) => access::run(&args),
        Cli::Durability(args) => durability::run(&args),
        Cli::Agreement(args) => agreement::run(&args),
        Cli::Populate(args) => populate::run(&args),
        Cli::Enroll(args) => enroll::run(&args),
        Cli::Crowd(args) => crowd::run(&args),
        Cli::HandshakeFlood(args) => flood::run(&args),
        Cli::QuicFlood(args) => quic_flood::run(&args),
        Cli::HoldWorld => hold::run(),
    };

    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
