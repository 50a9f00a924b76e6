"""The header fields of requests that open tunnels."""

from __future__ import annotations

import argparse
from pathlib import Path
from urllib.parse import quote

CONNECT_IP_PATH = "/.well-known/masque/ip/*/*/"


def credential(args: argparse.Namespace) -> str:
    return Path(args.credential_file).read_text(encoding="ascii").strip()


def extended_connect(args: argparse.Namespace, protocol: str, path: str) -> dict[str, str]:
    return {
        ":method": "CONNECT",
        ":protocol": protocol,
        ":scheme": "https",
        ":authority": args.connector,
        ":path": path,
        "capsule-protocol": "?1",
        "authorization": f"Bearer {credential(args)}",
    }


def connect_ip_headers(args: argparse.Namespace) -> dict[str, str]:
    return extended_connect(args, "connect-ip", CONNECT_IP_PATH)


def connect_udp_headers(args: argparse.Namespace, host: str, port: str) -> dict[str, str]:
    # RFC 9298 §3: the colons of an IPv6 address are percent-encoded.
    path = f"/.well-known/masque/udp/{quote(host, safe='')}/{port}/"
    return extended_connect(args, "connect-udp", path)


def connect_headers(args: argparse.Namespace, authority: str) -> dict[str, str]:
    return {
        ":method": "CONNECT",
        ":authority": authority,
        "proxy-authorization": f"Bearer {credential(args)}",
    }
