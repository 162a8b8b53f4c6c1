import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pyarrow.fs import LocalFileSystem
from safetensors.torch import save_file

from time_ray import api
from time_ray.clip.models import base_weights
from time_ray.core.grid import Cell
from time_ray.core.model import ModelSpec
from time_ray.core.plan import plan
from time_ray.data.dataset import Card, Kind, SplitInfo, write_card
from time_ray.data.fomo_table import DATASETS
from time_ray.data.importers.emoji_things import STYLES, YEARS

FOLDER = Path(__file__).parent.parent / "experiments"
FILES = sorted(FOLDER.glob("*.yaml"))
CONTINUAL = (  # datasets of the continual-merging protocol, in the order in which the presets add them
    *("sun397", "cars196", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd"),
    *("flowers102", "pcam", "fer2013", "oxford_pets", "stl10", "cifar100"),
    *("cifar10", "food101", "fashionmnist", "emnist", "kmnist", "rendered_sst2"),
    *("caltech101", "imagenet_v2"),
)
COST = re.compile(r"Cost: (?P<cells>[\d,]+) cells, (?P<trainings>[\d,]+) trainings")


@pytest.fixture(autouse=True)
def own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current directory that holds the data of all experiments that ask for some, but not the weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIME_RAY_STORAGE", str(tmp_path / "runs"))
    for name in CONTINUAL:
        _card(tmp_path / "continual" / name, "classification", ["one", "two"], {"train": 8, "test": 4})
    for name in STYLES:
        _card(tmp_path / "drawings" / name, "classification", ["one", "two"], {"train": 8, "test": 4})
    for year in {*YEARS.values()} - {2023, 2024}:  # which have no class that can be learned and tested
        folder = tmp_path / "drawings_by_year" / f"emoji_{year}"
        _card(folder, "classification", ["one", "two"], {"train": 8, "test": 4})
    _fomo(tmp_path / "fomo", os.environ.get("TIME_RAY_FOMO_INFO"))
    for root in ("my_images", "my_held_out"):
        for split in ("train", "test"):
            for number in range(6):
                folder = tmp_path / root / split / f"class {number}"
                folder.mkdir(parents=True)
                Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / "0.png")


def _fomo(root: Path, info: str | None) -> None:
    """The benchmark as cards without shards, a pool, and its stream; all classes where `info` has them."""
    stream = []
    for entry in DATASETS.values():
        if entry.role == "extra":
            continue
        listed = Path(info or "", f"data_lib/00_info/{entry.folder}_classnames.json")
        classes = json.loads(listed.read_text()) if info and listed.is_file() else ["one", "two"] * entry.has_classes
        stream += [f"{entry.folder}+++{name}" for name in classes if entry.role == "adaptation"]
        _card(root / entry.handle, entry.kind, classes, entry.sizes)
    _card(root / "pretraining", "captions", (), {"train": 1_251_473})
    (root / "random_sequence_1.json").write_text(json.dumps(stream))
    if info:
        shutil.copy(Path(info, "stream_construction/random_sequence_1.json"), root)


def _card(folder: Path, kind: Kind, classes: Sequence[str], sizes: Mapping[str, int]) -> None:
    folder.mkdir(parents=True)
    splits = {name: SplitInfo(shards=(), rows=rows) for name, rows in sizes.items()}
    card = Card(name=folder.name, kind=kind, classes=tuple(classes), templates=("{}",), splits=splits, digest="0" * 64)
    write_card(str(folder), LocalFileSystem(), card)


def opened(path: Path) -> api.Opened:
    # weights of this size are the reader's own to bring
    overrides = ["model=mini-tiny"] if path.stem == "own_images" else []
    return api.open_experiment(path, overrides)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_experiment_loads_and_its_header_says_what_it_costs(path: Path) -> None:
    header = path.read_text()
    experiment = opened(path)
    counts = plan(experiment.study.everything)
    cost = COST.search(header)
    assert cost is not None
    assert counts.cells == int(cost["cells"].replace(",", ""))
    assert counts.trainings_distinct == int(cost["trainings"].replace(",", ""))
    assert f"experiments/{path.name}" in header
    assert experiment.study.experiment.name == path.stem
    assert experiment.study.experiment.about.endswith("?")


def test_the_paper_grid_asks_1920_trainings_and_needs_at_most_343() -> None:
    trainings = api.plan(opened(FOLDER / "paper_grid.yaml")).trainings
    assert trainings.asked == 1920
    assert trainings.distinct <= 343


def test_recency_schedules_share_their_experts() -> None:
    def experts(cells: tuple[Cell, ...]) -> set[str]:
        return {step.expert.key for cell in cells for step in cell.walk()}

    cells = opened(FOLDER / "recency.yaml").study.cells
    plain = tuple(cell for cell in cells if cell.technique.label == "average")
    assert len(plain) == 2
    assert experts(cells) == experts(plain)


def test_the_list_of_experiments_is_complete() -> None:
    listed = set(re.findall(r"`(\w+\.yaml)`", (FOLDER / "README.md").read_text()))
    assert listed == {path.name for path in FILES}


FOMO = FOLDER / "fomo_in_flux.yaml"


def test_the_whole_benchmark_is_planned_from_cards_alone(time_ray: Callable[..., Any]) -> None:
    planned = json.loads(time_ray("plan", FOMO, "-f", "json").out)
    assert planned["steps"] == {"ViT-B-16@laion2b_s34b_b88k": {"1x": 1420}}
    assert planned["stream"]["tasks"] == 20
    assert planned["stream"]["datasets_never_learned"] == 0
    hours = planned["gpu_hours"]
    assert hours["training"] == pytest.approx(76 * 1420 * 63_394.7585 / 400 / 3.6e6, rel=1e-3)
    assert 0 < hours["evaluation"] < 2 * hours["training"]  # it is in float32, at a tenth of the speed
    assert "at 400 TFLOP/s sustained" in time_ray("plan", FOMO).out


def test_the_benchmarks_own_stream_is_planned(time_ray: Callable[..., Any]) -> None:
    if "TIME_RAY_FOMO_INFO" not in os.environ:
        pytest.skip("TIME_RAY_FOMO_INFO does not name the benchmark's metadata")
    planned = json.loads(time_ray("plan", FOMO, "stream.tasks=200", "-f", "json").out)
    assert planned["stream"] == {"tasks": 200, "classes": 18_381, "datasets_never_learned": 0}
    assert planned["steps"] == {"ViT-B-16@laion2b_s34b_b88k": {"1x": 142}}


def test_without_the_benchmarks_images_one_line_says_what_to_do(
    time_ray: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    done = time_ray("plan", FOMO)
    root, stream = done.err.splitlines()
    assert "data.root: 'fomo' is no folder; correct it, or import data there" in root
    assert "stream.file: 'fomo/random_sequence_1.json': no such file" in stream


def test_the_benchmark_is_written_out_whole() -> None:
    data = opened(FOMO).study.experiment.data
    for role, names in (("adaptation", data.adaptation), ("evaluation", data.evaluation)):
        assert list(names) == [entry.handle for entry in DATASETS.values() if entry.role == role]


@pytest.mark.nightly  # the memory of three large models is counted
def test_the_continual_protocol_is_planned_from_cards_alone(time_ray: Callable[..., Any]) -> None:
    planned = json.loads(time_ray("plan", FOLDER / "continual_20.yaml", "-f", "json").out)
    assert planned["stream"] == {"tasks": 20, "classes": 40, "datasets_never_learned": 0}
    assert [list(steps.values()) for steps in planned["steps"].values()] == [[4000]] * 3


@pytest.mark.parametrize("count", [8, 14, 20])
def test_the_continual_protocol_takes_given_experts_in_ten_orders(count: int) -> None:
    """One folder of experts serves all three, and each order shares them."""
    base = base_weights(ModelSpec(name="mini-tiny"))
    for name in CONTINUAL[:20]:
        file = Path("experts", "mini-tiny", f"{name}.safetensors")
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({**base, "logit_scale": base["logit_scale"] + len(name)}, file)
    overrides = ["model=mini-tiny", "training.precision=fp32", "experts=experts"]
    experiment = api.open_experiment(FOLDER / f"continual_{count}.yaml", overrides)
    assert api.plan(experiment).trainings.distinct == count
    orders = {tuple(t.task.concepts[0].dataset for t in setting.trainings) for setting in experiment.study.settings}
    assert len(orders) == 10
    assert all(sorted(order) == sorted(CONTINUAL[:count]) for order in orders)
