"""Random numbers by counter: each block depends on its number alone, whatever was drawn before it."""

import hashlib

import numpy as np
from numpy.typing import NDArray


class Randomness:
    """Blocks of random numbers (Philox, Salmon et al. 2011) for one seed, task and purpose."""

    def __init__(self, seed: int, task: int, purpose: str) -> None:
        digest = hashlib.sha256(f"{purpose} {seed} {task}".encode()).digest()
        self._key = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)

    def block(self, number: int, count: int) -> NDArray[np.uint64]:
        """That many 64-bit numbers: raw, since numpy may change what its distributions make of them."""
        counter = np.array([0, number, 0, 0], dtype=np.uint64)
        return np.random.Philox(key=self._key, counter=counter).random_raw(count)

    def shuffle(self, number: int, count: int) -> NDArray[np.int64]:
        """A permutation of 0 .. count - 1."""
        return np.argsort(self.block(number, count), kind="stable")


def unit(numbers: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Raw numbers as floats, uniform in [0, 1)."""
    return (numbers >> np.uint64(11)).astype(np.float64) * 2.0**-53
