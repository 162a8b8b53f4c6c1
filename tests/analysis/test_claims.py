"""The paper's findings on planted results: held where they were planted, not held where their opposite was."""

import io
import json
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scored_store import experiment, record

from time_ray import api
from time_ray.analysis.claim_rules import Verdict
from time_ray.analysis.evidence import Evidence
from time_ray.core.errors import UserError
from time_ray.core.grid import Cell
from time_ray.report.claims import COLUMNS, print_verdicts

CLAIMS = ["R1", "R2", "R3", "R4", "R5", "R6", "R7"]
GRID: dict[str, object] = {
    "init": ["zs", "ft", "ema"],
    "deploy": ["ft", "ema", "all"],
    "mixture": {"update": 0.5, "buffer": 0.5},
    "evaluation": {"lengths": 0.5},
}
World = Callable[[Cell], float]


def as_in_the_paper(cell: Cell) -> float:
    """KA of a cell; ZS is the same for all."""
    init, deploy, technique = cell.init.name, cell.deploy.name, cell.technique.label
    if (init, deploy) == ("zs", "all"):
        replay = 6 * bool(cell.setting.trainings[0].mixture.buffer)
        return 40 + replay + {"average": 0, "ties": 1, "average(weights=linear)": 2}[technique]
    larger = 5 * (cell.setting.model.name != "mini-tiny")
    plain = {"zs": 30, "ft": 49, "ema": 55}[init]
    ties = deploy != "ft" and technique == "ties"
    return plain + {"ft": 0, "ema": 5, "all": 2}[deploy] + ties + larger * (init == "ema")


def the_opposite(cell: Cell) -> float:
    init, deploy, technique = cell.init.name, cell.deploy.name, cell.technique.label
    ties = 20 * (deploy != "ft" and technique == "ties")
    if (init, deploy) == ("zs", "all"):
        replay = 6 * bool(cell.setting.trainings[0].mixture.buffer)
        return 60 - replay - 2 * (technique == "average(weights=linear)") + ties
    return 40 + {"ft": 0, "ema": -5, "all": 0}[deploy] + ties


def swept(folder: Path, world: World, *, needs: bool = True, **changes: object) -> api.Opened:
    """The experiment and all its variants, finished. With half the length every cell is worse."""

    def percents(cell: Cell, task: int, length: float) -> Mapping[str, float | tuple[float, float]]:
        return {"chess": world(cell) + cell.setting.seed - 3 * (length != 1) if task else 20, "textures": 64}

    opened = experiment(folder, **{**GRID, **changes})
    for one in api.findings_need(opened).values() if needs else [opened]:
        record(one.store, one.study.cells, percents)
    return opened


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> api.Opened:
    return swept(tmp_path_factory.mktemp("paper"), as_in_the_paper)


def verdicts(found: list[Verdict]) -> dict[str, str]:
    return {one.claim: one.verdict for one in found}


def test_what_the_paper_found_is_held_where_it_is_so(paper: api.Opened) -> None:
    found = api.findings(paper)
    assert verdicts(found) == dict.fromkeys(CLAIMS, "held")
    by_name = {one.claim: one for one in found}

    def gm(*ka: float) -> float:
        return sum(8 * (one + seed) ** 0.5 for one in ka for seed in (0, 1)) / 2

    assert by_name["R1"].effect == pytest.approx(gm(41) - gm(49))
    assert by_name["R2"].effect == pytest.approx(gm(46) - gm(40))
    assert by_name["R3"].effect == pytest.approx(gm(48) - gm(46))
    assert by_name["R5"].effect == pytest.approx(gm(61) - gm(49))
    assert by_name["R6"].effect == pytest.approx(gm(65) - gm(60))
    assert by_name["R7"].effect == pytest.approx(gm(33) - gm(32), rel=0.5)
    assert all(one.seeds == (0, 1) and one.decide is None for one in found)
    assert all(one.low is not None for one in found)
    assert [one.level for one in found][:3] == pytest.approx([0.975, 0.95, 0.975])


def test_the_opposite_is_not_held(tmp_path: Path) -> None:
    found = api.findings(swept(tmp_path, the_opposite))
    assert verdicts(found) == dict.fromkeys(CLAIMS, "not held")


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    opened = swept(tmp_path, as_in_the_paper, seed=[4])
    found = api.findings(opened)
    assert verdicts(found) == dict.fromkeys(CLAIMS, "undecided")
    assert {one.decide for one in found} == {f"in {opened.path}, seed: [4, 5, 6]"}
    assert all(one.effect is not None and one.low is None for one in found)


def test_what_is_lacking_is_said_with_what_brings_it(tmp_path: Path) -> None:
    opened = swept(tmp_path, as_in_the_paper, needs=False, evaluation={}, model="mini-large")
    found = {one.claim: one for one in api.findings(opened)}
    lengths = f"in {opened.path}, evaluation: {{lengths: [0.25, 0.5, 0.75, 1.25]}}"
    need = Evidence(opened)
    assert found["R1"].decide == found["R7"].decide == lengths
    assert found["R2"].decide == f"time-ray sweep {need.open('offline').words}"
    assert found["R3"].decide == f"time-ray sweep {need.open('recency').words}"
    assert found["R6"].decide == f"in {opened.path}, model: [..., LARGER], the smallest first"
    assert (found["R4"].verdict, found["R5"].verdict) == ("held", "held")


@pytest.mark.parametrize(
    ("changes", "claim", "line"),
    [
        ({"technique": "average"}, "R4", "technique: [...] of several values"),
        ({"technique": "average"}, "R7", "technique: [..., ties, magmax]"),
        ({"init": ["zs", "ft"]}, "R5", "init and deploy: [..., ema]"),
    ],
)
def test_an_axis_that_is_too_short_is_named(tmp_path: Path, changes: dict[str, object], claim: str, line: str) -> None:
    opened = swept(tmp_path, as_in_the_paper, needs=False, **changes)
    found = {one.claim: one for one in api.findings(opened)}
    assert (found[claim].verdict, found[claim].decide) == ("undecided", f"in {opened.path}, {line}")


def test_variants_differ_in_what_they_are_called_after(paper: api.Opened) -> None:
    need = api.findings_need(paper)
    assert need.pop("as written") is paper
    written = {name: one.study.experiment for name, one in need.items()}
    assert {name: one.mixture.buffer for name, one in written.items()} == {**dict.fromkeys(need, 0.5), "offline": 0}
    assert [model.name for model in written["larger model"].model] == ["mini-base"]
    assert [budget.label for budget in written["more compute"].budget] == ["4 steps"]
    assert written["longer stream"].stream.tasks == 4
    keys = {cell.key for cell in paper.study.cells}
    assert {cell.key for cell in need["replay"].study.cells} <= keys  # which is how the file is written


def test_an_experiment_without_replay_gets_some(tmp_path: Path) -> None:
    opened = experiment(tmp_path, mixture={"update": 1.0})
    need = api.findings_need(opened)
    assert need["replay"].study.experiment.mixture.buffer == 0.5
    assert {cell.key for cell in need["offline"].study.cells} <= {cell.key for cell in opened.study.cells}


def test_findings_without_finished_cells_are_refused(tmp_path: Path) -> None:
    opened = experiment(tmp_path)
    with pytest.raises(UserError) as error:
        api.findings(opened)
    assert error.value.faults == (f"{opened.path}: no cell is finished; run: time-ray sweep {opened.path}",)


def test_findings_on_the_command_line(time_ray: Callable[..., Any], paper: api.Opened) -> None:
    done = time_ray("findings", paper.path, "--run")  # of which nothing is left to do
    assert done.status == 0
    assert done.out.count(" held ") == len(CLAIMS)
    assert "R2: zs/all average with replay, less without (the paper: about +3.6)" in done.err
    rows = json.loads(time_ray("findings", paper.path, "-f", "json").out)
    assert [(row["claim"], row["verdict"]) for row in rows] == [(claim, "held") for claim in CLAIMS]
    assert set(rows[0]) == set(COLUMNS)


def test_findings_as_csv() -> None:
    found = [Verdict(verdict="undecided", claim="R2", says="so", seeds=(0, 1), decide="seed: [0, 1, 2]")]
    talk = Console(file=io.StringIO())
    out = io.StringIO()
    with redirect_stdout(out):
        print_verdicts(found, "csv", talk)
    header, line = out.getvalue().splitlines()
    assert header == "claim,says,verdict,effect,low,high,level,of,seeds,detail,decide"
    assert line == 'R2,so,undecided,,,,0.95,,0 1,,"seed: [0, 1, 2]"'
