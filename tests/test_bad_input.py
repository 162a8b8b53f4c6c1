"""Bad input gets one line that says where, what and what to do; all faults at once, before any compute is spent."""

import io
import os
import socket
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from archives import tar
from PIL import Image

from time_ray.data.dataset import Row, write_dataset

GOOD: dict[str, Any] = {
    "name": "tiny",
    "init": ["zs", "ema"],
    "deploy": ["ft", "ema"],
    "technique": ["average"],
    "model": ["mini-tiny"],
    "budget": ["2 steps"],
    "data": {"adaptation": ["mini:chess"], "evaluation": ["mini:textures"]},
    "stream": {"tasks": 2},
    "training": {"batch_size": 8, "augment": "none"},
    "run": {"workers": 0},
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def written(**changes: object) -> str:
    """The good experiment with some parts replaced (None: left out)."""
    values = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
    Path("exp.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return "exp.yaml"


def line_of(key: str) -> int:
    """The line of the file on which a key stands."""
    lines = Path("exp.yaml").read_text(encoding="utf-8").splitlines()
    return next(i for i, text in enumerate(lines, 1) if text.strip().startswith(f"{key}:"))


def faults(done: Any) -> list[str]:
    """The lines of a command that refused its input, and did nothing else."""
    assert done.status == 2, done
    assert done.out == ""
    lines = done.err.strip().splitlines()
    assert all(line.startswith("error: ") for line in lines), done.err
    return [line.removeprefix("error: ") for line in lines]


FILES = [
    ("", "exp.yaml:1: the file is empty; an experiment needs name, data and the axes init, deploy"),
    ("# nothing but a comment\n", "exp.yaml:1: the file is empty"),
    ("- a\n- list\n", "exp.yaml:1: an experiment is a mapping of keys to values, not a list"),
    ("just words\n", "exp.yaml:1: an experiment is a mapping of keys to values, not a str"),
    ("name: a\ninit: [zs\n", "exp.yaml:3: not YAML: "),
    ("name: a\n\tinit: b\n", "exp.yaml:2: not YAML: "),
    ("# a date that is none\nname: 2026-02-30\n", "exp.yaml:2: not YAML: '2026-02-30' is no timestamp; put quotes"),
    ("name: !!int x\n", "exp.yaml:1: not YAML: 'x' is no int; put quotes around it"),
    ("name: !!nothing x\n", "exp.yaml:1: not YAML: could not determine a constructor"),
    ("name: a\x00b\n", "exp.yaml: not YAML: "),
    ("run: {<<: {workers: 0}}\n", "exp.yaml:1: not YAML: a mapping is not merged into another by <<; write its keys"),
    ('"\\ud800": 1\n', "exp.yaml:1: not YAML: half of a character, a surrogate alone; write the character itself"),
    ('budget: "\\udc00"\n', "exp.yaml:1: not YAML: half of a character"),
    ("init: !!set {zs, ft}\n", "exp.yaml:1: not YAML: unknown tag tag:yaml.org,2002:set; leave it out"),
]


@pytest.mark.parametrize(("text", "expected"), FILES)
@pytest.mark.parametrize("verb", ["sweep", "plan"])
def test_a_file_that_is_no_experiment(time_ray: Callable[..., Any], verb: str, text: str, expected: str) -> None:
    Path("exp.yaml").write_text(text, encoding="utf-8")
    (line,) = faults(time_ray(verb, "exp.yaml"))
    assert line.startswith(expected)


def test_a_file_that_is_no_text(time_ray: Callable[..., Any]) -> None:
    for data in (b"\xff\xfe\x00name", "name: café".encode("latin-1")):
        Path("exp.yaml").write_bytes(data)
        (line,) = faults(time_ray("show", "exp.yaml"))
        assert line.startswith("exp.yaml: is no text in UTF-8 (")
        assert line.endswith("; save it as UTF-8")


def test_a_folder_is_no_file(time_ray: Callable[..., Any]) -> None:
    Path("folder").mkdir()
    (line,) = faults(time_ray("show", "folder"))
    assert line.startswith("folder: is a folder; ")


def test_a_missing_file_and_the_nearest_one(time_ray: Callable[..., Any]) -> None:
    Path("quickstart.yaml").touch()
    assert faults(time_ray("sweep", "quikstart.yaml")) == [
        "quikstart.yaml: no such file; did you mean 'quickstart.yaml'?"
    ]
    assert faults(time_ray("sweep", "q/e.yaml")) == ["q/e.yaml: no such file; check the path"]


SEEDS = {"seed": [0, 1]}
ONE_CELL = {"init": ["ft"], "deploy": ["ft"], "technique": ["average"]}
CONFIGURATION = [
    ({"init": ["zs", "emaa"]}, "init", "init.1.name: no such value 'emaa'; did you mean 'ema'?"),
    ({"deploy": ["sz"]}, "deploy", "deploy.0.name: no such value 'sz'"),
    ({"deploy": []}, "deploy", "deploy: "),
    ({"init": None}, "name", "'init' is missing; add it"),
    ({"data": None}, "name", "'data' is missing; add it"),
    ({"inti": ["zs"]}, "inti", "inti: unknown key; did you mean 'init'?"),
    ({"training": {"batch_sise": 8}}, "batch_sise", "training.batch_sise: unknown key; did you mean 'batch_size'?"),
    ({"stream": {"tasks": 2, "kind": "x"}}, "kind", "stream.kind: unknown key"),
    ({"init": ["zs", "zs"]}, "init", "init: 'zs' is given twice; keep one"),
    ({"technique": ["average", "average"]}, "technique", "technique: 'average' is given twice"),
    (
        {"technique": ["ties", {"name": "ties", "keep": 0.2}]},
        "technique",
        "technique.1: 'ties(keep=0.2)' is the same as 'ties'; keep one",
    ),
    ({"seed": [0, 1, 0]}, "seed", "seed: '0' is given twice"),
    ({"search": {}}, "search", "search: race compares cells over seeds, and there is one; write seed: [0, 1, 2, 3, 4]"),
    ({"search": {"mode": "halve"}}, "search", "search: halve compares cells over seeds, and there is one"),
    ({**SEEDS, "search": {"mode": "raze"}}, "mode", "search.mode: no such value 'raze'; did you mean 'race'?"),
    (
        {**SEEDS, "search": {"by": "forgeting"}},
        "by",
        "search.by: no such metric 'forgeting'; did you mean",
    ),
    ({**SEEDS, "search": {"epsilon": 0}}, "epsilon", "search.epsilon: input should be greater than 0, not 0"),
    ({**SEEDS, "search": {"delta": 0}}, "delta", "search.delta: input should be greater than 0, not 0"),
    ({**SEEDS, "search": {"delta": 1}}, "delta", "search.delta: input should be less than 1, not 1"),
    (
        {**SEEDS, "search": {"max_seeds": 1}},
        "max_seeds",
        "search.max_seeds: input should be greater than or equal",
    ),
    ({**SEEDS, "search": {"epsylon": 2}}, "epsylon", "search.epsylon: unknown key; did you mean 'epsilon'?"),
    ({**SEEDS, **ONE_CELL, "search": {}}, "search", "search: there is one cell, so nothing to choose from"),
    (
        {**SEEDS, "init": ["zs"], "technique": [{"name": "ties", "keep": {"from": 0.1, "to": 0.9}}], "search": {}},
        "search",
        "search: technique ties(keep=0.1…0.9): ranges are searched once the whole grid is there",
    ),
    (
        {**SEEDS, "data": {"adaptation": "mini:chess"}, "search": {"by": "zs"}},
        "search",
        "search: zs is not defined without held-out datasets (data.evaluation); go by another metric",
    ),
    (
        {**SEEDS, "stream": {"tasks": 1}, "search": {"by": "bwt"}},
        "search",
        "search: bwt is not defined for a stream of one task; go by another metric",
    ),
    (
        {"data": {"adaptation": "mini:chess"}, "tuning": {"by": "zs"}},
        "tuning",
        "tuning: zs is not defined without held-out datasets",
    ),
    (
        {"technique": [{"name": "ties", "scaling": {"from": -1e308, "to": 1e308}}]},
        "technique",
        "technique.0: scaling: from -1e+308 to 1e+308 is too far; give bounds that are nearer",
    ),
    (
        {"technique": [{"name": "slerp", "weight": {"from": 0.1, "to": 0.9}}]},
        "technique",
        "technique.0: weight: it belongs to the running merge; ranges are of a technique's own parameters",
    ),
    ({"only": "zs"}, "only", "only.0: 'zs' is no rule; write an axis and values of it, as in {init: zs"),
    (
        {"exclude": {"init": {"name": "ema", "weight": 0.3}}},
        "exclude",
        "exclude.0: {'name': 'ema', 'weight': 0.3}: write it as tables show it, as in 'ema(weight=0.3)'",
    ),
    ({"storage": ""}, "storage", "storage: string should have at least 1 character, not ''"),
    ({"plugins": ""}, "plugins", "plugins.0: string should have at least 1 character, not ''"),
    ({"experts": ""}, "experts", "experts: string should have at least 1 character, not ''"),
    ({"stream": {"file": ""}}, "file", "stream.file: string should have at least 1 character, not ''"),
    ({"model": ""}, "model", "model.0.name: string should have at least 1 character, not ''"),
    ({"data": ""}, "data", "data.adaptation.0: string should have at least 1 character, not ''"),
    ({"data": {"adaptation": "mini:chess", "root": ""}}, "root", "data.root: string should have at least"),
    ({"budget": ["2 steps", "2  steps"]}, "budget", "budget: '2 steps' is given twice"),
    ({"budget": ["2 steps", "16 samples"]}, "budget", "budget.1: '16 samples' is the same as '2 steps'; keep one"),
    ({"budget": ["0 steps"]}, "budget", "budget.0: '0 steps' is no budget; write a positive amount"),
    ({"budget": ["2 epochs"]}, "budget", "budget.0: '2 epochs' is no budget"),
    ({"budget": ["1e-11x"]}, "budget", "budget.0: '0.00000000001x' is less than a step for each of 2 tasks; give more"),
    ({"budget": ["2 steps", "0.76 GFLOPs"]}, "budget", "budget.1: '0.76 GFLOPs' is the same as '2 steps'; keep one"),
    ({"budget": [30]}, "budget", "budget.0: 30 has no unit; write '30 steps'"),
    ({"seed": [-1]}, "seed", "seed.0: input should be greater than or equal to 0, not -1"),
    ({"seed": ["one"]}, "seed", "seed.0: input should be a valid integer, not 'one'"),
    ({"stream": {"tasks": 0}}, "tasks", "stream.tasks: input should be greater than or equal to 1, not 0"),
    (
        {"stream": {"tasks": 7}},
        "tasks",
        "stream.tasks: 7 tasks, but the adaptation data has only 6 classes; ask for fewer",
    ),
    ({"stream": {"tasks": None}}, "tasks", "stream.tasks: a random stream needs a number of tasks"),
    ({"stream": {"tasks": None, "order": "listed"}}, "tasks", "stream.tasks: a listed stream needs a number of tasks"),
    ({"stream": {"order": "by chance"}}, "order", "stream.order: no such value 'by chance'; known: listed, random"),
    ({"stream": {"file": "no.json"}}, "file", "stream.file: 'no.json': no such file; give a JSON list"),
    (
        {"mixture": {"update": 0.5}},
        "mixture",
        "mixture: shares sum to 0.5, not 1; change update, buffer or pretraining",
    ),
    ({"mixture": {"buffer": -0.5}}, "buffer", "mixture.buffer: input should be greater than or equal to 0, not -0.5"),
    (
        {"mixture": {"update": 0.5, "pretraining": 0.5}},
        "data",
        "data.pretraining: mixture.pretraining is above 0, but no pool is given",
    ),
    ({"training": {"lr": -1.0}}, "lr", "training.lr: input should be greater than 0, not -1.0"),
    ({"training": {"lr": float("nan")}}, "lr", "training.lr: input should be a finite number, not nan"),
    (
        {"training": {"batch_size": 0}},
        "batch_size",
        "training.batch_size: input should be greater than or equal to 2, not 0",
    ),
    ({"evaluation": {"subset": 1.5}}, "subset", "evaluation.subset: input should be less than 1, not 1.5"),
    ({"evaluation": {"subsett": 0.1}}, "subsett", "evaluation.subsett: unknown key; did you mean 'subset'?"),
    ({"evaluation": {"templates": []}}, "templates", "evaluation.templates: no prompt to name a class by; give one"),
    (
        {"evaluation": {"templates": ["a photo of a {}.", "a {name}"]}},
        "templates",
        "evaluation.templates.1: 'a {name}' must name the class by {}, once, and hold no other braces",
    ),
    ({"run": {"workers": -1}}, "workers", "run.workers: input should be greater than or equal to 0, not -1"),
    ({"run": "fast"}, "run", "run: a section with keys workers, gpus"),
    (
        {"run": {"workers": 0, "gpus": 1}},
        "gpus",
        "run.gpus: 1 GPUs, but run.workers=0 trains in this process on the CPU",
    ),
    ({"run": {"workers": 1, "gpus": 2}}, "gpus", "run.gpus: a worker uses one GPU, not 2; set run.gpus=1 and"),
    ({"run": {"workers": 2, "gpus": 0.5}}, "gpus", "run.gpus: 2 workers cannot share a GPU (0.5 each); set run.gpus=1"),
    ({"name": "my sweep"}, "name", "name: string should match pattern"),
    (
        {"init": [{"name": "ema", "weight": -0.5}]},
        "weight",
        "init.0.weight: input should be greater than or equal to 0, not -0.5",
    ),
    ({"init": [{"name": "ft", "weight": 0.5}]}, "init", "init.0: weight can be set for ema only, not for ft"),
    (
        {"deploy": [{"name": "window", "weight": 0.5, "start": "base"}]},
        "deploy",
        "deploy.0: start and weight can be set for ema only, not for window",
    ),
    ({"deploy": [{"size": 2}]}, "deploy", "deploy.0: 'name' is missing; add it"),
    (
        {"init": [3]},
        "init",
        "init.0: a section with keys name, patch, weight, start, size, weights, rate, momentum, ",
    ),
    ({"init": ["x"]}, "init", "init.0.name: no such value 'x'; known: zs, ft, ema, all, window, outer"),
    ({"init": [{"name": "ema", "wieght": 0.5}]}, "wieght", "init.0.wieght: unknown key; did you mean 'weight'?"),
    ({"technique": ["avrage"]}, "technique", "technique.0: technique: 'avrage' is unknown; did you mean 'average'?"),
    (
        {"technique": [{"name": "ties", "keap": 0.5}]},
        "technique",
        "technique.0: ties: unknown parameter 'keap'; did you mean 'keep'?",
    ),
    (
        {"technique": [{"name": "ties", "keep": 1.5}]},
        "technique",
        "technique.0: ties: keep is 1.5; give a number from 0 to 1",
    ),
    (
        {"technique": [{"name": "average", "weight": 0.3}]},
        "technique",
        "technique.0: weight belongs to the running merge",
    ),
    (
        {"technique": [{"name": "average", "weights": [-1, 2]}]},
        "technique",
        "technique.0: average: weights is [-1, 2]; give",
    ),
    ({"technique": [3]}, "technique", "technique.0: "),
    (
        {"model": ["mini-tyni"]},
        "model",
        "model.0: model mini-tyni: open_clip has no such architecture; did you mean 'mini-tiny'?",
    ),
    ({"model": ["ViT-B-32"]}, "model", "model.0: model ViT-B-32: no weights are shipped for it; set weights"),
    (
        {"model": [{"name": "mini-tiny", "weights": "no/file.pt"}]},
        "model",
        "model.0: model mini-tiny: weights no/file.pt: no such file",
    ),
    (
        {"model": [{"name": "mini-tiny", "preprocess": {"std": [0.5, 0, 0.5]}}]},
        "std",
        "model.0.preprocess.std.1: input should be greater than 0, not 0",
    ),
    (
        {"model": [{"name": "mini-tiny", "preprocess": {"std": [0.5, -0.5, 0.5]}}]},
        "std",
        "model.0.preprocess.std.1: input should be greater than 0, not -0.5",
    ),
    (
        {"model": [{"name": "mini-tiny", "preprocess": {"mean": [0.5, 0.5]}}]},
        "mean",
        "model.0.preprocess.mean: 2 values, but there are three channels; give three, for pixels from 0 to 1",
    ),
    (
        {"model": [{"name": "mini-tiny", "preprocess": {"mean": [123.7, 0.4, 0.4]}}]},
        "mean",
        "model.0.preprocess.mean.0: input should be less than or equal to 1, not 123.7",
    ),
    (
        {"model": [{"name": "mini-tiny", "preprocess": {"interpolation": "bicubc"}}]},
        "interpolation",
        "model.0.preprocess.interpolation: no such value 'bicubc'; did you mean 'bicubic'?",
    ),
    (
        {"model": [{"name": "mini-tiny", "preprocess": {"resise": "squash"}}]},
        "resise",
        "model.0.preprocess.resise: unknown key; did you mean 'resize'?",
    ),
    (
        {"model": [{"name": "mini-tiny", "preprocess": 3}]},
        "preprocess",
        "model.0.preprocess: a section with keys tag, mean",
    ),
    (
        {"model": [{"name": "mini-tiny", "preprocess": {"size": 224}}]},
        "preprocess",
        "model.0.preprocess: model mini-tiny: the experiment says size 224, but the architecture takes 32; leave",
    ),
    (
        {"model": [{"name": "mini-tiny", "preprocess": {"fill": 3}}]},
        "preprocess",
        "model.0.preprocess: model mini-tiny: fill is of resize: longest alone; leave it out",
    ),
    (
        {"model": [{"name": "ViT-B-16", "weights": "laion2b_s34b_b88k", "preprocess": "laion2b_s34b_b88"}]},
        "preprocess",
        "model.0.preprocess: model ViT-B-16: no such tag 'laion2b_s34b_b88'; did you mean 'laion2b_s34b_b88k'?",
    ),
    (
        {"model": [{"name": "ViT-B-32", "weights": "openai"}]},
        "model",
        "model.0: model ViT-B-32: tag openai is for QuickGELU, but the model would have GELU; name ViT-B-32-quickgelu",
    ),
    (
        {"data": {"adaptation": ["mini:ches"]}},
        "adaptation",
        "data.adaptation: 'mini:ches' is no dataset of the mini world; it has",
    ),
    ({"data": {"adaptation": ["nowhere"]}}, "adaptation", "data.adaptation: 'nowhere' is no folder"),
    ({"data": {"root": "nowhere", "adaptation": ["a"]}}, "root", "data.root: 'nowhere' is no folder; correct it"),
    ({"data": {"adaptation": []}}, "adaptation", "data.adaptation: "),
    ({"data": {"adaptation": "mini:chess", "evaluation": "mini:chess"}}, "data", "data: dataset 'chess' is used twice"),
]


@pytest.mark.parametrize(("changes", "key", "expected"), CONFIGURATION, ids=[row[2][:50] for row in CONFIGURATION])
def test_one_fault_is_one_line_with_its_place(
    time_ray: Callable[..., Any], changes: dict[str, object], key: str, expected: str
) -> None:
    path = written(**changes)
    (line,) = faults(time_ray("plan", path))
    place, _, text = line.partition(": ")
    assert text.startswith(expected)
    assert place == f"exp.yaml:{line_of(key)}" or (place.startswith("exp.yaml:") and "." in expected)


def test_all_faults_at_once_and_nothing_is_made(time_ray: Callable[..., Any]) -> None:
    path = written(
        inti=["zs"],
        init=["emaa"],
        technique=["avrage", {"name": "ties", "keap": 1}],
        model=["mini-tyni"],
        data={"adaptation": ["mini:chess", "mini:ches"], "evaluation": ["nowhere"]},
        mixture={"update": 0.5},
        budget=["0 steps"],
    )
    found = "\n".join(faults(time_ray("sweep", path, "seeed=[1]", "nonsense")))
    for fragment in ("inti", "emaa", "avrage", "keap", "mini-tyni", "'mini:ches'", "'nowhere'", "sum to", "'0 steps'"):
        assert found.count(fragment) == 1, (fragment, found)
    assert "seeed: unknown key; did you mean 'seed'?" in found
    assert "command line 'nonsense'" in found
    assert [path.name for path in Path().iterdir()] == ["exp.yaml"]


def test_faults_of_a_stream_wait_for_its_data(time_ray: Callable[..., Any]) -> None:
    """How many classes there are is not known before the data is."""
    path = written(data={"adaptation": ["nowhere"]}, stream={"tasks": 1000})
    (line,) = faults(time_ray("plan", path))
    assert "'nowhere' is no folder" in line


OVERRIDES = [
    ("nonsense", "command line 'nonsense': write overrides as key=value"),
    ("=3", "command line '=3': write overrides as key=value"),
    ("seed=[0,", "command line 'seed=[0,': not YAML"),
    ("seed=[0,0]", "command line 'seed=[0,0]': seed: '0' is given twice"),
    ("budget=0 steps", "command line 'budget=0 steps': budget.0: '0 steps' is no budget"),
    ("training.lrr=1", "command line 'training.lrr=1': training.lrr: unknown key; did you mean 'lr'?"),
    ("trainig.lr=1", "command line 'trainig.lr=1': trainig: unknown key; did you mean 'training'?"),
    ("technique.keep=1", "command line 'technique.keep=1': technique is a list; give the whole of it"),
    ("name.x=1", "command line 'name.x=1': name is 'tiny' and has no keys"),
    ("seed=010", "command line 'seed=010': seed.0: input should be a valid integer, not '010'"),
    ("init=zs,emaa", "command line 'init=zs,emaa': init.1.name: no such value 'emaa'"),
    ("run.workers=many", "command line 'run.workers=many': run.workers: input should be a valid integer"),
]


@pytest.mark.parametrize(("override", "expected"), OVERRIDES)
def test_a_bad_override_names_itself(time_ray: Callable[..., Any], override: str, expected: str) -> None:
    (line,) = faults(time_ray("plan", written(), override))
    assert line.startswith(expected)


def test_a_key_given_twice(time_ray: Callable[..., Any]) -> None:
    path = written()
    with Path(path).open("a") as file:
        file.write("seed: [0]\nseed: [1]\n")
    (line,) = faults(time_ray("plan", path))
    assert line == f"exp.yaml:{len(Path(path).read_text().splitlines())}: seed: given twice; keep one"


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), "red").save(path)


def test_an_empty_data_folder(time_ray: Callable[..., Any]) -> None:
    Path("pictures").mkdir()
    (line,) = faults(time_ray("plan", written(data={"adaptation": ["pictures"]})))
    assert "no training images" in line
    assert line.startswith(f"exp.yaml:{line_of('adaptation')}: data.adaptation: ")


def test_every_corrupt_image_is_named(time_ray: Callable[..., Any]) -> None:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        picture(Path("pictures", name))
    Path("pictures/cat/bad.png").write_bytes(b"no picture")
    Path("pictures/dog/cut.png").write_bytes(Path("pictures/dog/1.png").read_bytes()[:40])
    lines = faults(time_ray("plan", written(data={"adaptation": ["pictures"]})))
    assert ["cat/bad.png" in line or "dog/cut.png" in line for line in lines] == [True, True]
    assert all("not a readable image" in line for line in lines)


def test_weights_of_another_architecture_list_every_tensor(time_ray: Callable[..., Any]) -> None:
    from time_ray.clip import models
    from time_ray.core.model import ModelSpec

    tensors = dict(models.base_weights(ModelSpec(name="mini-tiny")))
    names = sorted(tensors)[:3]
    tensors[names[0]] = torch.zeros(1, 2, 3, 4, 5)
    del tensors[names[1]]
    tensors["stranger"] = torch.zeros(1)
    safetensors.torch.save_file({k: v.clone() for k, v in tensors.items()}, "other.safetensors")
    path = written(model=[{"name": "mini-tiny", "weights": "other.safetensors"}])
    lines = faults(time_ray("sweep", path))
    assert len(lines) == 3
    for name, text in ((names[0], "shape [1, 2, 3, 4, 5]"), (names[1], "missing"), ("stranger", "has no such tensor")):
        assert sum(f" {name}: " in line and text in line for line in lines) == 1, lines


def test_pickled_code_is_never_run(time_ray: Callable[..., Any]) -> None:
    torch.save({"weights": Path("x")}, "weights.pt")
    path = written(model=[{"name": "mini-tiny", "weights": "weights.pt"}])
    (line,) = faults(time_ray("sweep", path))
    assert "pickled code is never run" in line


def test_a_storage_that_cannot_be_written(time_ray: Callable[..., Any]) -> None:
    Path("file").touch()
    (line,) = faults(time_ray("sweep", written(storage="file/runs")))
    assert line.startswith("storage: ")
    assert "file/runs is not writable" in line


def test_a_storage_that_is_no_address(time_ray: Callable[..., Any]) -> None:
    lines = faults(time_ray("plan", written(storage="nosuch://place/runs", init=["emaa"])))
    assert len(lines) == 2
    assert lines[1].startswith("storage: nosuch://place/runs is no address pyarrow.fs knows")


def test_storage_in_a_bucket_needs_a_tracking_server(time_ray: Callable[..., Any]) -> None:
    (line,) = faults(time_ray("sweep", written(storage="s3://bucket/runs?region=nowhere")))
    assert "set MLFLOW_TRACKING_URI to an MLflow server" in line


def test_another_sweep_is_running(time_ray: Callable[..., Any]) -> None:
    from time_ray.store.files import Files
    from time_ray.store.lease import lease

    with lease(Files("runs"), "tiny"):
        (line,) = faults(time_ray("sweep", written()))
    assert f"sweep 'tiny' is being run by process {os.getpid()}" in line


def test_a_port_that_is_taken(time_ray: Callable[..., Any]) -> None:
    Path("runs").mkdir()
    Path("runs/mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (line,) = faults(time_ray("ui", "--port", str(port)))
    assert line.startswith(f"--port {port}: taken")


def test_there_is_nothing_to_look_at_yet(time_ray: Callable[..., Any]) -> None:
    (line,) = faults(time_ray("ui"))
    assert "no results here yet; run a sweep first" in line
    (line,) = faults(time_ray("best", written()))
    assert line == "exp.yaml: no cell is finished; run: time-ray sweep exp.yaml"
    (line,) = faults(time_ray("best", "exp.yaml", "--by", "x"))
    assert line == "no such metric 'x'; known: ka, zs, gm, forgetting, acc, bwt, fwt"
    (line,) = faults(time_ray("export", "exp.yaml", "--cell", "init=zs,deploy=ft"))
    assert line.startswith("--cell init=zs,deploy=ft: 0 finished cells match")
    (line,) = faults(time_ray("export", "exp.yaml", "--cell", "start=zs"))
    assert line.startswith("--cell: no axis 'start'; write for example init=ema,deploy=ema; axes: init, deploy")


@pytest.mark.parametrize("words", [("nothing",), ("plan",), ("plan", "exp.yaml", "-f", "xml")])
def test_usage_is_explained_on_stderr(time_ray: Callable[..., Any], words: tuple[str, ...]) -> None:
    done = time_ray(*words)
    assert done.status == 2
    assert done.out == ""
    assert "Usage" in done.err


def test_datasets_that_cannot_be_scored(time_ray: Callable[..., Any]) -> None:
    row = Row(b"not looked at", ("text",), 0, "")
    for name, settings in {
        "untested": {"classes": ("a",), "templates": ("{}",), "splits": {"train": [row]}},
        "captions": {"classes": (), "templates": (), "splits": {"test": [row]}, "kind": "captions"},
        "unprompted": {"classes": ("a",), "templates": (), "splits": {"test": [row]}},
    }.items():
        write_dataset(name, name=name, **({"kind": "classification"} | settings))
    path = written(data={"adaptation": "mini:chess", "evaluation": ["untested", "captions", "unprompted"]})
    found = faults(time_ray("plan", path))
    line = line_of("evaluation")
    assert found == [
        f"exp.yaml:{line}: data.evaluation: dataset {name}: no {what}, so it cannot be scored; leave it out or import "
        "it with some"
        for name, what in (("untested", "test images"), ("captions", "classes"), ("unprompted", "class prompts"))
    ]
    found = faults(time_ray("plan", path, "evaluation.templates='{}'", "data.evaluation=[unprompted,mini:pool]"))
    assert ["dataset pool: no test images" in fault for fault in found] == [True]


def test_datasets_that_cannot_be_learned(time_ray: Callable[..., Any]) -> None:
    data = {"adaptation": ["mini:chess", "mini:letters"], "evaluation": "mini:textures"}
    path = written(data=data | {"pretraining": "mini:scenes_blur"}, mixture={"pretraining": 0.5, "update": 0.5})
    told, pool = faults(time_ray("plan", path))
    assert told == (
        f"exp.yaml:{line_of('adaptation')}: data.adaptation: dataset letters: no training images, so it cannot be "
        "learned; use it for evaluation"
    )
    assert pool == (
        f"exp.yaml:{line_of('pretraining')}: data.pretraining: dataset scenes_blur: no training images, so it is no "
        "pool; name another dataset"
    )


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(stream, "PNG")
    return stream.getvalue()


SAMPLE = {"a.png": png(), "a.txt": b"a picture"}
ARCHIVES = {
    "a name that leads outside": (tar({**SAMPLE, "../b.png": png()}), "../b.png: leads out of its folder; not read"),
    "an absolute name": (tar({**SAMPLE, "/b.png": png()}), "/b.png: leads out of its folder; not read"),
    "a symbolic link": (tar(SAMPLE, link=tarfile.SYMTYPE), "link: a symbolic link, no plain file; not followed"),
    "a hard link": (tar(SAMPLE, link=tarfile.LNKTYPE), "link: a hard link, no plain file; not followed"),
    "a device": (tar(SAMPLE, device=tarfile.CHRTYPE), "device: a device, no plain file; not followed"),
    "cut off": (tar(SAMPLE)[:700], "not read beyond byte "),
    "no archive": (b"no archive at all" * 100, "not read beyond byte 512: invalid header; replace it"),
    "empty": (b"", "not read beyond byte 0: it ends too early; replace it"),
    "an image without a text": (tar({"a.png": png()}), "a: no caption in a .txt or .json; add one, or remove"),
    "a text without an image": (tar({"a.txt": b"a"}), "a: no image, only text; add one, or remove it"),
    "an image that is none": (tar({**SAMPLE, "a.png": b"none"}), "a: not a readable image"),
    "JSON that is none": (tar({"a.png": png(), "a.json": b"{none"}), "a: no caption in a .txt or .json"),
    "two images of one sample": (tar({**SAMPLE, "a.jpg": png()}), "a.jpg: its sample has an image already"),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_of_strangers(time_ray: Callable[..., Any], kind: str) -> None:
    data, expected = ARCHIVES[kind]
    Path("pool.tar").write_bytes(data)
    sections = {"data": {**GOOD["data"], "pretraining": "pool.tar"}, "mixture": {"update": 0.5, "pretraining": 0.5}}
    lines = faults(time_ray("plan", written(**sections)))
    assert any("data.pretraining: " in line and f"pool.tar: {expected}" in line for line in lines), lines
    assert not Path("../b.png").exists()


NO_WEIGHTS = "neither a safetensors file nor a torch checkpoint; give one"
NOT_WHOLE = "not a whole safetensors file ("
WEIGHTS = {
    "an empty file": (b"", NO_WEIGHTS),
    "noise": (b"noise" * 20, NO_WEIGHTS),
    "words": (b"hello", NO_WEIGHTS),
    "a header longer than the file": (struct.pack("<Q", 1 << 40) + b"{}", NOT_WHOLE),
    "a header that is cut off": (struct.pack("<Q", 100) + b'{"a":{"dtype":"F32"}}', NOT_WHOLE),
    "a header that is a list": (struct.pack("<Q", 2) + b"[]", NO_WEIGHTS),
    "tensors that are cut off": (safetensors.torch.save({"a": torch.zeros(9)})[:-1], NOT_WHOLE),
    "an archive that is none": (b"PK\x03\x04nonsense", "not a readable safetensors or torch file ("),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_of_strangers(time_ray: Callable[..., Any], kind: str) -> None:
    data, expected = WEIGHTS[kind]
    Path("w.safetensors").write_bytes(data)
    (line,) = faults(time_ray("sweep", written(model=[{"name": "mini-tiny", "weights": "w.safetensors"}])))
    assert f"w.safetensors: {expected}" in line


SECRET = "pa55word"  # noqa: S105
NO_MLFLOW = "is no address of MLflow; write http://HOST:PORT of an MLflow server, or a database as in"
NO_RAY = "is no address; write auto, HOST:PORT or ray://HOST:PORT"
ADDRESSES = [
    ("MLFLOW_TRACKING_URI", "nonsense", f"'nonsense' {NO_MLFLOW}"),
    ("MLFLOW_TRACKING_URI", "ftp://host/x", f"'ftp://host/x' {NO_MLFLOW}"),
    ("MLFLOW_TRACKING_URI", "file:///tmp/mlruns", f"'file:///tmp/mlruns' {NO_MLFLOW}"),
    ("MLFLOW_TRACKING_URI", "http://", f"'http://' {NO_MLFLOW}"),
    ("MLFLOW_TRACKING_URI", "http://:5000", f"'http://:5000' {NO_MLFLOW}"),
    ("MLFLOW_TRACKING_URI", "http://host:port", f"'http://host:port' {NO_MLFLOW}"),
    ("MLFLOW_TRACKING_URI", "http://host:99999", f"'http://host:99999' {NO_MLFLOW}"),
    ("MLFLOW_TRACKING_URI", "sqlite://", f"'sqlite://' {NO_MLFLOW}"),
    ("MLFLOW_TRACKING_URI", f"htp://me:{SECRET}@host", f"'htp://host' {NO_MLFLOW}"),
    ("RAY_ADDRESS", "nonsense", f"'nonsense' {NO_RAY}"),
    ("RAY_ADDRESS", "host:port", f"'host:port' {NO_RAY}"),
    ("RAY_ADDRESS", "127.0.0.1:0", f"'127.0.0.1:0' {NO_RAY}"),
    ("RAY_ADDRESS", "127.0.0.1:99999", f"'127.0.0.1:99999' {NO_RAY}"),
    ("RAY_ADDRESS", "ray://", f"'ray://' {NO_RAY}"),
    ("RAY_ADDRESS", "http://127.0.0.1:8265", f"'http://127.0.0.1:8265' {NO_RAY}"),
    ("RAY_ADDRESS", f"ray://me:{SECRET}@host:10001", f"'ray://host:10001' {NO_RAY}"),
    ("RAY_TMPDIR", "/nowhere/at/all", "RAY_TMPDIR: /nowhere/at/all: no such folder; set RAY_TMPDIR to a folder that"),
    ("TIME_RAY_STORAGE", f"nosuch://me:{SECRET}@place/runs", "nosuch://place/runs must hold no credentials"),
    ("TIME_RAY_STORAGE", f"nosuch://me:a/{SECRET}@place/runs?token={SECRET}", "nosuch://place/runs is no address"),
    ("TIME_RAY_STORAGE", "s3://bucket/runs?region=nowhere", "set MLFLOW_TRACKING_URI to an MLflow server"),
]


@pytest.mark.parametrize(("name", "value", "expected"), ADDRESSES, ids=[f"{row[0]}={row[1]}" for row in ADDRESSES])
def test_an_address_that_is_none(
    time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)
    (line,) = faults(time_ray("sweep", written(run={"workers": 1})))
    assert expected in line
    assert SECRET not in line


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_does_not_answer(
    time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    (line,) = faults(time_ray("sweep", written(run={"workers": 1})))
    assert line.startswith(f"RAY_ADDRESS: nothing answers at {address} (")
    assert line.endswith("); start the cluster, or unset it for a private one")


def test_an_override_may_hold_a_secret(time_ray: Callable[..., Any]) -> None:
    lines = faults(time_ray("plan", written(), f"storage=nosuch://me:{SECRET}@place", f"nme=s3://me:{SECRET}@place"))
    assert len(lines) == 2
    assert not any(SECRET in line for line in lines)
