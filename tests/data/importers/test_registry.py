"""The registry of importers: a form of data that others bring is recognised, imported and imported again like ours."""

import csv
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pictures import picture
from pyarrow import fs

from time_ray.core.errors import UserError
from time_ray.data.importers.pipeline import DatasetSpec, import_parts
from time_ray.data.importers.registry import IMPORTERS, Importer, Option, recognised, register
from time_ray.data.importers.samples import sample_of_file, sample_parts
from time_ray.data.sources import find

LOCAL = fs.LocalFileSystem()


def rows(source: str, delimiter: str) -> list[tuple[Path, str]]:
    with Path(source).open(newline="") as file:
        return [(Path(source).parent / path, caption) for path, caption in csv.reader(file, delimiter=delimiter)]


def csv_files(source: str) -> list[Path]:
    return [Path(source), *(path for path, _ in rows(source, ","))]


def import_csv(source: str, folder: Path, *, delimiter: str = ",", **settings: Any) -> Any:
    found = [sample_of_file(path, (caption,), -1, split="train") for path, caption in rows(source, delimiter)]
    spec = DatasetSpec(Path(source).stem, "captions", (), (), ("train",))
    return import_parts(folder, spec, *sample_parts({"train": found}), **settings)


CSV = Importer(
    name="csv",
    about="Import a CSV file of path,caption.",
    argument="FILE",
    source="CSV file whose rows are path,caption.",
    load=import_csv,
    recognises=lambda source: source.endswith(".csv"),
    files=csv_files,
    options=(Option("delimiter", "What parts the columns.", ","),),
    version="1",
)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Path]:
    """A CSV file of three images, and an importer for it."""
    register(CSV)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    (tmp_path / "table.csv").write_text("".join(f"{number}.png,picture {number}\n" for number in range(3)))
    yield tmp_path / "table.csv"
    del IMPORTERS["csv"]


def test_an_experiment_may_name_what_is_registered(table: Path, tmp_path: Path) -> None:
    (found,) = find(str(table), "pretraining", str(tmp_path / "cache"), LOCAL)
    split = found.open().split("train")
    assert found.name == "table"
    assert split.captions([0, 1, 2]) == [("picture 0",), ("picture 1",), ("picture 2",)]
    assert split.images([1]) == [picture(1)]
    assert find(str(table), "pretraining", str(tmp_path / "cache"), LOCAL) == [found]


def test_it_is_imported_again_when_a_file_or_the_version_is_another(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder() -> str:
        return find(str(table), "pretraining", str(tmp_path / "cache"), LOCAL)[0].folder

    first = folder()
    (tmp_path / "1.png").write_bytes(picture(9))
    os.utime(tmp_path / "1.png", (1, 1))
    second = folder()
    monkeypatch.setitem(IMPORTERS, "csv", dataclasses.replace(CSV, version="2"))
    assert len({first, second, folder()}) == 3


def test_its_faults_are_those_of_every_import(table: Path, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"what")
    (tmp_path / "2.png").unlink()
    with pytest.raises(UserError) as caught:
        import_csv(str(table), tmp_path / "out")
    assert sorted(fault.split(": ")[0] for fault in caught.value.faults) == [f"{tmp_path}/{n}.png" for n in (1, 2)]


def test_the_last_that_recognises_a_source_imports_it(table: Path, tmp_path: Path) -> None:
    forms = {"pets/ant/0.png": "imagefolder", "rows/0.parquet": "parquet", "tars/0.tar": "webdataset"}
    for name, importer in forms.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.touch()
        assert recognised(str(tmp_path / name.split("/")[0])) is IMPORTERS[importer]
    assert recognised(f"{tmp_path}/tars/{{0..7}}.tar") is IMPORTERS["webdataset"]
    assert recognised(str(table)) is CSV
    assert recognised(str(tmp_path / "nowhere")) is None


def test_a_name_stands_for_one_importer(table: Path) -> None:
    before = dict(IMPORTERS)
    with pytest.raises(UserError, match="importer 'csv': the name is taken"):
        register(dataclasses.replace(CSV, version="2"))
    assert before == IMPORTERS


def test_what_it_raises_is_one_line(table: Path, tmp_path: Path) -> None:
    table.write_text("0.png\n")
    with pytest.raises(UserError) as caught:
        find(str(table), "pretraining", str(tmp_path / "cache"), LOCAL)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{table}: importer 'csv' fails (ValueError: not enough values")
