"""Several workers keep one checkpoint, and all go on from it."""

from pathlib import Path

import torch
from torch import distributed
from torch.multiprocessing import spawn

from time_ray.cluster.checkpoints import StepCheckpoints
from time_ray.cluster.ranks import Ranks
from time_ray.store.files import Files
from time_ray.store.store import Store

KEY = "ab" * 32


def work(rank: int, folder: Path) -> None:
    """Keep a state, load it, and say what was found."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/start", rank=rank, world_size=2)
    root = folder if rank == 0 else folder / "nothing is here"  # only rank 0 may ask the store
    progress = StepCheckpoints(Store(Files(str(root))), KEY, Ranks(), share=0.02, num_bytes=1)
    none = progress.load()
    progress._saved -= 100 * (rank == 0)  # the clocks of workers differ: rank 0's counts
    due = progress.due(3)
    asked: list[int] = []

    def state() -> dict[str, torch.Tensor]:
        asked.append(rank)
        return {"w": torch.full((2, 3), float(rank)), "step": torch.tensor(3 + rank)}

    progress.save(3, state)
    torch.save((none, due, progress.load(), asked), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_workers_keep_and_find_the_state_of_the_first(tmp_path: Path) -> None:
    spawn(work, (tmp_path,), nprocs=2)
    for rank in range(2):
        none, due, (step, state), asked = torch.load(tmp_path / f"{rank}.pt")
        assert asked == [0] * (rank == 0)  # the others copy nothing
        assert none is None
        assert due
        assert step == 3
        assert torch.equal(state["w"], torch.zeros(2, 3))
        assert state["step"].item() == 3
    assert not (tmp_path / "nothing is here").exists()
