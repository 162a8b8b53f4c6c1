"""The table of the benchmark, alone and against its real metadata where that is at hand."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from time_ray.data.fomo_table import DATASETS, HANDLE_OF

ENTRIES = tuple(DATASETS.values())


@pytest.fixture(scope="module")
def real() -> Path:
    if "TIME_RAY_FOMO_INFO" not in os.environ:
        pytest.skip("TIME_RAY_FOMO_INFO does not name the benchmark's metadata")
    return Path(os.environ["TIME_RAY_FOMO_INFO"])


def test_the_benchmark_has_63_datasets() -> None:
    assert Counter(entry.role for entry in ENTRIES) == {"adaptation": 41, "evaluation": 22, "extra": 4}
    retrieval = {entry.handle: entry.role for entry in ENTRIES if entry.kind == "retrieval"}
    assert retrieval == {"fscoco": "adaptation", "mscoco": "evaluation", "flickr30k": "evaluation"}
    assert len(HANDLE_OF) == len(ENTRIES)
    assert sum(sum(entry.sizes.values()) for entry in ENTRIES) == pytest.approx(2_527_221, abs=100)


def test_every_classification_set_has_a_prompt_for_a_class() -> None:
    assert all((entry.template is None) == (entry.kind == "retrieval") for entry in ENTRIES)
    assert {entry.template.count("{}") for entry in ENTRIES if entry.template} == {1}


def test_two_datasets_have_words_of_their_own_for_splits() -> None:
    odd = {entry.handle: dict(entry.splits) for entry in ENTRIES if any(k != v for k, v in entry.splits.items())}
    assert odd == {
        "inaturalist2021": {"train": "train_mini", "test": "val"},
        "mtsd": {"train": "train", "test": "val"},
    }
    assert DATASETS["eurosat"].splits == {"test": "test"}
    assert DATASETS["retinopathy"].splits == {"train": "train", "test": "test"}


def test_only_objectnet_writes_spaces_as_underscores() -> None:
    assert [entry.handle for entry in ENTRIES if entry.classname("coffee_mug") != "coffee_mug"] == ["objectnet"]


def test_every_pair_of_the_real_stream_is_a_class_of_its_dataset(real: Path) -> None:
    info = real / "data_lib/00_info"
    classes = {
        entry.folder: {
            entry.classname(name) for name in json.loads((info / f"{entry.folder}_classnames.json").read_text())
        }
        for entry in ENTRIES
        if entry.has_classes
    }
    pairs = [
        tuple(pair.split("+++"))
        for pair in json.loads((real / "stream_construction/random_sequence_1.json").read_text())
    ]
    assert len(set(pairs)) == 18_381
    assert {HANDLE_OF[folder] for folder, _ in pairs} == {e.handle for e in ENTRIES if e.role == "adaptation"}
    strangers = [
        (folder, name) for folder, name in pairs if DATASETS[HANDLE_OF[folder]].classname(name) not in classes[folder]
    ]
    assert strangers == []


def test_handles_are_those_of_the_real_stream_files(real: Path) -> None:
    for path in (real / "stream_construction/datasets").glob("*.json"):
        entry = DATASETS[path.stem]
        listed = json.loads((real / f"data_lib/00_info/{entry.folder}_classnames.json").read_text())
        assert json.loads(path.read_text()) == [f"{path.stem}+++{name}" for name in listed]
    without = {e.handle for e in ENTRIES} - {p.stem for p in (real / "stream_construction/datasets").glob("*.json")}
    assert without == {e.handle for e in ENTRIES if not e.has_classes}


def test_prompts_and_sizes_are_those_of_the_real_metadata(real: Path) -> None:
    seen = set()
    for entry in ENTRIES:
        for split, word in entry.splits.items():
            path = real / f"data_lib/00_info/{entry.folder}_{word}.json"
            if path.is_file():
                rows = json.loads(path.read_text()).values()
                assert len(rows) == entry.sizes[split]
                said = {row["primer_caption"] for row in rows} - {None}
                names = {row["classname"] for row in rows}
                assert not said or said == {(entry.template or "").format(name) for name in names}
                seen.add(entry.handle)
    assert {"flowers102", "fscoco", "isicmelanoma", "monkeys10", "mvtecad_eval", "flickr30k"} <= seen
