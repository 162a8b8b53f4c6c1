from pathlib import Path

import pytest
from pictures import picture
from PIL import Image

from time_ray.core.errors import UserError
from time_ray.data.dataset import Dataset
from time_ray.data.decoding import FORMATS
from time_ray.data.importers.imagefolder import SUFFIXES, import_imagefolder
from time_ray.data.importers.sample_faults import noted, read_report


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


@pytest.mark.parametrize(
    ("folders", "rows"),
    [
        (("Train", "TEST"), {"train": 3, "test": 3}),
        (("training", "valid"), {"train": 3, "test": 3}),
        (("train", "Val"), {"train": 3, "test": 3}),
        (("train", "test", "validation"), {"train": 3, "test": 3}),
    ],
)
def test_splits_may_be_called_as_elsewhere(tmp_path: Path, folders: tuple[str, ...], rows: dict[str, int]):
    add(tmp_path / "pets", *(f"{split}/ant/{number}.png" for split in folders for number in range(3)))
    card = import_imagefolder(tmp_path / "pets", tmp_path / "out")
    assert (card.classes, {name: info.rows for name, info in card.splits.items()}) == (("ant",), rows)
    said = any(kind.startswith("validation split") for kind in noted(read_report(tmp_path / "out")))
    assert said == any(name.lower().startswith("val") for name in folders)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("Train/ant/0.png", "training/ant/0.png"), "Train and training are both the train split"),
        (("test/ant/0.png", "val/ant/0.png"), "there is no training split"),
        (("b_c/0.png", "b c/0.png", "d/0.png"), "'b c' and 'b_c' are both class 'b c'"),
        (("train/ant/0.png", "test/b_c/0.png", "test/b c/0.png"), "are both class"),
        (
            ("caf\u00e9/0.png", "cafe\u0301/0.png", "d/0.png"),
            r"'cafe\\u0301' and 'caf\\xe9' are both class 'caf\u00e9'",
        ),
        (("b  c/0.png", "b c/0.png"), "'b  c' and 'b c' are both class 'b c'"),
        (("_/0.png", "b/0.png"), "'_' is no name of a class"),
        (("a/train/0.png", "a/test/1.png", "b/Train/2.png"), r"a, b have splits within \(Train, test, train\)"),
        (("images/train/a/0.png", "images/val/a/1.png"), r"images have splits within \(train, val\)"),
        (("data/a/0.png", "data/b/1.png"), r"its only class 'data' has no images but in folders \(a, b\)"),
    ],
)
def test_folders_that_contradict_each_other_are_refused(tmp_path: Path, names: tuple[str, ...], said: str):
    add(tmp_path / "pets", *names)
    with pytest.raises(UserError, match=said):
        import_imagefolder(tmp_path / "pets", tmp_path / "out")


@pytest.mark.parametrize(
    "names",
    [
        ("train/car/0.png", "train/bus/1.png", "test/car/2.png"),  # one class is deeper than the other
        ("vehicle/train/0.png", "vehicle/car/1.png", "animal/cat/2.png"),
        ("dog/monday/0.png", "dog/1.png"),
    ],
)
def test_folders_within_classes_may_be_called_anything(tmp_path: Path, names: tuple[str, ...]):
    add(tmp_path / "pets", *names)
    import_imagefolder(tmp_path / "pets", tmp_path / "out")


def test_classes_that_differ_in_case_alone_are_said(tmp_path: Path):
    add(tmp_path / "pets", *(f"{name}/{number}.png" for name in ("Cat", "cat", "dog") for number in range(2)))
    assert import_imagefolder(tmp_path / "pets", tmp_path / "out").classes == ("Cat", "cat", "dog")
    kind = "class whose name differs from another's in case alone, which CLIP does not see"
    assert noted(read_report(tmp_path / "out")) == {kind: 2}


def test_all_that_is_not_read_is_counted(tmp_path: Path):
    left = ("__MACOSX/0.png", ".git/1.png", "ant/._0.png", "cover.png", "ant/a.HEIC", "ant/b.heic", "bee/notes")
    add(tmp_path / "pets", *(f"{name}/{number}.png" for name in ("ant", "bee") for number in range(5)), *left)
    card = import_imagefolder(tmp_path / "pets", tmp_path / "out")
    assert (card.classes, card.splits["train"].rows) == (("ant", "bee"), 8)
    assert noted(read_report(tmp_path / "out")) == {
        "hidden or system file or folder, not read": 3,
        "file ending in .heic, not read": 2,
        "image in no folder of a class, not read": 1,
        "file without an ending, not read": 1,
    }


def test_a_link_that_leads_nowhere_is_a_fault(tmp_path: Path):
    add(tmp_path / "pets", *(f"ant/{number}.png" for number in range(3)))
    for name in ("bee", "ant/4.png"):
        (tmp_path / "pets" / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError) as caught:
        import_imagefolder(tmp_path / "pets", tmp_path / "out")
    assert {fault.split(": ")[0] for fault in caught.value.faults} == {
        str(tmp_path / "pets/bee"),
        str(tmp_path / "pets/ant/4.png"),
    }


def test_every_ending_of_the_formats_is_read():
    Image.init()
    assert {ending for ending, form in Image.EXTENSION.items() if form in FORMATS} <= SUFFIXES
