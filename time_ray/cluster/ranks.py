"""The workers of one trial: rank 0 asks the store, and broadcasts the answer to all others."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")

AGREE_SECONDS = 10.0  # that workers which fail alike may be apart


class AloneError(Exception):
    """A worker failed, and others did not, or not at the same place: they may wait for it in a collective.

    So all must be started again. Its cause is why the worker failed.
    """


class ContactLostError(Exception):
    """Another worker, or the way to it, was lost. No cell is to blame, so all start again with the same ones."""


class Ranks:
    """The torch.distributed group of a trial, or a single process where none is initialised.

    Answers travel over gloo whatever backend training uses, since they live on the CPU; weights over NCCL if that does.
    """

    def __init__(self) -> None:
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self._group: Any = dist.new_group(backend="gloo") if self.size > 1 else None
        self._failing: Any = dist.new_group(backend="gloo") if self.size > 1 else None  # others may be in use just then

    def broadcast(self, ask: Callable[[], T]) -> T:
        """What `ask` returns on rank 0, on every rank; an error that it raises there is raised on every rank.

        Called on every rank; only rank 0 asks. The answer is pickled, so it must not be large.
        """
        if self.size == 1:
            return ask()
        box: list[object] = [None, None]
        if self.rank == 0:
            try:
                box[0] = ask()
            except Exception as error:  # noqa: BLE001 every rank must hear of it, or the others wait for ever
                box[1] = error
        dist.broadcast_object_list(box, src=0, group=self._group)
        if isinstance(box[1], Exception):
            raise box[1]
        return box[0]  # type: ignore[return-value]

    def least(self, number: int) -> int:
        """The least of the numbers that all ranks give. Called on every rank."""
        if self.size == 1:
            return number
        found = torch.tensor(number)
        dist.all_reduce(found, op=dist.ReduceOp.MIN, group=self._group)
        return int(found)

    def agree_on(self, error: Exception) -> None:
        """Every rank has failed, and so all are at the same place again; whoever failed calls this.

        Raises:
            AloneError: Not all ranks have failed within AGREE_SECONDS.
            ContactLostError: This one failed in speaking with the others.

        """
        if self.size == 1:
            return
        if isinstance(error, (AloneError, ContactLostError)):
            raise error  # it is known already
        if _is_of_contact(error):
            raise ContactLostError(f"worker {self.rank} of {self.size} has lost the others: {error}") from error
        try:
            failing = dist.all_reduce(torch.ones(1), group=self._failing, async_op=True)
            failing.wait(timedelta(seconds=AGREE_SECONDS))
        except RuntimeError:
            msg = f"worker {self.rank} of {self.size} failed alone: {type(error).__name__}: {error}"
            raise AloneError(msg) from error

    def start_again(self, error: Exception) -> NoReturn:
        """Raises AloneError: this rank failed, and where the others are by now nobody knows."""
        raise AloneError(f"worker {self.rank} of {self.size} failed: {error}") from error

    def broadcast_tensors(
        self, find: Callable[[], Mapping[str, Tensor] | None], held: Mapping[str, Tensor] | None = None
    ) -> Mapping[str, Tensor] | None:
        """The tensors that `find` returns on rank 0, on every rank; its None and its errors, too.

        Called on every rank. Where every rank holds them already nothing is sent, and `find` is not called.

        Args:
            find: Returns tensors on the CPU.
            held: These very tensors, if this rank has them.

        Returns:
            Tensors on the CPU; where there is one rank they are what `find` returned.

        """
        if self.size == 1:
            return find()
        if self.least(int(held is not None)):
            return held
        found: dict[str, Tensor] = {}

        def forms() -> dict[str, tuple[torch.Size, torch.dtype]] | None:
            tensors = find()
            if tensors is None:
                return None
            found.update({name: tensor.contiguous() for name, tensor in tensors.items()})
            return {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()}

        like = self.broadcast(forms)
        if like is None:
            return None
        if self.rank > 0:
            found = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in like.items()}
        return {name: self._sent(tensor) for name, tensor in found.items()}

    def _sent(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor, on every rank: from GPU to GPU where training goes that way, which is faster."""
        if dist.get_backend() != "nccl":
            dist.broadcast(tensor, src=0, group=self._group)
            return tensor
        there = tensor.cuda()
        dist.broadcast(there, src=0)
        return tensor if self.rank == 0 else there.cpu()


def _is_of_contact(error: Exception) -> bool:
    """Whether an error is one of torch.distributed itself; gloo's own are told by their text alone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))
