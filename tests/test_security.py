"""Nothing that is loaded can run code: no pickle, no unsafe YAML, no evaluation, on any path but one of our own."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "time_ray"
FORBIDDEN = {
    "pickle.load": "unpickling runs code",
    "pickle.loads": "unpickling runs code",
    "pickle.Unpickler": "unpickling runs code",
    "cloudpickle.load": "unpickling runs code",
    "cloudpickle.loads": "unpickling runs code",
    "dill.loads": "unpickling runs code",
    "joblib.load": "unpickling runs code",
    "marshal.loads": "builds code",
    "shelve.open": "unpickles",
    "yaml.load": "builds objects; use safe_load, or a SafeLoader",
    "yaml.load_all": "builds objects",
    "yaml.unsafe_load": "builds objects",
    "yaml.full_load": "builds objects",
    "eval": "runs code",
    "exec": "runs code",
    "os.system": "runs a shell",
}
OUR_OWN = {
    ("cluster/trial.py", "pickle.loads"),  # what the driver itself sends its workers through Ray
    ("plugins.py", "exec"),  # a file that an experiment or a command names to be run
}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call by the dotted name it is written with, imports resolved."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, _, rest = ast.unparse(node.func).partition(".")
            yield ".".join(part for part in (names.get(first, first), rest) if part), node


def faults(path: str, source: str) -> Iterator[str]:
    """What could run code that was loaded, one line each."""
    for name, call in calls(ast.parse(source)):
        settings = {keyword.arg: keyword.value for keyword in call.keywords}
        where = f"{path}:{call.lineno}: {name}"
        if name in FORBIDDEN and (path, name) not in OUR_OWN:
            if not (name == "yaml.load" and "Loader" in ast.unparse(call)):
                yield f"{where}: {FORBIDDEN[name]}"
        elif name == "torch.load" and ast.unparse(settings.get("weights_only", ast.Constant(None))) != "True":
            yield f"{where}: unpickles unless weights_only=True"
        elif name in ("numpy.load", "np.load") and "allow_pickle" in settings:
            yield f"{where}: may unpickle"
        elif "trust_remote_code" in settings:
            yield f"{where}: runs code from elsewhere"
        elif isinstance(settings.get("shell"), ast.Constant) and settings["shell"].value:
            yield f"{where}: runs a shell"
        elif name.endswith("extractall"):
            yield f"{where}: writes where an archive says"


STARTS = ("subprocess.", "multiprocessing.", "concurrent.futures.Process", "os.exec", "os.spawn", "os.posix_spawn")
STARTS_OTHERS = {
    "data/importers/worker_processes.py",  # by multiprocessing, within python_child.safe_spawning
    "data/importers/npm_packages.py",  # npm, in a folder of its own
    "tools/pictures/mlflow_page.py",  # a browser
    "tools/pretrain_mini.py",  # by multiprocessing, likewise
    "version.py",  # git
}


def test_python_is_started_in_one_place() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for name, _ in calls(ast.parse(path.read_text(encoding="utf-8")))
        if name.startswith(STARTS)
    }
    assert found == {"python_child.py", *STARTS_OTHERS}
    named = {path.name for path in PACKAGE.rglob("*.py") if "sys.executable" in path.read_text(encoding="utf-8")}
    assert named <= {"python_child.py", "machine.py"}  # which says where Python lies


def test_nothing_in_the_package_runs_what_it_loads() -> None:
    found = [
        fault
        for path in sorted(PACKAGE.rglob("*.py"))
        for fault in faults(path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(file)",
        "from pickle import loads as read\nread(data)",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.unsafe_load(text)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "eval(text)",
        "import subprocess\nsubprocess.run(line, shell=True)",
        "import tarfile\ntarfile.open(path).extractall(folder)",
    ],
)
def test_the_scan_finds_what_it_looks_for(source: str) -> None:
    assert len(list(faults("module.py", source))) == 1


def test_the_scan_lets_the_safe_ways_pass() -> None:
    source = "import torch, yaml\ntorch.load(path, weights_only=True)\nyaml.safe_load(text)\nyaml.load(text, _Loader)"
    assert list(faults("module.py", source)) == []
    assert "class _Loader(yaml.SafeLoader)" in (PACKAGE / "config.py").read_text(encoding="utf-8")
