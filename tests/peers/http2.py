"""A connection with a connector over TCP, for the same requests as on QUIC."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import ssl
from base64 import urlsafe_b64encode
from contextlib import asynccontextmanager
from typing import AsyncIterator

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes

from capsules import Capsule, encode_capsule
from outcome import NoConnection, Refused, Violation, say
from stream import Abort, Answer, Data, End, Incoming, Stream, say_end, split_socket


class Http2Peer:
    """A connection with a connector."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The requests of extended CONNECT are not what the library's own checks know.
        configuration = H2Configuration(
            header_encoding="utf-8", validate_outbound_headers=False
        )
        self.http = H2Connection(configuration)
        self.reader = reader
        self.writer = writer
        self.streams: dict[int, Stream] = {}
        self.closed: Abort | None = None
        self.has_settings = asyncio.Event()

    def request(self, headers: dict[str, str]) -> Stream:
        stream = Stream(self, self.http.get_next_available_stream_id())
        self.streams[stream.id] = stream
        self.http.send_headers(stream.id, list(headers.items()))
        self.transmit()
        return stream

    def send_data(self, stream_id: int, data: bytes, end: bool) -> None:
        self.http.send_data(stream_id, data, end)
        self.transmit()

    def send_datagram(self, stream_id: int, data: bytes) -> None:
        self.send_data(stream_id, encode_capsule(Capsule.DATAGRAM, data), False)

    def transmit(self) -> None:
        self.writer.write(self.http.data_to_send())

    async def run(self) -> None:
        while received := await self.reader.read(65_536):
            for event in self.http.receive_data(received):
                self.handle(event)
            self.transmit()
        self.close(Abort("closed", 0, "the connection has ended"))

    def handle(self, event: Event) -> None:
        if isinstance(event, RemoteSettingsChanged):
            self.has_settings.set()
        elif isinstance(event, ResponseReceived):
            headers = dict(event.headers)
            status = int(headers.pop(":status", "0"))
            self.deliver(event.stream_id, Answer(status, headers))
        elif isinstance(event, DataReceived):
            self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.data:
                self.deliver(event.stream_id, Data(event.data))
        elif isinstance(event, StreamEnded):
            self.deliver(event.stream_id, End())
        elif isinstance(event, StreamReset):
            self.deliver(event.stream_id, Abort("reset", int(event.error_code)))
        elif isinstance(event, ConnectionTerminated):
            reason = (event.additional_data or b"").decode(errors="replace")
            self.close(Abort("closed", int(event.error_code), reason))

    def close(self, how: Abort) -> None:
        self.closed = self.closed or how
        self.has_settings.set()
        for stream in self.streams.values():
            stream.incoming.put_nowait(self.closed)

    def deliver(self, stream_id: int, message: Incoming) -> None:
        if stream_id in self.streams:
            self.streams[stream_id].incoming.put_nowait(message)


@asynccontextmanager
async def connected_by_tcp(args: argparse.Namespace) -> AsyncIterator[Http2Peer]:
    """Connects, compares the pin, and waits for the connector's settings."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nobody has signed the certificate; the pin is compared below.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(args.certificate, args.key)
    host, port = split_socket(args.connector)
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, ssl.SSLError) as error:
        raise NoConnection("the handshake has failed") from error
    session = writer.get_extra_info("ssl_object")
    pin = pin_of(session.getpeercert(binary_form=True))
    say("connected", pin=pin, alpn=session.selected_alpn_protocol())
    if pin != args.pin:
        raise NoConnection(f"the connector's pin is {pin}")
    peer = Http2Peer(reader, writer)
    peer.http.initiate_connection()
    peer.transmit()
    running = asyncio.create_task(peer.run())
    try:
        await peer.has_settings.wait()
        if peer.closed is not None:
            say_end(peer.closed)
            raise Refused("the connection was closed")
        settings = peer.http.remote_settings
        say("settings", settings={f"0x{int(key):x}": value for key, value in settings.items()})
        if settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL) != 1:
            raise Violation("the setting ENABLE_CONNECT_PROTOCOL is not 1")
        yield peer
    finally:
        running.cancel()
        writer.close()


def pin_of(certificate: bytes) -> str:
    public_key = x509.load_der_x509_certificate(certificate).public_key()
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(public_key.public_bytes(*form)).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
