"""A CONNECT-IP tunnel (RFC 9484)."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress

from aioquic.buffer import Buffer, BufferReadError

from capsules import (
    AssignedAddress,
    Capsule,
    IpAddress,
    Route,
    encode_address,
    encode_capsule,
    parse_address_assign,
    parse_route_advertisement,
)
from headers import connect_ip_headers
from outcome import Refused, Violation, say
from packets import Echo, Packet
from stream import Datagram, Peer, Stream

# Time for one answer, such as that to an echo, before it is asked for again.
PATIENCE_S = 1.0

# Echoes may be lost like any datagram, but not all of these.
ATTEMPTS = 5


class IpTunnel:
    """A CONNECT-IP tunnel, its addresses and its routes."""

    def __init__(self, stream: Stream, in_capsules: bool) -> None:
        self.stream = stream
        self.in_capsules = in_capsules
        self.addresses: list[AssignedAddress] = []
        self.routes: list[Route] | None = None

    @staticmethod
    async def open(peer: Peer, args: argparse.Namespace) -> IpTunnel:
        stream = peer.request(connect_ip_headers(args))
        await stream.success(is_capsules=True)
        tunnel = IpTunnel(stream, getattr(args, "in_capsules", False))
        while not tunnel.addresses or tunnel.routes is None:
            await tunnel.next_packet_or_capsule()
        return tunnel

    async def next_packet_or_capsule(self) -> Packet | None:
        message = await self.stream.next()
        if isinstance(message, Datagram):
            reader = Buffer(data=message.data)
            try:
                context_id = reader.pull_uint_var()
            except BufferReadError as error:
                raise Violation("a datagram without a context id") from error
            # Others are for extensions, of which there are none.
            if context_id != 0:
                raise Violation(f"a datagram with the context id {context_id}")
            return Packet.parse(message.data[reader.tell() :])
        kind, value = message
        if kind == Capsule.ADDRESS_ASSIGN:
            self.addresses = parse_address_assign(value)
            say("address-assign", addresses=[it.to_json() for it in self.addresses])
        elif kind == Capsule.ROUTE_ADVERTISEMENT:
            self.routes = parse_route_advertisement(value)
            say("route-advertisement", routes=[route.to_json() for route in self.routes])
        elif kind == Capsule.ADDRESS_REQUEST:
            raise Violation("a connector that asks for an address of its client")
        return None

    async def request_addresses(self, prefixes: list[str]) -> None:
        """Asks for addresses, and waits until each request has an answer."""
        wanted = {number: ipaddress.ip_network(prefix) for number, prefix in enumerate(prefixes, 1)}
        requests = [
            encode_address(number, prefix.network_address, prefix.prefixlen)
            for number, prefix in wanted.items()
        ]
        self.stream.send(encode_capsule(Capsule.ADDRESS_REQUEST, b"".join(requests)))
        answered: set[int] = set()
        while not answered >= wanted.keys():
            await self.next_packet_or_capsule()
            answered |= {address.request_id for address in self.addresses}
        for number in wanted:
            answers = [it for it in self.addresses if it.request_id == number]
            say("requested", prefix=prefixes[number - 1], answers=[it.to_json() for it in answers])

    async def exchange(self, echo: Echo) -> None:
        """Sends an echo until its answer has come."""
        kind = "icmp" if echo.destination_port is None else "udp"
        for attempt in range(1, ATTEMPTS + 1):
            self.stream.send_datagram(0, echo.packet(), self.in_capsules)
            try:
                packet = await asyncio.wait_for(self.answer_to(echo), PATIENCE_S)
            except asyncio.TimeoutError:
                continue
            fields = {"kind": kind, "from": str(packet.source), "ttl": packet.ttl}
            if echo.is_answered_by(packet):
                say("reply", **fields, bytes=len(echo.payload), attempt=attempt)
                return
            say("icmp-error", **fields, type=packet.segment[0], code=packet.segment[1])
            raise Refused("the packet was refused")
        raise asyncio.TimeoutError(f"no answer from {echo.destination}")

    async def answer_to(self, echo: Echo) -> Packet:
        while True:
            packet = await self.next_packet_or_capsule()
            if packet is None:
                continue
            if packet.destination not in [it.address for it in self.addresses]:
                raise Violation(f"a packet to {packet.destination}, which was not assigned")
            if echo.is_answered_by(packet) or echo.is_refused_by(packet):
                return packet

    def source_for(self, destination: IpAddress) -> IpAddress:
        for assigned in self.addresses:
            if assigned.address.version == destination.version and int(assigned.address) != 0:
                return assigned.address
        raise Violation(f"no address of IPv{destination.version} was assigned")
