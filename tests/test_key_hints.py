"""Words that nearly are right get the one that is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from scored_store import SCORED

Command = Callable[..., Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an experiment as the repository has them."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/quickstart.yaml").write_text(yaml.safe_dump(SCORED))
    (tmp_path / ".hidden.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("word", ["quickstart", "quikstart.yaml", "Quickstart", "experiments/quickstart"])
@pytest.mark.parametrize("command", ["sweep", "best", "show"])
def test_an_experiment_is_found_by_its_name(here: Path, time_ray: Command, command: str, word: str) -> None:
    assert time_ray(command, word) == (
        2,
        "",
        f"error: {word}: no such file; did you mean 'experiments/quickstart.yaml'?\n",
    )


def test_a_folder_is_no_experiment(here: Path, time_ray: Command) -> None:
    fault = "error: experiments: is a folder; give an experiment file, such as experiments/quickstart.yaml\n"
    assert time_ray("show", "experiments").err == fault


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("keep=0.3", "keep: unknown key; it belongs to ties: 'technique={name: ties, keep: 0.3}'"),
        ("weight=0.3", "weight: unknown key; it belongs to ema: 'deploy={name: ema, weight: 0.3}'"),
        ("size=2", "size: unknown key; it belongs to window: 'deploy={name: window, size: 2}'"),
        ("seeds=3", "seeds: unknown key; write seed=[0,1,2] for 3 of them"),
        ("seeds=[0,1]", "seeds: unknown key; did you mean 'seed'?"),
        ("techniques=ties", "techniques: unknown key; did you mean 'technique'?"),
        ("lr=1e-4", "lr: unknown key; did you mean 'training.lr'?"),
        ("task=3", "task: unknown key; did you mean 'stream.tasks'?"),
        ("bugdet=3", "bugdet: unknown key; did you mean 'budget'?"),
        ("init=EMA", "no such value 'EMA'; did you mean 'ema'?"),
        ("technique=TIES", "'TIES' is unknown; did you mean 'ties'?"),
        ("technique=ties(keep=0.3)", "write {name: ties, keep: 0.3}, on a command line in quotes"),
        ("deploy=window(size=2)", "write {name: window, size: 2}, on a command line in quotes"),
        ("model=ViT-B/32", "did you mean 'ViT-B-32'?"),
        ("budget=30", "30 has no unit; write '30 steps' or '30 samples' of each task"),
    ],
)
def test_a_word_is_known_by_what_was_meant(here: Path, time_ray: Command, override: str, hint: str) -> None:
    done = time_ray("show", "experiments/quickstart.yaml", override)
    assert done.status == 2
    (line,) = done.err.splitlines()
    assert hint in line


def test_in_a_file_nothing_is_quoted_for_a_shell(here: Path, time_ray: Command) -> None:
    path = here / "mine.yaml"
    path.write_text(yaml.safe_dump({**SCORED, "keep": 0.3}))
    assert "it belongs to ties: technique: {name: ties, keep: 0.3}\n" in time_ray("show", path).err
