from pathlib import Path

import pytest
from pictures import picture

from time_ray.core.errors import UserError
from time_ray.data.dataset import Dataset
from time_ray.data.importers.imagefolder import import_imagefolder


def add(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))


def test_train_and_test_folders_become_splits(tmp_path: Path):
    root = tmp_path / "my pets"
    add(
        root,
        "train/sea_lion/b.PNG",
        "train/sea_lion/a.png",
        "train/ant/deep/c.jpg",
        "test/ant/d.png",
        "train/ant/readme.md",
    )
    card = import_imagefolder(root, tmp_path / "out")
    train, test = (Dataset.open(tmp_path / "out").split(name) for name in ("train", "test"))
    assert (card.name, card.kind, card.classes) == ("my pets", "classification", ("ant", "sea lion"))
    assert train.labels.tolist() == [0, 1, 1]
    assert train.images([1]) == [(root / "train/sea_lion/a.png").read_bytes()]
    assert train.captions([0, 1]) == [("a photo of a ant.",), ("a photo of a sea lion.",)]
    assert test.labels.tolist() == [0]


def test_without_a_test_folder_every_fifth_image_is_one(tmp_path: Path):
    add(tmp_path / "pets", *(f"{name}/{i}.png" for name in ("ant", "bee") for i in range(10)))
    card = import_imagefolder(tmp_path / "pets", tmp_path / "out")
    assert {name: info.rows for name, info in card.splits.items()} == {"train": 16, "test": 4}
    assert import_imagefolder(tmp_path / "pets", tmp_path / "again").digest == card.digest


def test_every_bad_file_is_named_and_nothing_is_whole(tmp_path: Path):
    root = tmp_path / "pets"
    add(root, *(f"train/ant/{i}.png" for i in range(3)), "test/bee/0.png")
    (root / "train/ant/1.png").write_bytes(picture(1)[:-100])
    (root / "train/ant/2.png").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        import_imagefolder(root, tmp_path / "out")
    places = [fault.split(": ")[0] for fault in caught.value.faults]
    assert places == [str(root / name) for name in ("test/bee/0.png", "train/ant/1.png", "train/ant/2.png")]
    assert "class bee has no training images" in caught.value.faults[0]
    assert not (tmp_path / "out/card.json").exists()


@pytest.mark.parametrize("names", [[], ["loose.png"], ["train/loose.png"], ["test/ant/0.png", "train/readme.md"]])
def test_a_folder_without_classes_is_refused(tmp_path: Path, names: list[str]):
    root = tmp_path / "pets"
    root.mkdir()
    add(root, *names)
    with pytest.raises(UserError, match="no training images in folders named after classes"):
        import_imagefolder(root, tmp_path / "out")


def test_a_missing_folder_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        import_imagefolder(tmp_path / "nowhere", tmp_path / "out")
