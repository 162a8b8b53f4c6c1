"""Plugins: what a file or a package offers is known everywhere, under its version, and goes wrong in one line."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from time_ray import api, plugins
from time_ray.core.errors import UserError
from time_ray.core.metrics import METRICS
from time_ray.core.strategies import STRATEGIES
from time_ray.merging import TECHNIQUES
from time_ray.plugins import PluginFile, load_plugin, load_plugins

RULES = '''
import torch
from time_ray.extend import Metric, Strategy, merge_of, technique

@technique
def halfway(base, experts, *, share: float = 0.5):
    """half of the way to the mean"""
    return base + share * (torch.stack(experts).mean(dim=0) - base)

class Burst(Strategy):
    """The newest expert, and every second task a merge of all."""
    name = "burst"
    every: int = 2
    def recipe(self, base, experts, technique, /):
        return experts.newest if experts.length % self.every else merge_of(technique, base, experts)

def worst(history):
    """Accuracy on the worst dataset."""
    return min(history.accuracies[-1][name] for name in history.adaptation)

WORST = Metric(name="worst", title="worst", unit="%", higher_is_better=True, compute=worst)
'''
GRID = {"init": ["ft", "burst"], "deploy": ["all"], "technique": ["average", "halfway"], "plugins": "rules.py"}


@pytest.fixture(autouse=True)
def tables() -> Iterator[None]:
    """Whatever a test loads is gone after it."""
    yield
    for path in list(plugins._LOADED):
        plugins.forget(path)
    plugins.load_installed.cache_clear()


@pytest.fixture
def experiment(new_experiment: Callable[..., Path], tmp_path: Path) -> Path:
    (tmp_path / "rules.py").write_text(RULES)
    return new_experiment(tmp_path, **GRID)


def expert_keys(path: Path) -> set[str]:
    return {step.deployed.key for cell in api.open_experiment(path).study.cells for step in cell.walk()}


def test_a_sweep_with_a_plugin(experiment: Path, time_ray: Callable[..., Any]) -> None:
    assert time_ray("sweep", experiment).status == 0
    rows = json.loads(time_ray("best", experiment, "--by", "worst", "-f", "json").out)
    rows = [row for row in rows if row["init"] != "(base)"]
    assert all(row["worst"] > 0 for row in rows)
    assert rows[0]["selected_on"] == max(row["selected_on"] for row in rows)
    assert [row["value"] for row in rows[1:]] == sorted((row["value"] for row in rows[1:]), reverse=True)
    assert {(row["init"], row["technique"]) for row in rows} == {
        (init, technique) for init in ("ft", "burst") for technique in ("average", "halfway")
    }
    assert time_ray("plan", experiment, "-f", "json").status == 0
    shown = yaml.safe_load(time_ray("show", experiment).out)
    assert shown["plugins"] == [str(experiment.parent / "rules.py")]


def test_a_moved_file_keeps_its_keys_and_a_changed_one_has_others(experiment: Path) -> None:
    before = expert_keys(experiment)
    moved = experiment.parent / "elsewhere"
    moved.mkdir()
    (experiment.parent / "rules.py").rename(moved / "rules.py")
    experiment.write_text(experiment.read_text().replace("rules.py", "elsewhere/rules.py"))
    plugins.forget(str(experiment.parent / "rules.py"))
    assert expert_keys(experiment) == before
    (moved / "rules.py").write_text(RULES.replace("share * (", "share * 1.0 * ("))
    after = expert_keys(experiment)  # in the same process: the new content replaces the old
    averages = {
        step.deployed.key
        for cell in api.open_experiment(experiment, ["technique=average", "init=ft"]).study.cells
        for step in cell.walk()
    }
    assert after != before
    assert averages <= after & before


def test_a_declared_version_is_the_version(tmp_path: Path) -> None:
    text = RULES.replace("@technique\n", "@technique(version=7)\n")
    load_plugin(PluginFile("rules.py", text))
    assert TECHNIQUES["halfway"].version == 7
    load_plugin(PluginFile("rules.py", f"{text}\n# a comment"))
    assert TECHNIQUES["halfway"].version == 7
    assert str(STRATEGIES["burst"].version).startswith("source:")
    assert METRICS["worst"].version == STRATEGIES["burst"].version


def test_the_same_content_again_changes_nothing_and_new_content_replaces_it() -> None:
    load_plugin(PluginFile("rules.py", RULES))
    first = TECHNIQUES["halfway"]
    load_plugin(PluginFile("rules.py", RULES))
    assert TECHNIQUES["halfway"] is first
    load_plugin(PluginFile("rules.py", RULES.replace("def halfway", "def midway")))
    assert "halfway" not in TECHNIQUES
    assert "midway" in TECHNIQUES


def test_what_registers_itself_is_registered_once() -> None:
    text = RULES.replace("class Burst", "from time_ray.core.strategies import register\n@register\nclass Burst")
    load_plugin(PluginFile("rules.py", text))
    assert STRATEGIES["burst"].version is not None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, r"rules\.py: no such file"),
        ("def (", r"rules\.py:1: no Python: "),
        ("\nx = 1 / 0\n", r"rules\.py:2: ZeroDivisionError: division by zero; correct the plugin"),
        ("x = 1\n", r"rules\.py: defines no technique, strategy, metric, model or importer"),
        ("import nowhere_to_be_found\n", r"rules\.py:1: ModuleNotFoundError: .*nowhere_to_be_found"),
        (RULES.replace("halfway", "ties"), r"rules\.py:\d+: technique 'ties': the name is taken"),
        (RULES.replace('name = "burst"', 'name = "ema"'), r"rules\.py:\d+: strategy 'ema': the name is taken"),
        (RULES.replace('name="worst"', 'name="gm"'), r"rules\.py:\d+: metric 'gm': the name is taken"),
        (RULES.replace("share: float = 0.5", "share"), r"rules\.py:\d+: halfway: share: its default is missing"),
        (b"\xff\xfe", r"rules\.py: cannot be read as a plugin"),
    ],
)
def test_a_bad_file_is_one_line_and_leaves_nothing(
    experiment: Path, time_ray: Callable[..., Any], text: str | bytes | None, fault: str
) -> None:
    file = experiment.parent / "rules.py"
    file.unlink()
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = [dict(table) for table in plugins.TABLES.values()]
    done = time_ray("plan", experiment)
    assert done.status == 2
    assert len(done.err.splitlines()) == 1
    assert f"error: {experiment}:" in done.err
    assert re.search(fault, done.err), done.err
    assert [dict(table) for table in plugins.TABLES.values()] == before


def test_every_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_plugins([tmp_path / "one.py", tmp_path / "two.py"])
    assert len(caught.value.faults) == 2


FAULTY = {
    "raises": ("return base + experts[7]", "rules.py:8: halfway on positional_embedding: IndexError"),
    "shape": ("return base.sum()", "halfway on positional_embedding: returned float32[]"),
    "in place": ("return base.add_(experts[0])", "halfway on positional_embedding: changed the base in place"),
}


@pytest.mark.parametrize(("line", "fault"), FAULTY.values(), ids=FAULTY)
def test_a_faulty_technique_fails_its_own_cells(
    experiment: Path, time_ray: Callable[..., Any], line: str, fault: str
) -> None:
    good = next(one for one in RULES.splitlines() if "return base + share" in one)
    (experiment.parent / "rules.py").write_text(RULES.replace(good, f"    {line}"))
    done = time_ray("sweep", experiment, "init=ft")
    assert done.status == 1
    failed = [one for one in done.err.splitlines() if one.startswith("failed: ")][-1]
    assert fault in failed
    assert "Error: /" not in failed  # the line says where, without the name of our own error
    assert [row["done"] for row in json.loads(time_ray("status", experiment, "init=ft", "-f", "json").out)] == [
        True,
        False,
    ]


def test_a_strategy_that_raises_is_found_before_anything_runs(experiment: Path, time_ray: Callable[..., Any]) -> None:
    (experiment.parent / "rules.py").write_text(RULES.replace("experts.newest if", "experts.latest if"))
    done = time_ray("sweep", experiment)
    assert done.status == 2
    assert "rules.py: strategy 'burst' after task 1: AttributeError" in done.err
    (experiment.parent / "rules.py").write_text(RULES.replace("return experts.newest if", "return None if"))
    assert "gave NoneType; return a recipe" in time_ray("sweep", experiment).err


def test_a_metric_that_raises_is_not_shown(
    experiment: Path, time_ray: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    (experiment.parent / "rules.py").write_text(RULES.replace("return min(", "return 1 / 0 + min("))
    assert time_ray("sweep", experiment, "init=ft", "technique=average").status == 0
    row, *_ = json.loads(time_ray("best", experiment, "init=ft", "technique=average", "-f", "json").out)
    assert row["worst"] is None
    assert row["gm"] > 0
    assert len([one for one in caplog.messages if "metric 'worst' is not shown: ZeroDivisionError" in one]) == 1


def test_installed_plugins_are_known_and_a_broken_one_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, time_ray: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "installed_rules.py").write_text(RULES.replace("halfway", "installed_halfway"))
    for name, points in {
        "good": "[time_ray.techniques]\nh = installed_rules:installed_halfway\n",
        "broken": "[time_ray.metrics]\nx = not_there:AT_ALL\n[time_ray.strategies]\ny = installed_rules:WORST\n",
    }.items():
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    plugins.load_installed.cache_clear()
    try:
        rows = json.loads(time_ray("list", "techniques", "-f", "json").out)
        assert "installed_halfway" in {row["technique"] for row in rows}
        assert plugins.load_installed() == {"installed_halfway": "good"}
        assert len([one for one in caplog.messages if "of broken is left out" in one]) == 2
        with pytest.raises(UserError, match="other, of which 'elsewhere' is a plugin, is not installed here"):
            plugins.load_job_plugins([], {"elsewhere": "other"})
    finally:
        TECHNIQUES.pop("installed_halfway", None)
        sys.modules.pop("installed_rules", None)


def test_a_technique_is_checked_by_command(experiment: Path, time_ray: Callable[..., Any]) -> None:
    file = experiment.parent / "rules.py"
    assert time_ray("check-technique", f"{file}:halfway").status == 0
    planted = """
import torch
from time_ray.extend import technique

@technique{declared}
def by_place(base, experts, *, tensor, drop: float = 0.5):
    \"\"\"masks by the place of an expert, not by its id\"\"\"
    masks = [tensor.keep_mask(str(place), drop) for place in range(len(experts))]
    return base + sum((expert - base) * mask for expert, mask in zip(experts, masks))
"""
    for declared in ("", "(random=True)"):
        file.write_text(planted.format(declared=declared))
        done = time_ray("check-technique", f"{file}:by_place", "-f", "json")
        assert done.status == 1
        assert {row["check"] for row in json.loads(done.out) if not row["passed"]} & {"is_symmetric", "draws_by_id"}
    assert time_ray("check-technique", f"{file}:by_plase").err.endswith("did you mean 'by_place'?\n")
    assert time_ray("check-technique", "magmx").status == 2


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.timeout(240)
def test_plugins_reach_workers_as_text(
    experiment: Path, new_experiment: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is gone when workers start, and weights are those of a sweep in this process."""
    here = api.open_experiment(experiment, ["init=burst", "technique=halfway"])
    assert api.sweep(here).exit_code == 0
    other = tmp_path / "other"
    other.mkdir()
    path = new_experiment(other, **{**GRID, "plugins": str(experiment.parent / "rules.py"), "run": {"workers": 1}})
    there = api.open_experiment(path, ["init=burst", "technique=halfway"])
    (experiment.parent / "rules.py").unlink()
    assert api.sweep(there).exit_code == 0
    digests = [
        {key: opened.store.entry("weights", key)["digest"] for key in opened.store.keys("weights")}  # type: ignore[index]
        for opened in (here, there)
    ]
    assert digests[0] == digests[1]
