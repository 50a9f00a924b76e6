"""A request and its answer, whichever version of HTTP carries them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol, Union

from aioquic.buffer import encode_uint_var

from capsules import Capsule, encode_capsule, take_capsules
from outcome import Refused, Violation, say


@dataclass
class Answer:
    status: int
    headers: dict[str, str]


@dataclass
class Data:
    data: bytes


@dataclass
class Datagram:
    data: bytes


class End:
    """The connector has ended the stream in order."""


@dataclass
class Abort:
    """The connector has reset the stream, asked to stop sending, or closed the connection."""

    how: str
    code: int
    reason: str = ""


Incoming = Union[Answer, Data, Datagram, End, Abort]


class Peer(Protocol):
    """A connection with a connector."""

    def request(self, headers: dict[str, str]) -> Stream: ...

    def send_data(self, stream_id: int, data: bytes, end: bool) -> None: ...

    def send_datagram(self, stream_id: int, data: bytes) -> None: ...


@dataclass
class Stream:
    """A request, and what came in answer."""

    peer: Peer
    id: int
    incoming: asyncio.Queue[Incoming] = field(default_factory=asyncio.Queue)
    capsules: bytearray = field(default_factory=bytearray)

    def send(self, data: bytes, end: bool = False) -> None:
        self.peer.send_data(self.id, data, end)

    def send_datagram(self, context_id: int, payload: bytes, in_capsule: bool = False) -> None:
        data = encode_uint_var(context_id) + payload
        if in_capsule:
            self.send(encode_capsule(Capsule.DATAGRAM, data))
            return
        self.peer.send_datagram(self.id, data)

    async def answer(self) -> Answer:
        """Waits for the answer to the request and prints it."""
        while True:
            message = await self.incoming.get()
            if isinstance(message, Answer):
                say("answer", status=message.status, headers=message.headers)
                if message.status >= 200:
                    return message
            elif isinstance(message, Datagram):
                # Datagrams may overtake the answer.
                continue
            else:
                say_end(message)
                raise Refused("no answer")

    async def success(self, is_capsules: bool) -> None:
        """Waits for an answer that begins a tunnel."""
        answer = await self.answer()
        if not 200 <= answer.status < 300:
            raise Refused(f"status {answer.status}")
        # RFC 9110 §9.3.6
        for name in ("content-length", "transfer-encoding"):
            if name in answer.headers:
                raise Violation(f"{name} in a successful answer to CONNECT")
        # RFC 9298 §3.5, RFC 9484 §4.5
        if is_capsules and answer.headers.get("capsule-protocol") != "?1":
            raise Violation("a tunnel without capsule-protocol: ?1")

    async def next(self) -> Union[Datagram, tuple[int, bytes]]:
        """Waits for a datagram or a capsule; a datagram in a capsule is a datagram."""
        while True:
            for kind, value in take_capsules(self.capsules):
                return Datagram(value) if kind == Capsule.DATAGRAM else (kind, value)
            message = await self.incoming.get()
            if isinstance(message, Datagram):
                return message
            if isinstance(message, Data):
                self.capsules += message.data
                continue
            if isinstance(message, End) and self.capsules:
                raise Violation("a stream that ends inside a capsule")
            say_end(message)
            raise Refused("the tunnel was closed")


def say_end(message: Incoming) -> None:
    if isinstance(message, Abort):
        say(message.how, code=message.code, reason=message.reason)
    elif isinstance(message, End):
        say("end")
    else:
        raise Violation(f"not expected here: {message}")


def split_socket(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
