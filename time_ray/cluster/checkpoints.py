"""Step checkpoints of a training: how often, and the same on every worker."""

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from time_ray.cluster.clock import Clock
from time_ray.cluster.ranks import Ranks
from time_ray.core.loss_curve import LossPoint
from time_ray.store.store import Store

LEAST_SECONDS = 10.0  # between checkpoints: less would be lost by a restart anyway
BYTES_A_SECOND = 0.5e9  # until a first checkpoint tells what one costs
_CURVE = "curve"  # beside the tensors of the optimiser


class StepCheckpoints:
    """See clip.train.Checkpoints: one expert's training in the store. Rank 0 writes, reads, and decides when.

    Args:
        store: Where checkpoints are kept.
        key: The expert's.
        ranks: The workers that train it.
        share: How much of the time writing may take; 0: no checkpoints.
        num_bytes: The size of a checkpoint, from which the first one's cost is guessed.
        curve: The training's losses so far, which whoever trains appends to; kept with it.
        clock: Hears of the time that reading and writing take.

    """

    def __init__(
        self,
        store: Store,
        key: str,
        ranks: Ranks,
        *,
        share: float,
        num_bytes: int,
        curve: list[LossPoint] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._key = key
        self._ranks = ranks
        self._share = share
        self._curve = [] if curve is None else curve
        self._clock = clock or Clock()
        self._cost = num_bytes / BYTES_A_SECOND
        self._started = self._saved = time.monotonic()
        self._first_step: int | None = None
        self._look_at = 0

    def load(self) -> tuple[int, dict[str, Tensor]] | None:
        """The newest whole checkpoint, on every worker."""
        steps: list[int] = []  # on rank 0

        def newest() -> Mapping[str, Tensor] | None:
            found = self._store.newest_checkpoint(self._key) if self._share else None
            if found is None:
                return None
            steps.append(found[0])
            return found[1]

        with self._clock.at("store"):
            found = self._ranks.broadcast_tensors(newest)
        if found is None:
            return None
        state = dict(found)
        if (curve := state.pop(_CURVE, None)) is not None:
            self._curve[:] = [LossPoint(int(step), loss, lr) for step, loss, lr in curve.tolist()]
        return self._ranks.broadcast(lambda: steps[0]), state

    def due(self, step: int) -> bool:
        """Whether it is time for one after that many steps. Workers talk about it only every now and then."""
        if not self._share or step < self._look_at:
            return False
        if self._first_step is None:
            self._first_step = step - 1
        due, self._look_at = self._ranks.broadcast(lambda: self._decide(step))
        return due

    def save(self, step: int, state: Callable[[], Mapping[str, Tensor]]) -> None:
        """The state is in the store, and older ones are gone."""
        before = time.monotonic()
        curve = {_CURVE: torch.tensor(self._curve, dtype=torch.float64)} if self._curve else {}
        with self._clock.at("store"):
            self._ranks.broadcast(lambda: self._store.put_checkpoint(self._key, step, {**state(), **curve}))
        self._saved = time.monotonic()
        self._cost = self._saved - before

    def _decide(self, step: int) -> tuple[bool, int]:
        """Whether it is time, and at which step to look again."""
        now = time.monotonic()
        left = max(LEAST_SECONDS, self._cost / self._share) - (now - self._saved)
        if left <= 0:
            return True, step + 1
        a_step = (now - self._started) / (step - (self._first_step or 0))
        return False, step + max(1, int(left / a_step / 2))  # half way, since steps may get slower
