import re
from pathlib import Path

import pytest
from PIL import Image

from time_ray import api
from time_ray.core.grid import Cell

FOLDER = Path(__file__).parent.parent / "experiments"
FILES = sorted(FOLDER.glob("*.yaml"))
COST = re.compile(r"Cost: (?P<cells>[\d,]+) cells, (?P<trainings>[\d,]+) trainings")


@pytest.fixture(autouse=True)
def own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current directory that holds what own_images.yaml asks for, but for the weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIME_RAY_STORAGE", str(tmp_path / "runs"))
    for root in ("my_images", "my_held_out"):
        for split in ("train", "test"):
            for number in range(6):
                folder = tmp_path / root / split / f"class {number}"
                folder.mkdir(parents=True)
                Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / "0.png")


def opened(path: Path) -> api.Opened:
    # weights of this size are the reader's own to bring
    overrides = ["model=mini-tiny"] if path.stem == "own_images" else []
    return api.open_experiment(path, overrides)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_experiment_loads_and_its_header_says_what_it_costs(path: Path) -> None:
    header = path.read_text()
    experiment = opened(path)
    plan = api.plan_of(experiment)
    cost = COST.search(header)
    assert cost is not None
    assert plan["cells"] == int(cost["cells"].replace(",", ""))
    assert plan["trainings"]["distinct"] == int(cost["trainings"].replace(",", ""))
    assert f"experiments/{path.name}" in header
    assert experiment.study.experiment.name == path.stem
    assert experiment.study.experiment.about.endswith("?")


def test_the_paper_grid_asks_1920_trainings_and_needs_at_most_343() -> None:
    trainings = api.plan_of(opened(FOLDER / "paper_grid.yaml"))["trainings"]
    assert trainings["asked"] == 1920
    assert trainings["distinct"] <= 343


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
