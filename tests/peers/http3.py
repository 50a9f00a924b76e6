"""A connection with a connector by QUIC."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import ssl
from base64 import urlsafe_b64encode
from contextlib import asynccontextmanager
from typing import AsyncIterator

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection, Setting
from aioquic.h3.events import DatagramReceived, DataReceived, Headers, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StopSendingReceived, StreamReset
from aioquic.quic.packet import QuicProtocolVersion
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from outcome import NoConnection, Refused, Violation, say
from stream import Abort, Answer, Data, Datagram, End, Incoming, Stream, say_end, split_socket

# Datagrams that fit the smallest packet of QUIC, with its headers and those of HTTP: aioquic waits
# forever with one that does not fit.
MAX_DATAGRAM_LEN = 1_150


class MasqueConnection(H3Connection):
    def _get_local_settings(self) -> dict[int, int]:
        # aioquic offers datagrams with WebTransport alone.
        return {**super()._get_local_settings(), Setting.H3_DATAGRAM: 1}


class Peer(QuicConnectionProtocol):
    """A connection with a connector."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.http = MasqueConnection(self._quic)
        self.streams: dict[int, Stream] = {}
        self.closed: Abort | None = None
        self.has_settings = asyncio.Event()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.closed = Abort("closed", event.error_code, event.reason_phrase)
            self.has_settings.set()
            for stream in self.streams.values():
                stream.incoming.put_nowait(self.closed)
            return
        if isinstance(event, StreamReset):
            self.deliver(event.stream_id, Abort("reset", event.error_code))
        elif isinstance(event, StopSendingReceived):
            self.deliver(event.stream_id, Abort("stopped", event.error_code))
        for message in self.http.handle_event(event):
            if isinstance(message, DatagramReceived):
                self.deliver(message.stream_id, Datagram(message.data))
            elif isinstance(message, (HeadersReceived, DataReceived)):
                if isinstance(message, HeadersReceived):
                    headers = {name.decode(): value.decode() for name, value in message.headers}
                    status = int(headers.pop(":status", "0"))
                    self.deliver(message.stream_id, Answer(status, headers))
                elif message.data:
                    self.deliver(message.stream_id, Data(message.data))
                if message.stream_ended:
                    self.deliver(message.stream_id, End())
        if self.http.received_settings is not None:
            self.has_settings.set()

    def deliver(self, stream_id: int, message: Incoming) -> None:
        if stream_id in self.streams:
            self.streams[stream_id].incoming.put_nowait(message)

    def request(self, headers: dict[str, str]) -> Stream:
        stream = Stream(self, self._quic.get_next_available_stream_id())
        self.streams[stream.id] = stream
        encoded: Headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.http.send_headers(stream.id, encoded)
        self.transmit()
        return stream

    def send_data(self, stream_id: int, data: bytes, end: bool) -> None:
        self.http.send_data(stream_id, data, end)
        self.transmit()

    def send_datagram(self, stream_id: int, data: bytes) -> None:
        if len(data) > MAX_DATAGRAM_LEN:
            raise ValueError(f"a datagram of {len(data)} bytes, of at most {MAX_DATAGRAM_LEN}")
        self.http.send_datagram(stream_id, data)
        self.transmit()

    def pin(self) -> str:
        certificate = self._quic.tls._peer_certificate
        if certificate is None:
            raise NoConnection("the connector has shown no certificate")
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = hashlib.sha256(certificate.public_key().public_bytes(*form)).digest()
        return urlsafe_b64encode(digest).rstrip(b"=").decode()


@asynccontextmanager
async def connected(args: argparse.Namespace, certificate: bool = True) -> AsyncIterator[Peer]:
    """Connects, compares the pin, and waits for the connector's settings."""
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN,
        is_client=True,
        max_datagram_frame_size=args.max_datagram_frame_size,
        supported_versions=[QuicProtocolVersion.VERSION_1],
        # Nobody has signed the certificate; the pin is compared below.
        verify_mode=ssl.CERT_NONE,
    )
    if certificate:
        configuration.load_cert_chain(args.certificate, args.key)
    host, port = split_socket(args.connector)
    opening = connect(
        host, port, configuration=configuration, create_protocol=Peer, wait_connected=False
    )
    async with opening as protocol:
        peer: Peer = protocol  # type: ignore[assignment]
        peer.transmit()
        try:
            await peer.wait_connected()
        except ConnectionError as error:
            say_end(peer.closed or Abort("closed", 0))
            raise NoConnection("the handshake has failed") from error
        pin = peer.pin()
        say("connected", pin=pin, alpn=peer._quic.tls.alpn_negotiated)
        if pin != args.pin:
            raise NoConnection(f"the connector's pin is {pin}")
        await peer.has_settings.wait()
        if peer.closed is not None:
            say_end(peer.closed)
            raise Refused("the connection was closed")
        settings = peer.http.received_settings or {}
        say("settings", settings={f"0x{key:x}": value for key, value in settings.items()})
        for setting in (Setting.ENABLE_CONNECT_PROTOCOL, Setting.H3_DATAGRAM):
            if settings.get(setting) != 1:
                raise Violation(f"the setting {setting.name} is not 1")
        yield peer
