"""Batches in halves: what memory is short for goes through a model in smaller parts."""

from collections.abc import Callable

import torch
from torch import Tensor


class Halving:
    """Batches go through whole until memory is short; from then on in parts that fit.

    Args:
        least: Parts that are no larger are not halved.

    """

    def __init__(self, least: int = 1) -> None:
        self._least = least
        self._most: int | None = None  # of a part; None: none was too large yet

    def over(self, run: Callable[[Tensor], list[Tensor]], batch: Tensor) -> list[Tensor]:
        """What `run` returns of a batch: tensors with a row for each of it.

        Raises:
            torch.OutOfMemoryError: Memory is short for the smallest part, too.

        """
        while True:
            most = min(self._most or len(batch), len(batch))
            try:
                found = [run(batch[first : first + most]) for first in range(0, len(batch), most)]
            except torch.OutOfMemoryError:
                if most <= self._least:
                    raise
            else:
                return [torch.cat(parts) for parts in zip(*found, strict=True)] if len(found) > 1 else found[0]
            self._most = max(self._least, most // 2)
