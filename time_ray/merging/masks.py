"""Random masks from a counter-based generator: an element's draw depends on its key and its place, on nothing else.

The key is hashed to 64 bits; each place is mixed with them by two rounds of a 32-bit integer hash. So order, chunks,
threads, processes and devices cannot change a mask.
"""

from functools import lru_cache
from hashlib import blake2b

import torch
from torch import Tensor


def signed(value: int) -> int:
    """The 32-bit two's complement reading of a number's lower 32 bits."""
    return (value & 0xFFFFFFFF) - ((value & 0x80000000) << 1)


@lru_cache(maxsize=4096)
def key_words(parts: tuple[str, ...]) -> tuple[int, int]:
    """Two 32-bit words from some strings; no two lists of strings share their input."""
    text = b"".join(len(raw).to_bytes(8, "little") + raw for raw in (part.encode() for part in parts))
    digest = blake2b(text, digest_size=8, person=b"time_ray.mask").digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


@lru_cache(maxsize=4)
def places(count: int, device: str) -> Tensor:
    """The int32 numbers from 0 to count − 1."""
    return torch.arange(count, dtype=torch.int32, device=device)


def unsigned_shift(bits: Tensor, by: int, spare: Tensor) -> Tensor:
    """The bits shifted right with zeros coming in; `spare` holds the result."""
    torch.bitwise_right_shift(bits, by, out=spare)
    return spare.bitwise_and_((1 << (32 - by)) - 1)


def mixed(bits: Tensor, spare: Tensor) -> Tensor:
    """The bits after one round of a full-avalanche 32-bit hash (lowbias32), in place."""
    for shift, factor in ((16, 0x7FEB352D), (15, signed(0x846CA68B))):
        bits.bitwise_xor_(unsigned_shift(bits, shift, spare)).mul_(factor)
    return bits.bitwise_xor_(unsigned_shift(bits, 16, spare))


def draws(key: tuple[str, ...], start: int, stop: int, device: str = "cpu") -> Tensor:
    """Uniform int32 numbers for the places from start to stop (places 2**32 apart share theirs)."""
    first, second = key_words(key)
    bits = places(stop - start, device) + signed(start + first)
    spare = torch.empty_like(bits)
    return mixed(mixed(bits, spare).add_(signed(second)), spare)


def keep_mask(key: tuple[str, ...], start: int, stop: int, drop: float, like: Tensor) -> Tensor:
    """1 for a kept place, 0 with probability `drop` (to 31 bits), in the precision and on the device of `like`."""
    threshold = round(drop * (1 << 31)) - (1 << 30)
    halved = draws(key, start, stop, str(like.device)).bitwise_right_shift_(1)
    return halved.sub_(threshold).bitwise_right_shift_(31).add_(1).to(like.dtype)


def keep_mask_of(key: tuple[str, ...], start: int, drops: Tensor) -> Tensor:
    """The same for the places from `start` on, each with a probability of its own."""
    thresholds = drops.double().mul(1 << 31).round_().sub_(1 << 30).to(torch.int32)
    halved = draws(key, start, start + drops.numel(), str(drops.device)).bitwise_right_shift_(1)
    return halved.sub_(thresholds).bitwise_right_shift_(31).add_(1).to(drops.dtype)
