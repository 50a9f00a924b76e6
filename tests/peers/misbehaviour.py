"""Requests, capsules and datagrams that break a rule, and what comes back."""

from __future__ import annotations

import argparse
import ipaddress

from aioquic.buffer import encode_uint_var

from capsules import Capsule, encode_address, encode_capsule, encode_route
from headers import (
    CONNECT_IP_PATH,
    connect_headers,
    connect_ip_headers,
    connect_udp_headers,
    extended_connect,
)
from http3 import Peer, connected
from ip_tunnel import IpTunnel
from outcome import Violation
from stream import Abort, Data, Datagram, Stream, say_end, split_socket


def without(headers: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names}


def wrong_requests(args: argparse.Namespace) -> dict[str, dict[str, str]]:
    """Requests that get a refusal; what each is refused with is for the caller to judge."""
    connect_ip = connect_ip_headers(args)
    classic = connect_headers(args, args.target)
    host, port = split_socket(args.target)
    connect_udp = connect_udp_headers(args, host, str(port))
    return {
        "no-credential": without(connect_ip, "authorization"),
        "wrong-credential": {**connect_ip, "authorization": "Bearer nonsense"},
        "wrong-scheme-of-credential": {**connect_ip, "authorization": "Basic YTpi"},
        "udp-no-credential": without(connect_udp, "authorization"),
        "udp-wrong-credential": {**connect_udp, "authorization": "Bearer nonsense"},
        "connect-no-credential": without(classic, "proxy-authorization"),
        "connect-wrong-credential": {**classic, "proxy-authorization": "Bearer nonsense"},
        "unknown-protocol": {**connect_ip, ":protocol": "connect-carrier-pigeon"},
        "wrong-path": {**connect_ip, ":path": "/"},
        "udp-wrong-path": {**connect_udp, ":path": "/.well-known/masque/udp/"},
        "udp-bad-port": connect_udp_headers(args, host, "65536"),
        "udp-no-port": connect_udp_headers(args, host, "0"),
        "udp-bad-host": connect_udp_headers(args, "[not-an-address", str(port)),
        "ip-bad-target": extended_connect(
            args, "connect-ip", CONNECT_IP_PATH.replace("*/*", "10.9.0.0%2F99/*")
        ),
        "connect-bad-target": {**classic, ":authority": "no-port"},
    }


def wrong_capsules() -> dict[str, bytes]:
    """Capsules that abort the stream (RFC 9297 §3.3, RFC 9484 §4.7)."""
    any_v4 = ipaddress.IPv4Address(0)
    low, high = ipaddress.IPv4Address("192.0.2.1"), ipaddress.IPv4Address("192.0.2.9")
    assign, request, routes = (
        Capsule.ADDRESS_ASSIGN,
        Capsule.ADDRESS_REQUEST,
        Capsule.ROUTE_ADVERTISEMENT,
    )
    good = encode_address(1, any_v4, 32)
    return {
        "bad-capsule": encode_capsule(assign, b"\x00\x05\x00"),
        "empty-address-request": encode_capsule(request, b""),
        "zero-request-id": encode_capsule(request, encode_address(0, any_v4, 32)),
        "too-long-prefix": encode_capsule(request, encode_address(1, any_v4, 33)),
        "bits-beyond-prefix": encode_capsule(request, encode_address(1, low, 24)),
        "cut-address-request": encode_capsule(request, good[:-1]),
        "trailing-byte": encode_capsule(request, good + b"\x01"),
        "backward-route": encode_capsule(routes, encode_route(4, high, low, 0)),
        "unordered-routes": encode_capsule(
            routes, encode_route(4, high, high, 0) + encode_route(4, low, low, 0)
        ),
        "overlapping-routes": encode_capsule(
            routes, encode_route(4, low, high, 0) + encode_route(4, high, high, 0)
        ),
        "huge-capsule": encode_uint_var(assign) + encode_uint_var(1 << 30) + b"\x00" * (128 << 10),
    }


def truncated_capsule() -> bytes:
    return encode_uint_var(Capsule.ADDRESS_REQUEST) + encode_uint_var(7) + b"\x01\x04"


async def wait_for_abort(stream: Stream) -> None:
    """Waits until the connector aborts the stream, and prints everything it says by that."""
    while True:
        message = await stream.incoming.get()
        if isinstance(message, (Data, Datagram)):
            continue
        say_end(message)
        # To abort is to reset one direction and to stop the other, in any order.
        if isinstance(message, Abort) and message.how != "stopped":
            return


async def send_wrong_request(peer: Peer, headers: dict[str, str]) -> None:
    answer = await peer.request(headers).answer()
    if answer.status < 300:
        raise Violation("a wrong request succeeds")


async def send_wrong_capsule(peer: Peer, args: argparse.Namespace, data: bytes, end: bool) -> None:
    tunnel = await IpTunnel.open(peer, args)
    tunnel.stream.send(data, end=end)
    await wait_for_abort(tunnel.stream)


async def send_unknown(peer: Peer, args: argparse.Namespace, what: str) -> None:
    """Sends what must be ignored, and asks for an address to see that it was."""
    tunnel = await IpTunnel.open(peer, args)
    if what == "unknown-capsule":
        # A type reserved to be unknown: 0x29 * N + 0x17 (RFC 9297 §5.4).
        tunnel.stream.send(encode_capsule(0x29 * 1_000 + 0x17, b"whatever"))
    elif what == "unknown-context":
        tunnel.stream.send_datagram(6, b"whatever")
    else:
        tunnel.stream.send_datagram(0, b"\x45\x00")
    await tunnel.request_addresses(["0.0.0.0/32"])


async def send_empty_datagram(peer: Peer, args: argparse.Namespace) -> None:
    """Sends a datagram that is of no stream, which ends the connection (RFC 9297 §2.1)."""
    tunnel = await IpTunnel.open(peer, args)
    peer._quic.send_datagram_frame(b"")
    peer.transmit()
    await wait_for_abort(tunnel.stream)


async def show_no_certificate(args: argparse.Namespace) -> None:
    async with connected(args, certificate=False) as peer:
        # The connector learns of it when the client believes to be connected.
        await send_wrong_request(peer, connect_ip_headers(args))


IGNORED = ("unknown-capsule", "unknown-context", "packet-too-short")
OTHERS = ("truncated-capsule", "empty-datagram", "no-certificate", *IGNORED)


def kinds(args: argparse.Namespace) -> list[str]:
    return [*wrong_requests(args), *wrong_capsules(), *OTHERS]


async def run_misbehave(args: argparse.Namespace) -> None:
    kind, requests, capsules = args.kind, wrong_requests(args), wrong_capsules()
    if kind == "no-certificate":
        await show_no_certificate(args)
        return
    async with connected(args) as peer:
        if kind in requests:
            await send_wrong_request(peer, requests[kind])
        elif kind in capsules:
            await send_wrong_capsule(peer, args, capsules[kind], end=False)
        elif kind == "truncated-capsule":
            await send_wrong_capsule(peer, args, truncated_capsule(), end=True)
        elif kind == "empty-datagram":
            await send_empty_datagram(peer, args)
        else:
            await send_unknown(peer, args, kind)
