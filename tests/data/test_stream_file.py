"""Stream files are read as the benchmark writes them, and every fault of one is told."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from time_ray.core.errors import UserError
from time_ray.core.stream import Concept, cut
from time_ray.data.fomo_table import DATASETS, HANDLE_OF
from time_ray.data.stream_file import in_terms_of, read_stream, write_stream

KNOWN = {"eurosat": ["annual crop land", "forest"], "mine": ["a+++b", "c"]}


@pytest.fixture
def metadata() -> Path:
    info = os.environ.get("TIME_RAY_FOMO_INFO")
    if not info:
        pytest.skip("TIME_RAY_FOMO_INFO names no copy of the benchmark's metadata")
    return Path(info)


def written(folder: Path, entries: object) -> Path:
    path = folder / "stream.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def test_folder_names_handles_and_own_names_are_read_alike(tmp_path: Path) -> None:
    listed = read_stream(written(tmp_path, ["EuroSAT+++forest", "eurosat+++annual crop land", "mine+++a+++b"]))
    concepts, found = in_terms_of(KNOWN, listed, "s.json")
    assert found == []
    assert concepts == (
        Concept("eurosat", "forest"),
        Concept("eurosat", "annual crop land"),
        Concept("mine", "a+++b"),
    )


def test_an_own_dataset_goes_before_the_benchmarks_folder_of_that_name(tmp_path: Path) -> None:
    listed = read_stream(written(tmp_path, ["EuroSAT+++forest"]))
    assert in_terms_of({"EuroSAT": ["forest"]}, listed, "") == ((Concept("EuroSAT", "forest"),), [])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    concepts = (Concept("a", "été"), Concept("b", "x+++y"))
    write_stream(tmp_path / "s.json", concepts)
    assert read_stream(tmp_path / "s.json") == concepts
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8")) == ["a+++été", "b+++x+++y"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[", "no readable JSON"),
        ("\xff", "no readable JSON"),
        ("{}", "no list with entries"),
        ("[]", "no list with entries"),
        ('["a+++b", 3, "c"]', "entry 2 is 3, entry 3 is 'c'; write DATASET+++class"),
        ("[1, 2, 3, 4, 5]", "entry 1 is 1, entry 2 is 2, entry 3 is 3 and 2 more; write"),
    ],
)
def test_what_is_no_stream_is_told_in_a_line(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError) as caught:
        read_stream(path)
    (line,) = caught.value.faults
    assert line.startswith(f"'{path}': {fault}")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file; give a JSON list of DATASET\+\+\+class"):
        read_stream(tmp_path / "s.json")


def test_every_fault_of_a_stream_is_told(tmp_path: Path) -> None:
    entries = ["eurosat+++forrest", "DTD+++banded", "EuroSAT+++forest", "DTD+++dotted", "eurosat+++forest", "mine+++q"]
    _, found = in_terms_of(KNOWN, read_stream(written(tmp_path, entries)), "s.json")
    assert found == [
        "'s.json': dataset 'eurosat' has no class 'forrest'; did you mean 'forest'?",
        "'s.json': dataset 'dtd' (2 entries) is not in data.adaptation; add it, or leave it out here",
        "'s.json': dataset 'mine' has no class 'q'; correct the entries, or import the dataset again",
        "'s.json': entry 5 'eurosat+++forest' repeats entry 3; a class arrives once",
    ]


def test_the_benchmarks_stream(metadata: Path) -> None:
    """18,381 classes of 41 datasets, all of which their class lists hold."""
    listed = read_stream(metadata / "stream_construction" / "random_sequence_1.json")
    learnt = [entry for entry in DATASETS.values() if entry.role == "adaptation"]
    known = {
        entry.handle: [
            entry.classname(name)
            for name in json.loads((metadata / f"data_lib/00_info/{entry.folder}_classnames.json").read_text())
        ]
        for entry in learnt
    }
    concepts, found = in_terms_of(known, listed, "")
    assert found == []
    assert len(concepts) == len(set(concepts)) == 18_381
    assert {concept.dataset for concept in concepts} == set(known)
    assert {HANDLE_OF[concept.dataset] for concept in listed} == set(known)
    tasks = cut(concepts, "listed", 20, seed=0)
    assert Counter(len(task.concepts) for task in tasks) == {920: 1, 919: 19}
    assert [c for task in tasks for c in task.concepts] == list(concepts)
    assert len(cut(concepts, "dataset_incremental", 20, seed=0)) == 41
    back = cut(concepts, "listed", 20, seed=0, reverse=True)
    assert [c for task in back for c in task.concepts] == list(reversed(concepts))


def test_all_handle_files_of_the_benchmark_are_read(metadata: Path) -> None:
    for path in (metadata / "stream_construction" / "datasets").glob("*.json"):
        listed = read_stream(path)
        assert {concept.dataset for concept in listed} == {path.stem}
        assert path.stem in DATASETS
