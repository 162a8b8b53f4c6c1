"""Signing: with a key, entries and step checkpoints of a store are signed, and what others wrote there is not trusted.

The key is TIME_RAY_STORE_KEY of the environment, and travels no other way. The name of an empty file on the storage
says which key signs it, without giving it away: so another key, or a store that was never signed, is noticed before
all of it is taken for forged.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from time_ray.core.errors import UserError
from time_ray.store.files import Files

KEY = "TIME_RAY_STORE_KEY"
SIGNED = "signed"  # a folder of empty files, each named by the mark of a key
SHORTEST = 16  # letters of a key
RESULTS = ("weights", "scores")  # kinds without which nothing is signed yet


@dataclass(frozen=True)
class Signer:
    """Who has the key."""

    key: bytes = field(repr=False)

    def sign(self, *parts: str) -> str:
        """HMAC-SHA256 of texts, in hex; no other texts in a row have the same."""
        return hmac.new(self.key, json.dumps(parts).encode(), hashlib.sha256).hexdigest()

    def has_signed(self, signature: object, *parts: str) -> bool:
        """Whether that is what `sign` gives."""
        return isinstance(signature, str) and hmac.compare_digest(signature.encode(), self.sign(*parts).encode())

    @property
    def mark(self) -> str:
        """What tells this key from others."""
        return self.sign("time_ray store")


def own_signer(environ: Mapping[str, str] = os.environ) -> Signer | None:
    """The signer whose key the environment holds; None without one. Raises UserError for one that can be guessed."""
    key = environ.get(KEY)
    if not key:
        return None
    if len(key) < SHORTEST:
        raise UserError(f"{KEY}: has fewer than {SHORTEST} letters; make one by `openssl rand -hex 32`")
    return Signer(key.encode(errors="surrogateescape"))


def signer_of(files: Files) -> Signer | None:
    """Who signs what is written to the store, and whose entries are trusted; None without a key: whatever is whole.

    Raises UserError where the store was not signed, or with another key alone.
    """
    signer = own_signer()
    if signer is None or signer.mark in (found := marks(files)):
        return signer
    if found:
        raise wrong_key(files)
    if any(files.list(kind, recursive=True) for kind in RESULTS):
        raise UserError(
            f"storage: {files.shown}: {KEY} is set, and what is there is not signed; "
            "run `time-ray store sign` once if you trust it all, or unset the key"
        )
    return signer


def start_signing(files: Files) -> None:
    """The store is one that the owner of the key, or of no key, may write. Raises UserError if it is not."""
    signer = signer_of(files)
    if signer is not None:
        mark_signed(files, signer)
    elif marks(files):
        raise UserError(f"storage: {files.shown}: is signed; set {KEY} to add to it, or give another storage")


def marks(files: Files) -> frozenset[str]:
    """The keys that the store is signed with, by their marks; none if it is not signed."""
    return frozenset(file.base_name for file in files.list(SIGNED))


def mark_signed(files: Files, signer: Signer) -> None:
    """From now on only what this key has signed is trusted by who has it."""
    if signer.mark not in marks(files):
        files.write(b"", SIGNED, signer.mark)


def wrong_key(files: Files) -> UserError:
    """The error to raise where the store is signed, and not with our key."""
    return UserError(f"storage: {files.shown}: is signed with another key than {KEY} holds; correct it")
