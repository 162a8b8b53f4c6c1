"""The mini world as files, in the format of all datasets."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from time_ray.data.dataset import CARD, write_dataset
from time_ray.data.mini.draw.canvas import encode
from time_ray.data.mini.pool import ROWS, pool_sample
from time_ray.data.mini.pool2 import pool2_sample
from time_ray.data.mini.sample import Sample
from time_ray.data.mini.world import WORLD, samples, splits
from time_ray.data.shards import Row

POOLS: Mapping[str, Callable[[int], Sample]] = {"pool": pool_sample, "pool2": pool2_sample}


def write(folder: str | Path, names: Iterable[str]) -> None:
    """Every named dataset is whole in folder/name. Those that are whole already are left alone."""
    for name in names:
        target = Path(folder) / name
        if not (target / CARD).exists():
            _write_one(target, name)


def _write_one(target: Path, name: str) -> None:
    if name in POOLS:
        rows = _rows(name, "train", map(POOLS[name], range(ROWS)))
        write_dataset(target, name=name, kind="captions", classes=(), templates=(), splits={"train": rows})
    else:
        entry = WORLD[name]
        write_dataset(
            target,
            name=name,
            kind="classification",
            classes=entry.classes,
            templates=entry.templates,
            splits={split: _rows(name, split, samples(name, split)) for split in splits(name)},
        )


def _rows(name: str, split: str, drawn: Iterable[Sample]) -> Iterator[Row]:
    for index, sample in enumerate(drawn):
        yield Row(encode(sample.pixels), sample.captions, sample.label, f"{name}/{split}/{index}")
