"""Light at the door: what computes nothing loads nothing that computes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from time_ray.clip.mini import MODELS

HEAVY = ("torch", "open_clip", "ray", "mlflow", "matplotlib", "sklearn")
NOT_FOR_HELP = (*HEAVY, "yaml", "pyarrow", "numpy")  # help and completion need no experiment
SCRIPT = """
import json, sys
from time_ray.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["time-ray", *words]
    ended = 0
    try:
        main()
    except SystemExit as error:
        ended = error.code or 0
    print("loaded:", json.dumps([ended, *[name for name in {names!r} if name in sys.modules]]), file=sys.stderr)
"""


def loaded(commands: list[list[str]], names: tuple[str, ...], **variables: str) -> dict[str, list[str | int]]:
    """How each command ended and which of these packages were loaded by then: one process runs one after the other."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(names=names), json.dumps(commands)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout
    said = [json.loads(line.partition(":")[2]) for line in done.stderr.splitlines() if line.startswith("loaded:")]
    return dict(zip((" ".join(words) for words in commands), said, strict=True))


def light(found: dict[str, list[str | int]]) -> bool:
    return bool(found) and all(said == [0] for said in found.values())


def test_help_loads_nothing_heavy() -> None:
    found = loaded([["--version"], ["--help"], ["sweep", "--help"], ["data", "import", "--help"]], NOT_FOR_HELP)
    assert light(found), found


def test_completion_loads_nothing_heavy() -> None:
    variables = {"_TIME_RAY_COMPLETE": "complete_bash", "COMP_WORDS": "time-ray sw", "COMP_CWORD": "1"}
    found = loaded([[]], NOT_FOR_HELP, **variables)
    assert light(found), found


def test_reading_results_computes_nothing(swept_tiny: Path) -> None:
    commands = ("show", "plan", "status", "best")
    found = loaded([[name, str(swept_tiny), "-f", form] for name in commands for form in ("table", "json")], HEAVY)
    assert light(found), found


def test_a_configuration_beside_weights_is_read_without_torch(swept_tiny: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(MODELS["mini-tiny"].weights.read_bytes())
    config = {"model_cfg": MODELS["mini-tiny"].config, "preprocess_cfg": {"resize_mode": "squash"}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    model = f"model={{name: mini-tiny, weights: {weights}, preprocess: {{interpolation: bilinear}}}}"
    found = loaded([["plan", str(swept_tiny), model]], HEAVY)
    assert light(found), found


def test_lists_load_no_torch() -> None:
    lists = [["list", what] for what in ("techniques", "strategies", "metrics", "datasets")]
    found = loaded(lists, ("torch", "open_clip", "ray", "mlflow"))
    assert light(found), found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_and_values_are_completed(shell: str) -> None:
    def completed(line: str) -> str:
        variables = {
            "_TIME_RAY_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": line,
            "COMP_CWORD": str(line.count(" ")),
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
        code = "import sys; sys.argv[0] = 'time-ray'; from time_ray.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, check=False
        )
        return done.stdout

    assert "forgetting" in completed("time-ray best exp.yaml --by fo")
    if shell == "bash":
        assert "sweep" in completed("time-ray sw")
        assert "magmax" in completed("time-ray merge a.safetensors -t mag")


@pytest.fixture(scope="module")
def swept_tiny(new_experiment: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from time_ray import api

    path = new_experiment(tmp_path_factory.mktemp("light"), init="ft", deploy=["ft", "all"], technique="average")
    assert api.sweep(api.open_experiment(path)).exit_code == 0
    return path
