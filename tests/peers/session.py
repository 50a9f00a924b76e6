"""A session channel: one request, and a line of JSON for each message."""

from __future__ import annotations

import argparse
import json
from typing import Any

from headers import credential
from outcome import Refused, Violation, say
from stream import Data, Stream, say_end

MAX_LINE_LEN = 64 << 10


class Session:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.received = bytearray()

    def send(self, message: dict[str, Any]) -> None:
        self.stream.send(json.dumps(message).encode() + b"\n")

    async def next(self) -> dict[str, Any]:
        """Waits for a message and prints it, but for its secrets."""
        while b"\n" not in self.received:
            incoming = await self.stream.incoming.get()
            if not isinstance(incoming, Data):
                say_end(incoming)
                raise Refused("the session has ended")
            self.received += incoming.data
        line, _, rest = bytes(self.received).partition(b"\n")
        self.received = bytearray(rest)
        if len(line) >= MAX_LINE_LEN:
            raise Violation(f"a line of {len(line)} bytes")
        message: dict[str, Any] = json.loads(line)
        say("message", message={k: v for k, v in message.items() if k != "preshared_key"})
        return message


def session_headers(args: argparse.Namespace) -> dict[str, str]:
    return {
        ":method": "POST",
        ":scheme": "https",
        ":authority": args.connector,
        ":path": "/v1/session",
        "content-type": "application/x-ndjson",
    }


async def hold_session(stream: Stream, args: argparse.Namespace) -> None:
    """Is admitted, exchanges a ping for a pong, and ends the session."""
    answer = await stream.answer()
    if answer.status != 200:
        raise Refused(f"status {answer.status}")
    session = Session(stream)
    session.send({"type": "present", "credential": credential(args)})
    while (message := await session.next())["type"] != "admitted":
        if message["type"] == "refused":
            raise Refused(message["reason"])
    session.send({"type": "ping", "request_id": 7})
    while (message := await session.next())["type"] != "pong":
        continue
    if message["request_id"] != 7:
        raise Violation("a pong of another ping")
    stream.send(b"", end=True)
