"""32 cells on three hosts beside their simulation; as root, with PYTHONPATH=tests/support:. in the environment.

The hosts are namespaces of this machine: a head, and three nodes of one CPU each, however many cores there are. That
they share these is in the stages' own seconds, of which the simulated schedule is made; what is not in it is Ray, the
storage, and waiting that the schedule did not foresee.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from hosts import network
from ray_hosts import Experiment, RayHosts, wait_until
from schedule_real import own_costs

from time_ray import api
from time_ray.core.plan import NOTHING
from time_ray.core.schedule import Simulator
from time_ray.workload import TrialNeeds, workload

NODES = 3
EXPERIMENT = {
    "name": "hosts",
    "init": ["ft", "ema"],
    "deploy": ["ema", "all"],
    "technique": ["average", "ties"],
    "model": "mini-tiny",
    "budget": "400 steps",
    "seed": [0, 1, 2, 3],
    "data": {"adaptation": "mini:chess", "evaluation": "mini:textures"},
    "stream": {"tasks": 3},
    "training": {"batch_size": 8, "augment": "none"},
    "run": {"workers": 1},
}


def main() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="hosts-") as folder, network(Path(folder)) as place:
        path = Path(folder, "hosts.yaml")
        path.write_text(yaml.safe_dump({**EXPERIMENT, "storage": f"{folder}/runs"}))
        opened = api.open_experiment(path, ["run.workers=0"])
        ray = RayHosts(place)
        for _ in range(NODES):
            ray.add(1)
        sweep = ray.sweep(ray.head, Experiment(path))
        began = _when(lambda: "starting 1" in sweep.said)
        ended = _when(lambda: "writing MLflow" in sweep.said)
        assert sweep.wait() == 0, sweep.said
        over = time.monotonic()
        needs = {model: TrialNeeds(rate, 1.0, 0) for model, rate in api.measure(opened).items()}
        trials = own_costs(opened, workload(opened.study.cells, needs, NOTHING).trials)
    simulator = Simulator(trials)
    simulated, work = simulator.on(NODES).seconds, simulator.totals.work
    print(f"{len(opened.study.cells)} cells in {len(trials)} trials on {NODES} nodes: {ended - began:.1f} s")
    print(f"simulated from the stages' own seconds {simulated:.1f} s: {simulated / (ended - began):.3f} of it")
    print(f"work {work:.1f} s, shared evenly {work / NODES:.1f} s; the whole command {over - sweep.started:.1f} s")


def _when(true: Callable[[], bool]) -> float:
    wait_until(true)
    return time.monotonic()


if __name__ == "__main__":
    main()
