#!/usr/bin/env python3
"""A MASQUE client on aioquic or h2: stacks of HTTP that share no code with the connector's.

It speaks CONNECT-IP (RFC 9484), CONNECT-UDP (RFC 9298) and CONNECT (RFC 9114) to a connector, holds
a session with it, or breaks the rules on purpose, and prints what comes back as JSON lines. Each line has `event`, its
name, and `t`, the monotonic clock in nanoseconds. What comes back is held to the RFCs: the first
thing they forbid ends the program.

Exit codes: 0 done; 1 a fault of this program; 2 wrong arguments; 3 the connector violates an RFC;
4 nothing came in time; 5 no connection, or another key than the pin says; 6 refused, and the last
lines say how.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import ipaddress
import struct
import sys
from pathlib import Path
from typing import AsyncContextManager, Awaitable, Callable

from headers import connect_headers, connect_udp_headers
from http2 import connected_by_tcp
from http3 import MAX_DATAGRAM_LEN, connected
from ip_tunnel import ATTEMPTS, PATIENCE_S, IpTunnel
from misbehaviour import kinds, run_misbehave
from outcome import NoConnection, Refused, Violation, say
from packets import Echo
from session import hold_session, session_headers
from stream import Data, Datagram, End, Peer, Stream, say_end, split_socket

# Without the headers of IPv6 and UDP, and the context id.
MAX_PAYLOAD_LEN = MAX_DATAGRAM_LEN - 40 - 8 - 1


def reached(args: argparse.Namespace) -> AsyncContextManager[Peer]:
    return connected_by_tcp(args) if args.http2 else connected(args)


async def run_connect_ip(args: argparse.Namespace) -> None:
    async with reached(args) as peer:
        tunnel = await IpTunnel.open(peer, args)
        if args.request:
            await tunnel.request_addresses(args.request)
        payload = hashlib.shake_128(b"echo").digest(args.bytes)
        targets: list[tuple[str, int | None]] = [split_socket(target) for target in args.udp]
        targets += [(target, None) for target in args.icmp]
        for number, (host, port) in enumerate(targets):
            destination = ipaddress.ip_address(host)
            source = tunnel.source_for(destination)
            await tunnel.exchange(Echo(source, 40_000 + number, destination, port, payload))


async def run_connect_udp(args: argparse.Namespace) -> None:
    host, port = split_socket(args.target)
    payload = hashlib.shake_128(b"echo").digest(args.bytes)
    async with reached(args) as peer:
        stream = peer.request(connect_udp_headers(args, host, str(port)))
        await stream.success(is_capsules=True)
        for number in range(args.count):
            datagram = struct.pack("!I", number) + payload
            attempt = await exchange_datagram(stream, datagram)
            say("reply", kind="udp", bytes=len(datagram), attempt=attempt)


async def exchange_datagram(stream: Stream, datagram: bytes) -> int:
    async def answer() -> None:
        while True:
            message = await stream.next()
            if isinstance(message, Datagram) and message.data == b"\0" + datagram:
                return

    for attempt in range(1, ATTEMPTS + 1):
        stream.send_datagram(0, datagram)
        try:
            await asyncio.wait_for(answer(), PATIENCE_S)
            return attempt
        except asyncio.TimeoutError:
            continue
    raise asyncio.TimeoutError("no answer to a datagram")


async def run_session(args: argparse.Namespace) -> None:
    async with reached(args) as peer:
        await hold_session(peer.request(session_headers(args)), args)


async def run_connect(args: argparse.Namespace) -> None:
    async with reached(args) as peer:
        stream = peer.request(connect_headers(args, args.target))
        await stream.success(is_capsules=False)
        stream.send(f"GET / HTTP/1.1\r\nHost: {args.target}\r\nConnection: close\r\n\r\n".encode())
        received = bytearray()
        while not isinstance(message := await stream.incoming.get(), End):
            if not isinstance(message, Data):
                say_end(message)
                raise Refused("the connection was cut")
            received += message.data
        stream.send(b"", end=True)
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        status = head.split(b" ", 2)[1].decode() if head.startswith(b"HTTP/1.1 ") else ""
        digest = hashlib.sha256(body).hexdigest()
        say("page", status=status, bytes=len(body), sha256=digest)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connector", required=True, metavar="HOST:PORT")
    parser.add_argument("--pin", required=True, help="SHA-256 of the connector's key, base64url")
    parser.add_argument("--certificate", required=True, metavar="FILE", help="PEM, self-signed")
    parser.add_argument("--key", required=True, metavar="FILE", help="the device key, PEM")
    parser.add_argument("--credential-file", required=True, metavar="FILE")
    parser.add_argument("--http2", action="store_true", help="over TCP, but for misbehaviour")
    parser.add_argument("--timeout-s", type=float, default=20.0, help="for everything together")
    parser.add_argument(
        "--max-datagram-frame-size", type=int, default=65_535, help="what the connector may send"
    )
    commands = parser.add_subparsers(required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace], Awaitable[None]], words: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=words, description=words)
        command.set_defaults(run=run)
        return command

    ip = add("connect-ip", run_connect_ip, "Exchange packets through a CONNECT-IP tunnel.")
    ip.add_argument("--udp", action="append", default=[], metavar="HOST:PORT", help="UDP echo")
    ip.add_argument("--icmp", action="append", default=[], metavar="HOST", help="ICMP echo")
    ip.add_argument("--request", action="append", default=[], metavar="PREFIX", help="ask for it")
    ip.add_argument("--bytes", type=int, default=64, help="payload of an echo")
    ip.add_argument("--in-capsules", action="store_true", help="send packets in DATAGRAM capsules")

    udp = add("connect-udp", run_connect_udp, "Exchange datagrams with a UDP echo server.")
    udp.add_argument("--target", required=True, metavar="HOST:PORT")
    udp.add_argument("--count", type=int, default=3)
    udp.add_argument("--bytes", type=int, default=64, help="payload after a number of four bytes")

    tcp = add("connect", run_connect, "Fetch a page of a web server.")
    tcp.add_argument("--target", required=True, metavar="HOST:PORT")

    add("session", run_session, "Hold a session for a moment.")

    wrong = add("misbehave", run_misbehave, "Break a rule, and print what the connector says.")
    wrong.add_argument("kind", metavar="KIND", help="a wrong one names all")
    wrong.add_argument("--target", default="192.0.2.1:9", metavar="HOST:PORT")

    args = parser.parse_args()
    for file in (args.certificate, args.key, args.credential_file):
        if not Path(file).is_file():
            parser.error(f"there is no file {file}")
    if getattr(args, "bytes", 0) > MAX_PAYLOAD_LEN:
        parser.error(f"at most {MAX_PAYLOAD_LEN} bytes fit a datagram")
    if args.run is run_misbehave and args.kind not in kinds(args):
        wrong.error(f"no such kind; there are {', '.join(kinds(args))}")
    return args


def main() -> int:
    args = parse_arguments()

    async def run() -> None:
        await asyncio.wait_for(args.run(args), args.timeout_s)

    try:
        asyncio.run(run())
    except Refused as error:
        say("refused", why=str(error))
        return 6
    except Violation as error:
        say("violation", why=str(error))
        return 3
    except asyncio.TimeoutError as error:
        say("timeout", why=str(error))
        return 4
    except (NoConnection, OSError) as error:
        say("no-connection", why=str(error))
        return 5
    return 0


if __name__ == "__main__":
    sys.exit(main())
