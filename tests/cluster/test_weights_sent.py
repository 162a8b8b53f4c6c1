"""Several workers: weights are sent where one lacks them, and only there."""

from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.multiprocessing import spawn

from time_ray.cluster.ranks import Ranks

RANKS = 2
HELD_BY = {"nobody": (), "the first": (0,), "the second": (1,), "all": (0, 1)}


def tensors(number: float) -> dict[str, Tensor]:
    return {"w": torch.full((2, 3), number), "count": torch.tensor(7)}


def work(rank: int, folder: Path) -> None:
    """Ask for weights that some ranks hold, and note what came, and how often rank 0 was asked."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/start", rank=rank, world_size=RANKS)
    ranks, asked = Ranks(), []
    found = {}
    for name, holders in HELD_BY.items():
        held = tensors(1.0) if rank in holders else None
        found[name] = ranks.broadcast_tensors(lambda name=name: asked.append(name) or tensors(2.0), held)
    lost = ranks.broadcast_tensors(lambda: None)
    torch.save((found, asked, lost, ranks.least(5 - rank)), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_weights_that_all_workers_hold_are_not_sent(tmp_path: Path) -> None:
    spawn(work, (tmp_path,), nprocs=RANKS)
    for rank in range(RANKS):
        found, asked, lost, least = torch.load(tmp_path / f"{rank}.pt")
        assert asked == ([] if rank else ["nobody", "the first", "the second"])
        for name, weights in found.items():
            expected = tensors(1.0 if name == "all" else 2.0)
            assert all(torch.equal(weights[one], tensor) for one, tensor in expected.items()), name
        assert lost is None
        assert least == 4
