"""Out of memory: told from other errors, tried once more where that may help, and said with the setting that does."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from time_ray.cluster.ranks import Ranks
from time_ray.core.errors import CellError

T = TypeVar("T")

IN_TRAINING = "raise run.accumulate, set run.recompute=true, or spread the batch over more run.workers"
# how torch's CPU allocator, CUDA and its libraries say it
_WORDS = ("DefaultCPUAllocator", "CUDA error: out of memory", "STATUS_ALLOC_FAILED", "NCCL Error 2: out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short, of the machine or of its GPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in _WORDS)


def told(error: BaseException, where: str, remedy: str) -> CellError:
    """The error as people read it: where memory is short, how much was asked for, and what to set."""
    text = " ".join(str(error).split()).partition(". ")[0].removesuffix(".")
    place = f" {where}" if where else ""
    return CellError(f"out of memory{place} ({text or type(error).__name__}); {remedy}")


def too_little_to_evaluate(error: BaseException) -> CellError:
    """Memory was short for one model and few images."""
    return told(error, "in an evaluation", "lower run.cache_gb, or use workers with more memory")


def too_little_to_merge(error: BaseException) -> CellError:
    """Memory was short for a merge."""
    return told(error, "in a merge", "lower run.cache_gb, or use nodes with more memory")


def telling(make: Callable[[], T], short: Callable[[Exception], CellError]) -> T:
    """What `make` returns. Raises the error that `short` makes of one where memory is short."""
    try:
        return make()
    except Exception as error:
        if is_out_of_memory(error):
            raise short(error) from error
        raise


def tried_again(
    make: Callable[[], T], again: Callable[[], T], short: Callable[[Exception], CellError], ranks: Ranks
) -> T:
    """What `make` returns; where memory is short for it, what `again` returns after all was freed that can be.

    Several workers try nothing again: gradients and pieces may be on their way between them.

    Args:
        make: What is tried.
        again: What is tried then; it may raise whatever it likes.
        short: The error as people read it.
        ranks: The workers that all try this.

    Raises:
        AloneError: There are several, and all must be started again.

    """
    try:
        return make()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if ranks.size > 1:
            ranks.start_again(short(error))
    gc.collect()  # here, where the error is gone, and with it the frames that hold what did not fit
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return again()
