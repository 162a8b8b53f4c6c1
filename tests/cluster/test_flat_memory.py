"""A long trial holds no more after twelve tasks than after four, on every worker, and after as many failures."""

import gc
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import picture
from torch import Tensor, distributed

from time_ray import api
from time_ray.cluster import backend
from time_ray.cluster.backend import SweepBackend
from time_ray.cluster.coordinator import LocalCoordinator
from time_ray.cluster.work import work
from time_ray.data.dataset import Row, write_dataset

TASKS = 12
SETTLED = 4  # tasks after which caches are full
CLASSES = tuple(f"kind {number}" for number in range(TASKS))
LONG = {
    "init": "ema",
    "deploy": ["ema", "all"],
    "technique": "average",
    "budget": "2 steps",
    "stream": {"tasks": TASKS},
}
FAILING = {"init": "ft", "deploy": "ft", "technique": "average", "budget": "3 steps", "seed": list(range(TASKS))}


def held() -> tuple[int, int]:
    """Tensors that are alive and have a storage of their own here, and the bytes of these."""
    gc.collect()
    plain = (each for each in gc.get_objects() if type(each) in {Tensor, torch.nn.Parameter})
    tensors = [each for each in plain if each.layout == torch.strided and each.device.type == "cpu"]
    return len(tensors), sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def live(path: Path, words: list[str], out: Path, rank: int, workers: int) -> None:
    """All cells run on one of so many workers; what is held before every training is noted."""
    torch.set_num_threads(1)
    if workers > 1:
        meeting = f"file://{out.parent}/start"
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers)
    opened = api.open_experiment(path, words)
    train, seen = backend.train, list[tuple[int, int]]()

    def noted(*args: Any, **kwargs: Any) -> Any:
        seen.append(held() if len(seen) in (SETTLED, TASKS - 1) else (0, 0))
        return train(*args, **kwargs)

    backend.train = noted
    try:
        work(opened.study.cells, SweepBackend(opened.study, opened.store, LocalCoordinator()))
    finally:
        backend.train = train
    torch.save(seen, out)


@pytest.fixture
def path(new_experiment: Callable[..., Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    rows = [Row(picture(n), (f"a {CLASSES[n % TASKS]}",), n % TASKS, str(n)) for n in range(4 * TASKS)]
    settings = {"classes": CLASSES, "templates": ("a {}.",), "kind": "classification"}
    for name, train in {"many": rows, "few": []}.items():
        write_dataset(tmp_path / name, name=name, splits={"train": train, "test": rows[:TASKS]}, **settings)
    data = {"adaptation": str(tmp_path / "many"), "evaluation": str(tmp_path / "few")}
    return new_experiment(tmp_path, **request.param, data=data, run={"workers": 0, "cache_gb": 0.001})


@pytest.mark.parametrize(
    ("path", "words", "workers"),
    [
        pytest.param(LONG, [], 1, id="a long stream"),
        pytest.param(FAILING, ["training.lr=1e30"], 1, id="failures"),
        pytest.param(LONG, [], 2, id="a long stream on two workers", marks=pytest.mark.nightly),
        pytest.param(FAILING, ["training.lr=1e30"], 2, id="failures on two workers", marks=pytest.mark.nightly),
    ],
    indirect=["path"],
)
def test_memory_is_flat(path: Path, words: list[str], workers: int, tmp_path: Path) -> None:
    if workers == 1:
        live(path, words, tmp_path / "0.pt", 0, 1)
    else:
        context = multiprocessing.get_context("spawn")
        arguments = [(path, words, tmp_path / f"{rank}.pt", rank, workers) for rank in range(workers)]
        processes = [context.Process(target=live, args=each) for each in arguments]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    for rank in range(workers):
        seen = torch.load(tmp_path / f"{rank}.pt")
        assert len(seen) == TASKS
        (tensors, size), (later_tensors, later_size) = seen[SETTLED], seen[-1]
        assert later_tensors <= tensors + 2 * TASKS  # tokens of a task's captions are kept
        assert later_size <= size + 100 * TASKS  # bytes: an expert has 500,000
