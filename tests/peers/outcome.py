"""What the client prints, and how it may fail."""

from __future__ import annotations

import json
import time


class Violation(Exception):
    """What the connector does is forbidden by an RFC."""


class Refused(Exception):
    """The connector does not do what it was asked."""


class NoConnection(Exception):
    """There is no connection with the connector that was meant."""


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, "t": time.monotonic_ns(), **fields}), flush=True)
