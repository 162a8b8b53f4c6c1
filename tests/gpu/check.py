"""Whether time_ray is right and fast on this machine's GPU: `python tests/gpu/check.py -o FILE.json`.

It needs torch, torchvision, open_clip, pyarrow and the other packages that time_ray trains with, but neither Ray nor
MLflow. First it checks (see correct.py), then it measures (see speed.py); every line is written to FILE.json as soon
as it is known, so that nothing is lost if the machine is taken away. `--device cpu` does the same on a CPU, with sizes
cut: so the script cannot rot where no GPU is. `time_ray/docs/gpus.md` says how to read the tables.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from correct import CHECKS
from machine import Machine
from speed import MEASURES, TRACE


class Report:
    """What was found so far, in a file."""

    def __init__(self, path: Path, machine: Machine) -> None:
        self._path = path
        self.found: dict[str, Any] = {
            "device": machine.name,
            "torch": torch.__version__,
            "cuda": torch.version.cuda if machine.is_gpu else None,
            "cpus": os.cpu_count(),
            "host": platform.platform(),
            "checks": {},
            "measures": {},
        }

    def write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self.found, indent=1, default=str) + "\n", encoding="utf-8")


def check(machine: Machine, report: Report, only: str) -> int:
    """How many checks failed."""
    failed = 0
    for one in CHECKS:
        name = one.__name__.replace("_", " ")
        if only not in name:
            continue
        began = time.perf_counter()
        try:
            found = dict(one(machine))
            said = "skipped" if "skipped" in found else "ok"
        except Exception as error:  # noqa: BLE001 whatever it is, the other checks are worth their results
            failed += 1
            said, found = "FAILED", {"why": f"{type(error).__name__}: {error}", "where": traceback.format_exc()}
        seconds = round(time.perf_counter() - began, 1)
        report.found["checks"][name] = {"outcome": said, "seconds": seconds, **found}
        report.write()
        print(f"{said:8} {seconds:7.1f} s  {name}: {found.get('why', _words(found))}", flush=True)
    return failed


def measure(machine: Machine, report: Report, only: str) -> int:
    """How many measures failed."""
    failed = 0
    for name, one in MEASURES.items():
        if only not in name:
            continue
        rows = report.found["measures"].setdefault(name, [])
        try:
            for row in one(machine):
                rows.append(row)
                report.write()
                print(f"{name}: {_words(row)}", flush=True)
        except Exception as error:  # noqa: BLE001
            failed += 1
            rows.append({"FAILED": f"{type(error).__name__}: {error}", "where": traceback.format_exc()})
            report.write()
            print(f"{name}: FAILED: {type(error).__name__}: {error}", flush=True)
    return failed


def _words(found: dict[str, Any]) -> str:
    return ", ".join(
        f"{what} {value:.5g}" if isinstance(value, float) else f"{what} {value}" for what, value in found.items()
    )


def device(name: str) -> torch.device:
    """With its number, as Ray names the GPU of a worker: some of torch's functions take no other."""
    named = torch.device(name)
    return torch.device("cuda", torch.cuda.current_device()) if named.type == "cuda" and named.index is None else named


def main() -> None:
    parser = argparse.ArgumentParser(description="Checks and measures time_ray on a GPU.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file that the results go to, as JSON")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu with sizes cut")
    parser.add_argument("--only", default="", help="those whose name has this in it")
    parser.add_argument("--checks", action="store_true", help="checks alone, no measures")
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here; --device cpu runs the same checks on the CPU")
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(device(given.device), Path(folder))
        report = Report(given.output, machine)
        failed = check(machine, report, given.only)
        failed += 0 if given.checks else measure(machine, report, given.only)
        if (trace := machine.folder / TRACE).exists():
            shutil.move(trace, given.output.with_suffix(".trace.json"))
    print(f"{given.output}: {'all well' if not failed else f'{failed} failed'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
