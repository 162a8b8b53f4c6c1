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
FOR_EXPERIMENTS = ("yaml", "pyarrow", "numpy")  # help and completion need no experiment
SCRIPT = """
import sys
from time_ray.cli import main
sys.argv[0] = "time-ray"
try:
    main()
finally:
    print("loaded:", *[name for name in {names!r} if name in sys.modules], file=sys.stderr)
"""


def loaded(words: list[str], names: tuple[str, ...], **variables: str) -> set[str]:
    """Which of these packages a command had loaded when it ended."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(names=names), *words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    return set(done.stderr.rpartition("loaded:")[2].split())


@pytest.mark.parametrize("words", [["--help"], ["sweep", "--help"], ["--version"], ["data", "import", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    assert loaded(words, (*HEAVY, *FOR_EXPERIMENTS)) == set()


def test_completion_loads_nothing_heavy() -> None:
    variables = {"_TIME_RAY_COMPLETE": "complete_bash", "COMP_WORDS": "time-ray sw", "COMP_CWORD": "1"}
    assert loaded([], (*HEAVY, *FOR_EXPERIMENTS), **variables) == set()


@pytest.mark.parametrize("command", ["show", "plan", "status", "best"])
@pytest.mark.parametrize("form", ["table", "json"])
def test_reading_results_computes_nothing(swept_tiny: Path, command: str, form: str) -> None:
    assert loaded([command, str(swept_tiny), "-f", form], HEAVY) == set()


def test_a_configuration_beside_weights_is_read_without_torch(swept_tiny: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(MODELS["mini-tiny"].weights.read_bytes())
    config = {"model_cfg": MODELS["mini-tiny"].config, "preprocess_cfg": {"resize_mode": "squash"}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    model = f"model={{name: mini-tiny, weights: {weights}, preprocess: {{interpolation: bilinear}}}}"
    assert loaded(["plan", str(swept_tiny), model], HEAVY) == set()


@pytest.mark.parametrize("what", ["techniques", "strategies", "metrics", "datasets"])
def test_lists_load_no_torch(what: str) -> None:
    assert loaded(["list", what], ("torch", "open_clip", "ray", "mlflow")) == set()


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

    assert "sweep" in completed("time-ray sw")
    assert "forgetting" in completed("time-ray best exp.yaml --by fo")
    assert "magmax" in completed("time-ray merge a.safetensors -t mag")


@pytest.fixture(scope="module")
def swept_tiny(new_experiment: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from time_ray import api

    path = new_experiment(tmp_path_factory.mktemp("light"), init="ft", deploy=["ft", "all"], technique="average")
    assert api.sweep(api.open_experiment(path)).exit_code == 0
    return path
