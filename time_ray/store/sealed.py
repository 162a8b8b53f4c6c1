"""Sealed JSON: its last line is the digest of what stands before it, so that a whole file says so itself."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def sealed(fields: Mapping[str, object]) -> bytes:
    """The fields as JSON, and their seal. ValueError for what JSON cannot hold, such as NaN."""
    body = json.dumps(fields, indent=1, allow_nan=False)
    return f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n".encode()


def unsealed(data: bytes) -> dict[str, Any] | None:
    """The fields of a sealed file; None if a byte is missing or was changed."""
    body, _, seal = data.decode(errors="replace").removesuffix("\n").rpartition("\n")
    if hashlib.sha256(body.encode()).hexdigest() != seal:
        return None
    fields: dict[str, Any] = json.loads(body)
    return fields
