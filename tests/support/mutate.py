"""A mutator of files: the same seed gives the same damage."""

import random
from collections.abc import Sequence

NUMBERS = (b"0", b"-1", b"255", b"65536", b"2147483647", b"4294967295", b"9223372036854775808", b"1e309", b"NaN")
TOKENS = (
    b"",
    b"\0",
    b"\xff\xfe",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b"../",
    b"\n",
    b"&a",
    b"*a",
    b"null",
    b"\xed\xa0\x80",
    b"{:>9}",
)


def mutated(samples: Sequence[bytes], chance: random.Random) -> bytes:
    """One of the samples with one to four things wrong with it."""
    data = chance.choice(samples)
    for _ in range(chance.choice((1, 1, 2, 4))):
        data = chance.choice(_WAYS)(data, samples, chance)
    return data


def _place(data: bytes, chance: random.Random) -> int:
    """Anywhere, and often near the beginning or the end, where headers are."""
    near = min(len(data), 64)
    return chance.choice(
        (chance.randrange(len(data) + 1), chance.randrange(near + 1), len(data) - chance.randrange(near + 1))
    )


def _flipped(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 8)) if data else 0):
        found[min(_place(data, chance), len(data) - 1)] ^= 1 << chance.randrange(8)
    return bytes(found)


def _cut(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    start, stop = sorted((_place(data, chance), _place(data, chance)))
    return data[:start] + data[stop:]


def _ended(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    return data[: _place(data, chance)]


def _repeated(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    start, stop = sorted((_place(data, chance), _place(data, chance)))
    return data[:stop] + data[start:stop] * chance.choice((1, 3)) + data[stop:]


def _joined(data: bytes, samples: Sequence[bytes], chance: random.Random) -> bytes:
    other = chance.choice(samples)
    return data[: _place(data, chance)] + other[_place(other, chance) :]


def _integer(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    at, size = _place(data, chance), chance.choice((1, 2, 4, 8))
    value = chance.choice((0, 1, (1 << 8 * size) - 1, 1 << (8 * size - 1), (1 << (8 * size - 1)) - 1))
    return data[:at] + value.to_bytes(size, chance.choice(("little", "big"))) + data[at + size :]


def _number(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    digits = [at for at in range(len(data)) if data[at : at + 1].isdigit()]
    if not digits:
        return data
    at = chance.choice(digits)
    return data[:at] + chance.choice(NUMBERS) + data[at + 1 :]


def _token(data: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + chance.choice(TOKENS) * chance.choice((1, 1, 200)) + data[at + chance.choice((0, 1, 9)) :]


_WAYS = (_flipped, _cut, _ended, _repeated, _joined, _integer, _number, _token)
