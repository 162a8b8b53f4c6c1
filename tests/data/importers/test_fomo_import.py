"""The benchmark's images and metadata become datasets: both layouts, its rules for text, everything odd named."""

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fomo_root import NAMES, Root, build_root, drawn

from time_ray.core.errors import UserError
from time_ray.data.dataset import Card, Dataset
from time_ray.data.fomo_table import DATASETS
from time_ray.data.importers.fomo import entries, import_fomo
from time_ray.data.importers.sample_faults import read_report

REAL = os.environ.get("TIME_RAY_FOMO_INFO")
MADE_UP_AND_REAL = [
    None,
    pytest.param(REAL, marks=pytest.mark.skipif(not REAL, reason="TIME_RAY_FOMO_INFO names no metadata")),
]


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return build_root(tmp_path / "fomo", None, names=("mvtecad_eval", "fscoco"))


def imported(root: Root, name: str, folder: Path, **how: Any) -> Card:
    return import_fomo(root.images, folder / name, info=root.info, dataset=name, **how)


def change(root: Root, name: str, alter: Callable[[dict[str, Any]], object]) -> None:
    path = root.info / name
    content = json.loads(path.read_text())
    alter(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("info", MADE_UP_AND_REAL)
def test_folders_and_tars_hold_the_same_datasets(tmp_path: Path, info: str | None) -> None:
    cards: dict[str, dict[str, Card]] = {}
    for layout in ("folder", "tar"):
        root = build_root(tmp_path / layout, Path(info) if info else None, layout=layout)  # type: ignore[arg-type]
        cards[layout] = {name: imported(root, name, tmp_path / f"out-{layout}") for name in NAMES}
    for name in NAMES:
        card, entry = cards["folder"][name], DATASETS[name]
        assert card.digest == cards["tar"][name].digest
        assert (card.name, card.kind) == (entry.handle, entry.kind)
        assert card.templates == ((entry.template,) if entry.template else ())
        assert list(card.splits) == list(entry.splits)
        assert all(info.rows for info in card.splits.values())
        assert read_report(tmp_path / "out-tar" / name) == []


@pytest.mark.parametrize("info", MADE_UP_AND_REAL)
def test_rows_say_what_the_metadata_says(tmp_path: Path, info: str | None) -> None:
    root = build_root(tmp_path / "fomo", Path(info) if info else None)
    for name in NAMES:
        entry = DATASETS[name]
        card = imported(root, name, tmp_path / "out")
        for split, word in entry.splits.items():
            listed = json.loads((root.info / f"{entry.folder}_{word}.json").read_text())
            rows = list(Dataset.open(tmp_path / "out" / name).split(split).rows())
            assert [row.key for row in rows] == list(listed)
            for row, said in zip(rows, listed.values(), strict=True):
                text = said["default_caption"] or said["synthetic_merged_caption"]
                assert row.captions == ((text,) if isinstance(text, str) else tuple(text))
                assert row.label == (said["target"] if card.classes else -1)
                assert row.label == -1 or card.classes[row.label] == said["classname"]


def test_the_resized_variant_is_taken_where_there_is_one(tmp_path: Path) -> None:
    root = build_root(tmp_path / "fomo", None, names=("monkeys10",))
    folder = root.images / "data/MONKEYS10"
    names = sorted(
        path.relative_to(folder / "MONKEYS10_test_224") for path in (folder / "MONKEYS10_test_224").rglob("*.jpg")
    )
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(drawn("large", 0, 64, ".jpg"))
    imported(root, "monkeys10", tmp_path / "out")
    rows = {row.key: row.image for row in Dataset.open(tmp_path / "out/monkeys10").split("test").rows()}
    assert len(rows) == 2 * len(names)
    assert all(rows[str(name)] == (folder / "MONKEYS10_test_224" / name).read_bytes() for name in names)


def test_metadata_of_the_resized_variant_names_the_same_images(tmp_path: Path) -> None:
    root = build_root(tmp_path / "fomo", None, names=("monkeys10",))
    plain = imported(root, "monkeys10", tmp_path / "plain")
    path = root.info / "MONKEYS10_test.json"
    rows = json.loads(path.read_text())
    (root.info / "MONKEYS10_test_224.json").write_text(
        json.dumps({f"MONKEYS10_test_224/{name}": row for name, row in rows.items()})
    )
    path.unlink()
    assert imported(root, "monkeys10", tmp_path / "resized").digest == plain.digest


def test_names_are_handles_or_folders_and_all_is_the_benchmark() -> None:
    assert [entry.handle for entry in entries(["FSCOCO", "inaturalist2021", "fscoco"])] == ["fscoco", "inaturalist2021"]
    assert len(entries(["all"])) == 63
    with pytest.raises(UserError) as caught:
        entries(["fscoc", "mnist", "what"])
    assert caught.value.faults == (
        "--dataset fscoc: none of FoMo-in-Flux; did you mean 'fscoco'?",
        "--dataset what: none of FoMo-in-Flux; give all, or handles such as cifar100",
    )


def test_everything_that_is_missing_is_named_at_once(root: Root, tmp_path: Path) -> None:
    for path in root.info.glob("FSCOCO_t*.json"):
        path.unlink()
    (root.info / "FSCOCO_classnames.json").write_text("{")
    with pytest.raises(UserError) as caught:
        imported(root, "fscoco", tmp_path)
    assert len(caught.value.faults) == 3
    assert "no FSCOCO_train.json; it is part of the benchmark's metadata" in caught.value.faults[1]
    with pytest.raises(UserError, match=r"no MONKEYS10_test\.json or MONKEYS10_test_224\.json"):
        imported(root, "monkeys10", tmp_path)
    shutil.rmtree(root.images / "data/MVTECAD_Eval")
    with pytest.raises(UserError, match=r"mvtecad_eval: no images; there is none of .*data/MVTECAD_Eval, .*\.tar"):
        imported(root, "mvtecad_eval", tmp_path)


def test_odd_entries_are_left_out_or_mended_and_always_named(root: Root, tmp_path: Path) -> None:
    def spoil(rows: dict[str, Any]) -> None:
        names = list(rows)
        rows[names[0]]["target"] = 99
        rows[names[1]]["target"] = None
        rows[names[2]]["target"] = True
        rows[names[3]] |= {"default_caption": None, "synthetic_merged_caption": None}
        rows[names[4]] |= {"default_caption": "  ", "synthetic_merged_caption": ["this", None, 3, "and this"]}
        rows[names[5]] = "nothing"
        rows[names[6]]["classname"] = "another"
        rows[names[7]] |= {"default_caption": "\ud800", "synthetic_merged_caption": {}}
        rows["missing.png"] = rows[names[8]]
        rows["../../../info/FSCOCO_train.json"] = rows[names[8]]
        rows["/etc/passwd"] = rows[names[8]]
        rows["nul\0.png"] = rows[names[8]]

    change(root, "MVTECAD_Eval_train.json", spoil)
    names = list(json.loads((root.info / "MVTECAD_Eval_train.json").read_text()))
    with pytest.raises(UserError) as caught:
        imported(root, "mvtecad_eval", tmp_path)
    card = imported(root, "mvtecad_eval", tmp_path, strict=False)
    report = read_report(tmp_path / "mvtecad_eval")
    assert {fault.line for fault in report} == set(caught.value.faults)
    places = str(root.images / "data/MVTECAD_Eval") + "/"
    found = [(fault.where.removeprefix(places), fault.kind, fault.kept) for fault in report]
    assert found == [
        (names[0], "label outside the classes", False),
        (names[1], "label outside the classes", False),
        (names[2], "label outside the classes", False),
        (names[3], "no caption", True),
        (names[4], "odd caption", True),
        (names[4], "odd caption", True),
        (names[5], "odd entry", False),
        (names[6], "class name differs", True),
        (names[7], "odd caption", True),
        (names[7], "odd caption", True),
        (names[7], "no caption", True),
        ("missing.png", "missing file", False),
        ("../../../info/FSCOCO_train.json", "unsafe path", False),
        ("/etc/passwd", "unsafe path", False),
        ("nul\0.png", "unsafe path", False),
    ]
    rows = {row.key: row for row in Dataset.open(tmp_path / "mvtecad_eval").split("train").rows()}
    assert card.splits["train"].rows == len(rows) == 8
    assert rows[names[3]].captions == ("A close-up photo of a mvtecad_eval kind 0.",)
    assert rows[names[4]].captions == ("this", "and this")


def test_a_retrieval_image_without_a_caption_is_left_out(root: Root, tmp_path: Path) -> None:
    change(root, "FSCOCO_test.json", lambda rows: rows[next(iter(rows))].update(default_caption=None))
    card = imported(root, "fscoco", tmp_path, strict=False)
    assert card.splits["test"].rows == 5
    assert [(fault.kind, fault.split, fault.kept) for fault in read_report(tmp_path / "fscoco")] == [
        ("no caption", "test", False)
    ]


def test_objectnet_has_spaces_for_underscores(tmp_path: Path) -> None:
    root = build_root(tmp_path / "fomo", None, names=("objectnet",))
    path = root.info / "OBJECTNET_classnames.json"
    path.write_text(path.read_text().replace(" kind ", "_kind_"))
    card = imported(root, "objectnet", tmp_path / "out")
    assert card.classes[0] == "objectnet kind 0"


def test_what_a_tar_must_not_hold_is_named(tmp_path: Path) -> None:
    root = build_root(tmp_path / "fomo", None, names=("fscoco",), layout="tar")
    name = next(iter(json.loads((root.info / "FSCOCO_test.json").read_text())))
    with tarfile.open(root.images / "data/FSCOCO.tar", "a") as tar:
        link = tarfile.TarInfo(f"FSCOCO/{name}x")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("../FSCOCO/up.jpg"))
    change(root, "FSCOCO_test.json", lambda rows: rows.update({f"{name}x": rows[name]}))
    imported(root, "fscoco", tmp_path / "out", strict=False)
    kinds = [fault.kind for fault in read_report(tmp_path / "out/fscoco")]
    assert kinds == ["link or device", "unsafe path", "missing file"]
