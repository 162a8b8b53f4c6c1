"""FoMo-in-Flux from its own layout to a table of cells: imported, streamed as its file says, swept, scored."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import open_clip
import pytest
import yaml
from fomo_root import Root, build_root
from pictures import rows
from safetensors.torch import save_file

from time_ray import api
from time_ray.clip.cost import step_cost
from time_ray.clip.models import create
from time_ray.core.budget import Budget
from time_ray.core.model import ModelSpec
from time_ray.data.dataset import write_dataset
from time_ray.data.fomo_table import DATASETS, HANDLE_OF

MODEL = "fomo-vit-32px"
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 24, "width": 32, "heads": 2, "layers": 2},
}
TASKS, STEPS, BATCH = 3, 2, 12
ROLES = ("adaptation", "evaluation")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    info = os.environ.get("TIME_RAY_FOMO_INFO")
    made = build_root(tmp_path_factory.mktemp("benchmark"), Path(info) if info else None)
    if info:  # the benchmark's own stream, of which there are images for some classes only
        whole = json.loads(Path(info, "stream_construction/random_sequence_1.json").read_text())
        there = set(json.loads(made.stream.read_text()))
        made.stream.write_text(json.dumps([entry for entry in whole if entry in there]))
    return made


@pytest.fixture
def experiment(root: Root, tmp_path: Path, time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The imported root, a pool, a model with random weights from a file, and an experiment on them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{MODEL}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(tmp_path / f"{MODEL}.json")
    save_file(create(ModelSpec(name=MODEL)).module.state_dict(), "random.safetensors")
    wanted = [word for name in root.names for word in ("--dataset", name)]
    imported = time_ray("data", "import", "fomo", root.images, root.info, *wanted, "--jobs", "1", "-o", "fomo")
    assert imported.status == 0, imported.err
    write_dataset("fomo/pool", name="pool", kind="captions", classes=(), templates=(), splits={"train": rows(9)})
    total = Budget(amount=TASKS * STEPS * step_cost(MODEL, BATCH).maf, unit="GFLOPs")
    path = tmp_path / "small_fomo.yaml"
    values = {
        "name": "small_fomo",
        "init": "ema",
        "deploy": ["ft", "ema"],
        "technique": "average",
        "model": {"name": MODEL, "weights": "random.safetensors"},
        "budget": total.label,
        "data": {
            "root": "fomo",
            **{role: [name for name in root.names if DATASETS[name].role == role] for role in ROLES},
            "pretraining": "pool",
        },
        "stream": {"tasks": TASKS, "file": str(root.stream)},
        "mixture": {"pretraining": 0.33, "update": 0.34, "buffer": 0.33},
        "training": {"batch_size": BATCH},
        "evaluation": {"subset": 0.9},
        "run": {"workers": 0},
        "storage": str(tmp_path / "runs"),
    }
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def test_two_cells_over_the_benchmark_in_small(root: Root, experiment: Path, time_ray: Callable[..., Any]) -> None:
    planned = time_ray("plan", experiment, "-f", "json")
    assert planned.status == 0, planned.err
    plan = json.loads(planned.out)
    entries = json.loads(root.stream.read_text())
    assert plan["stream"] == {"tasks": TASKS, "classes": len(entries), "datasets_never_learned": 0}
    assert [steps for budgets in plan["steps"].values() for steps in budgets.values()] == [STEPS]
    assert plan["trainings"]["to_do"] == TASKS

    assert time_ray("sweep", experiment).status == 0
    opened = api.open_experiment(experiment)
    concepts = [concept for training in opened.study.settings[0].trainings for concept in training.task.concepts]
    assert [(HANDLE_OF[folder], name) for folder, name in (entry.split("+++") for entry in entries)] == concepts
    learnt, held_out = ([name for name in root.names if DATASETS[name].role == role] for role in ROLES)
    results = api.status(opened)
    assert [result.done for result in results] == [True, True]
    for row in (row for result in results for row in result.rows):
        assert {name for name in row.accuracy if "/" not in name} == set(root.names)
        assert {"fscoco/r1", "flickr30k/r1"} <= set(row.accuracy)
        assert row.scores["ka"] == pytest.approx(mean(row.accuracy[name] for name in learnt))
        assert row.scores["zs"] == pytest.approx(mean(row.accuracy[name] for name in held_out))

    again = json.loads(time_ray("plan", experiment, "-f", "json").out)
    assert (again["trainings"]["to_do"], again["evaluations"]["to_do"]) == (0, 0)
