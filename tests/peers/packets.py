"""Packets that go through a CONNECT-IP tunnel."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from capsules import IpAddress
from outcome import Violation

UDP = 17
ICMP = {4: 1, 6: 58}
ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
INITIAL_TTL = 64


def checksum(data: bytes) -> int:
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total: int = sum(words)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def pseudo_header(source: IpAddress, destination: IpAddress, protocol: int, length: int) -> bytes:
    if source.version == 4:
        tail = struct.pack("!xBH", protocol, length)
    else:
        tail = struct.pack("!I3xB", length, protocol)
    return source.packed + destination.packed + tail


def ip_packet(source: IpAddress, destination: IpAddress, protocol: int, segment: bytes) -> bytes:
    if source.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(segment), protocol, INITIAL_TTL)
        return head + source.packed + destination.packed + segment
    length = 20 + len(segment)
    head = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0x4000, INITIAL_TTL, protocol, 0)
    head += source.packed + destination.packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + segment


@dataclass(frozen=True)
class Echo:
    """What is sent to be sent back, by UDP or, without a port, by ICMP."""

    source: IpAddress
    source_port: int
    destination: IpAddress
    destination_port: int | None
    payload: bytes

    def packet(self) -> bytes:
        version = self.source.version
        if self.destination_port is not None:
            protocol, at = UDP, 6
            length = 8 + len(self.payload)
            ports = (self.source_port, self.destination_port)
            segment = struct.pack("!HHHH", *ports, length, 0) + self.payload
        else:
            protocol, at = ICMP[version], 2
            head = struct.pack("!BBHHH", ECHO_REQUEST[version], 0, 0, self.source_port, 1)
            segment = head + self.payload
        covered = segment
        if protocol != ICMP[4]:
            own = (self.source, self.destination, protocol, len(segment))
            covered = pseudo_header(*own) + segment
        value = checksum(covered)
        if protocol == UDP and value == 0:
            value = 0xFFFF
        segment = segment[:at] + struct.pack("!H", value) + segment[at + 2 :]
        return ip_packet(self.source, self.destination, protocol, segment)

    def is_answered_by(self, packet: Packet) -> bool:
        ends = (packet.source, packet.destination) == (self.destination, self.source)
        if self.destination_port is not None:
            head = struct.pack("!HH", self.destination_port, self.source_port)
            is_reply = packet.protocol == UDP and packet.segment[:4] == head
        else:
            head = struct.pack("!BB", ECHO_REPLY[self.source.version], 0)
            is_reply = packet.protocol == ICMP[self.source.version]
            is_reply = is_reply and packet.segment[:2] == head
            is_reply = is_reply and packet.segment[4:6] == struct.pack("!H", self.source_port)
        is_whole = not packet.is_fragment and packet.segment[8:] == self.payload
        return ends and is_reply and is_whole

    def is_refused_by(self, packet: Packet) -> bool:
        """Tells whether this is an ICMP error about the echo: it carries the head of the packet."""
        is_error = packet.protocol == ICMP[self.source.version] and (
            packet.segment[0] < 128 if self.source.version == 6 else packet.segment[0] in (3, 11)
        )
        own = self.packet()
        header_len = 40 if self.source.version == 6 else 20
        quoted = packet.segment[8:]
        return is_error and quoted[header_len:][:4] == own[header_len:][:4]


@dataclass(frozen=True)
class Packet:
    source: IpAddress
    destination: IpAddress
    protocol: int
    ttl: int
    is_fragment: bool
    segment: bytes

    @staticmethod
    def parse(data: bytes) -> Packet:
        """Takes a packet apart, and checks lengths and checksums as its receiver would."""
        if len(data) >= 20 and data[0] >> 4 == 4:
            header_len, length = (data[0] & 0xF) * 4, int.from_bytes(data[2:4], "big")
            if checksum(data[:header_len]) != 0:
                raise Violation("a packet with a wrong checksum of its IPv4 header")
            ttl, protocol = data[8], data[9]
            is_fragment = int.from_bytes(data[6:8], "big") & 0x3FFF != 0
            source: IpAddress = ipaddress.IPv4Address(data[12:16])
            destination: IpAddress = ipaddress.IPv4Address(data[16:20])
        elif len(data) >= 40 and data[0] >> 4 == 6:
            header_len, length = 40, 40 + int.from_bytes(data[4:6], "big")
            protocol, ttl, is_fragment = data[6], data[7], False
            source = ipaddress.IPv6Address(data[8:24])
            destination = ipaddress.IPv6Address(data[24:40])
        else:
            raise Violation(f"{len(data)} bytes in a datagram that are no packet")
        if length != len(data):
            raise Violation(f"a packet of {length} bytes in a datagram of {len(data)}")
        segment = data[header_len:]
        covered = segment
        if protocol != ICMP[4]:
            covered = pseudo_header(source, destination, protocol, len(segment)) + segment
        has_checksum = not (protocol == UDP and source.version == 4 and segment[6:8] == b"\0\0")
        has_checksum = has_checksum and protocol in (UDP, *ICMP.values()) and not is_fragment
        if has_checksum and checksum(covered) != 0:
            raise Violation(f"a packet of protocol {protocol} with a wrong checksum")
        return Packet(source, destination, protocol, ttl, is_fragment, segment)
