"""The experiment file: what is written is what is meant, on the command line as in the file."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from time_ray import config
from time_ray.core.experiment import Experiment

FILE = """\
name: tiny
init: [zs, {name: ema, weight: 0.3}]
deploy: ft
technique:
  - average
  - {name: ties, keep: 0.5}
model: mini-tiny
budget: [2 steps, 1920 samples]
data: mini
training: {lr: 1e-3}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(FILE, encoding="utf-8")
    return file


def test_short_forms_stand_for_the_long_ones(path: Path) -> None:
    experiment, _ = config.load(path)
    assert [entry.label for entry in experiment.init] == ["zs", "ema(weight=0.3)"]
    assert [entry.label for entry in experiment.deploy] == ["ft"]
    assert [(entry.name, entry.params) for entry in experiment.technique] == [("average", {}), ("ties", {"keep": 0.5})]
    assert [entry.label for entry in experiment.budget] == ["2 steps", "1920 samples"]
    assert experiment.data.adaptation == ("mini",)
    assert experiment.data.pretraining == "mini"
    assert experiment.training.lr == 0.001
    assert experiment.seed == (0,)


@pytest.mark.parametrize(
    ("override", "name", "expected"),
    [
        ("seed=[0,1,2]", "seed", (0, 1, 2)),
        ("seed=0,1,2", "seed", (0, 1, 2)),
        ("seed=3", "seed", (3,)),
        ("deploy.name=all", "deploy", "all"),
        ("exclude=null", "exclude", ()),
        ("init=[ft]", "init", "ft"),
        ("init=ft,all", "init", "ft all"),
        ("init={name: ema, weight: 0.1}", "init", "ema(weight=0.1)"),
        ("budget=3 steps", "budget", "3 steps"),
        ("training.lr=1e-4", "training.lr", 1e-4),
        ("training.lr=null", "training.lr", None),
        ("training.batch_size=32", "training.batch_size", 32),
        ("stream.tasks=3", "stream.tasks", 3),
        ("data.evaluation=mini:textures", "data.evaluation", ("mini:textures",)),
        ("mixture={update: 0.5, buffer: 0.5}", "mixture.buffer", 0.5),
        ("storage=s3://bucket/a?region=x&b=c", "storage", "s3://bucket/a?region=x&b=c"),
    ],
)
def test_an_override_is_as_if_it_were_written(path: Path, override: str, name: str, expected: object) -> None:
    experiment, _ = config.load(path, [override])
    value: Any = experiment
    for part in name.split("."):
        value = getattr(value, part)
    if isinstance(value, tuple) and value and hasattr(value[0], "label"):
        value = " ".join(entry.label for entry in value)
    assert value == expected


def test_overrides_leave_the_rest_alone_and_the_last_one_counts(path: Path) -> None:
    experiment, _ = config.load(path, ["training.batch_size=32", "seed=1", "seed=2"])
    assert experiment.training.lr == 0.001
    assert experiment.training.batch_size == 32
    assert experiment.seed == (2,)
    plain, _ = config.load(path)
    assert experiment.model_copy(update={"training": plain.training, "seed": plain.seed}) == plain


def test_the_file_is_never_changed(path: Path) -> None:
    config.load(path, ["data.evaluation=mini:textures", "seed=1"])
    assert path.read_text(encoding="utf-8") == FILE


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("1E5", 1e5), ("-2.5e+1", -25.0), ("1.e2", 100.0), ("10", 10)]
)
def test_numbers_are_numbers(path: Path, text: str, value: float) -> None:
    document = config.read(path)
    assert config._parse(text, document) == value
    assert type(config._parse(text, document)) is type(value)


def test_characters_may_be_escaped_as_json_does(path: Path) -> None:
    assert config._parse('"\\ud83d\\ude00 \\u03b8"', config.Document(str(path))) == "\U0001f600 \u03b8"


@pytest.mark.parametrize("text", ["010", "-07", "1:30", "1:30.5", "0o10", "08"])
def test_what_old_yaml_counts_in_other_bases_is_no_number(path: Path, text: str) -> None:
    assert config._parse(text, config.Document(str(path))) == text


@pytest.mark.parametrize("about", ["1e5", ".5e3", "010", "1:30", "yes", "2026-01-01", "0x1f", ".inf", "null", "θ"])
def test_words_that_look_like_something_else_survive_being_written(path: Path, about: str) -> None:
    path.write_text(config.dumped({**yaml.safe_load(FILE), "training": {}, "about": about}), encoding="utf-8")
    assert config.load(path)[0].about == about


@pytest.mark.parametrize(
    ("overrides", "name", "expected"),
    [
        (["training.average_within=5", "training.average_within.every=2"], "training", (5, 2)),
        (["deploy=ema", "deploy.weight=0.1"], "deploy", ["ema(weight=0.1)"]),
        (["technique=ties", "technique.keep=0.1"], "technique", ["ties(keep=0.1)"]),
        (["model.weights=x"], "model", ["mini-tiny@x"]),
        (["data=folder", "data.evaluation=other"], "data", (("folder",), ("other",))),
    ],
)
def test_parts_of_short_forms_can_be_overridden(path: Path, overrides: list[str], name: str, expected: object) -> None:
    found = getattr(config.load(path, overrides)[0], name)
    shown = {
        "training": lambda: (found.average_within.last, found.average_within.every),
        "data": lambda: (found.adaptation, found.evaluation),
    }.get(name, lambda: [entry.label for entry in found])
    assert shown() == expected


def test_what_is_written_out_loads_to_the_same(path: Path) -> None:
    experiment, _ = config.load(
        path, ["init=[zs, {name: ema, start: expert}, {name: window, size: 2}]", "data.pretraining=null"]
    )
    path.write_text(config.dumped(experiment.written()), encoding="utf-8")
    assert config.load(path)[0] == experiment


@given(
    st.lists(
        st.sampled_from(["zs", "ft", "all", {"name": "ema", "weight": 0.2}, "window", {"name": "window", "size": 2}]),
        min_size=1,
        max_size=4,
        unique_by=str,
    ),
    st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    st.sampled_from(["mini", "folder", {"adaptation": ["a", "b"], "pretraining": "c"}]),
    st.sampled_from([1, 1.0, 0.25]),
)
def test_an_experiment_survives_being_written(init: list[object], seed: list[int], data: object, keep: float) -> None:
    changes = {"init": init, "seed": seed, "data": data, "technique": [{"name": "ties", "keep": keep}]}
    experiment = Experiment.model_validate({**yaml.safe_load(FILE), "training": {}, **changes})
    assert Experiment.model_validate(yaml.safe_load(yaml.safe_dump(experiment.written()))) == experiment


def test_lines_point_at_what_was_written(path: Path) -> None:
    document = config.read(path)
    assert document.where(("technique", 1, "keep")) == f"{path}:6"
    assert document.where(("training", "nothing", "here")) == f"{path}:10"
    assert document.where(("nowhere",)) == f"{path}:1"
