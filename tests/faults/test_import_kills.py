"""An import that is killed at any boundary leaves no dataset or a whole one; the next command makes it."""

from pathlib import Path

import pytest
from faulty import Crash, Faulty, Point, disk_full
from PIL import Image

from time_ray.core.errors import UserError
from time_ray.data.dataset import Dataset
from time_ray.data.sources import DatasetRef, find


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("import") / "pictures"
    for name in ("dark", "light"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32, 32), (40 * len(name), 20 * number, 7)).save(folder / name / f"{number}.png")
    return folder


def imported(pictures: Path, cache: Path, faulty: Faulty) -> DatasetRef:
    (source,) = find(str(pictures), "adaptation", str(cache), faulty.files(cache).filesystem)
    return source


def points(pictures: Path, cache: Path) -> list[Point]:
    whole = Faulty()
    imported(pictures, cache, whole)
    return whole.points


@pytest.mark.parametrize("error", [Crash, disk_full], ids=["killed", "full"])
def test_the_next_command_imports_it(pictures: Path, tmp_path: Path, error: type[BaseException]) -> None:
    every = points(pictures, tmp_path / "whole")
    assert len(every) > 15
    digest = imported(pictures, tmp_path / "whole", Faulty()).key
    if error is not Crash:
        every = [point for point in every if point.phase in ("before", "half")]
    for number, point in enumerate(every):
        cache = tmp_path / str(number)
        with pytest.raises((Crash, OSError)):
            imported(pictures, cache, Faulty(point, error))
        source = imported(pictures, cache, Faulty())
        assert source.key == digest
        assert [shard.verify() > 0 for shard in source.open().shards] == [True, True]


def test_whole_or_not_there(pictures: Path, tmp_path: Path) -> None:
    """Whoever opens the folder of a killed import is told that there is no dataset, and never reads half of one."""
    for number, point in enumerate(points(pictures, tmp_path / "whole")[::3]):
        with pytest.raises(Crash):
            imported(pictures, tmp_path / str(number), Faulty(point))
        assert all(is_whole_or_refused(card.parent) for card in (tmp_path / str(number)).rglob("card.json")), point


def is_whole_or_refused(folder: Path) -> bool:
    try:
        dataset = Dataset.open(folder)
    except UserError as error:
        return "card.json" in str(error)
    return all(shard.verify() > 0 for shard in dataset.shards)
