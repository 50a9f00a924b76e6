"""Capsules (RFC 9297 §3) and those of CONNECT-IP (RFC 9484 §4.7)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Iterator, Union

from aioquic.buffer import Buffer, BufferReadError, encode_uint_var

from outcome import Violation

IpAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


class Capsule(IntEnum):
    DATAGRAM = 0x00
    ADDRESS_ASSIGN = 0x01
    ADDRESS_REQUEST = 0x02
    ROUTE_ADVERTISEMENT = 0x03


def encode_capsule(kind: int, value: bytes) -> bytes:
    return encode_uint_var(kind) + encode_uint_var(len(value)) + value


def encode_address(request_id: int, address: IpAddress, prefix_len: int) -> bytes:
    version = bytes([address.version])
    return encode_uint_var(request_id) + version + address.packed + bytes([prefix_len])


def encode_route(version: int, start: IpAddress, end: IpAddress, protocol: int) -> bytes:
    return bytes([version]) + start.packed + end.packed + bytes([protocol])


def take_capsules(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """Takes the whole capsules from the front of a buffer."""
    while buffer:
        reader = Buffer(data=bytes(buffer))
        try:
            kind, length = reader.pull_uint_var(), reader.pull_uint_var()
            value = reader.pull_bytes(length)
        except BufferReadError:
            return
        del buffer[: reader.tell()]
        yield kind, value


@dataclass(frozen=True)
class AssignedAddress:
    request_id: int
    address: IpAddress
    prefix_len: int

    def to_json(self) -> dict[str, object]:
        return {"request_id": self.request_id, "prefix": f"{self.address}/{self.prefix_len}"}


@dataclass(frozen=True)
class Route:
    start: IpAddress
    end: IpAddress
    protocol: int

    def to_json(self) -> dict[str, object]:
        return {"start": str(self.start), "end": str(self.end), "protocol": self.protocol}


def pull_ip(reader: Buffer, version: int) -> IpAddress:
    if version == 4:
        return ipaddress.IPv4Address(reader.pull_bytes(4))
    if version == 6:
        return ipaddress.IPv6Address(reader.pull_bytes(16))
    raise Violation(f"an address of IP version {version}")


def parse_address_assign(value: bytes) -> list[AssignedAddress]:
    reader = Buffer(data=value)
    addresses = []
    try:
        while not reader.eof():
            request_id = reader.pull_uint_var()
            address = pull_ip(reader, reader.pull_uint8())
            prefix_len = reader.pull_uint8()
            addresses.append(AssignedAddress(request_id, address, prefix_len))
            # Too long a prefix, or bits beyond it, are errors here too.
            ipaddress.ip_network((address, prefix_len))
    except BufferReadError as error:
        raise Violation("a truncated ADDRESS_ASSIGN") from error
    except ValueError as error:
        raise Violation(f"in ADDRESS_ASSIGN: {error}") from error
    return addresses


def parse_route_advertisement(value: bytes) -> list[Route]:
    reader = Buffer(data=value)
    routes: list[Route] = []
    try:
        while not reader.eof():
            version = reader.pull_uint8()
            start, end = pull_ip(reader, version), pull_ip(reader, version)
            routes.append(Route(start, end, reader.pull_uint8()))
    except BufferReadError as error:
        raise Violation("a truncated ROUTE_ADVERTISEMENT") from error
    for route in routes:
        if int(route.start) > int(route.end):
            raise Violation(f"a route that ends before it begins: {route}")
    for earlier, later in pairwise(routes):
        before = (earlier.start.version, earlier.protocol)
        after = (later.start.version, later.protocol)
        if before > after or (before == after and int(earlier.end) >= int(later.start)):
            raise Violation(f"routes in the wrong order: {earlier}, {later}")
    return routes
