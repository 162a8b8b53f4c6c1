"""What merging costs: one table, each figure beside its reference from the same run on the same machine.

    python tests/benchmarks/merging.py                    # everything (13 GB of disk and page cache, ten minutes)
    python tests/benchmarks/merging.py --parts memory     # one part: memory, files, incremental, device
    python tests/benchmarks/merging.py --experts 8 --techniques ties average

Groups: in memory against mergekit 0.1.5 (where it is installed: pip install mergekit==0.1.5 --no-deps); file to file
with ViT-B-16-sized models against plainly reading the inputs, writing and syncing the output (`limit`), and for sums
against the least loop that also does the arithmetic (`by hand`, one thread); adding the last expert against merging
all; and the same on an accelerator, where there is one. Limits are measured beside every merge, with as many threads.
Wall seconds, and CPU seconds in brackets: on a shared machine the second is the steadier one.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from time_ray.merging import TECHNIQUES, fold, merge, merge_files

Weights = dict[str, Tensor]
SLOW = ("opcm", "iso_c", "iso_cts", "tsv_m", "null_space", "wudi", "ace")
"""Techniques whose cost is decompositions and products of matrices, not bytes (see `decompositions.py`)."""
FEW = dict.fromkeys(SLOW, 3) | {"iso_c": 20}
"""Experts of a technique whose cost is the same for each after the first (one decomposition per matrix and expert)."""
SUMS = ("average", "task_arithmetic")
OVER_TIME = ("average", "task_arithmetic", "ties", "magmax", "model_stock")
BLOCK = 1 << 20


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """The wall and CPU seconds of some work."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def say(*columns: object) -> None:
    """Print a row."""
    widths = (44, 18, 12, 14, 40)
    print("".join(f"{column!s:<{width}}" for column, width in zip(columns, widths, strict=False)).rstrip(), flush=True)


def spent(times: tuple[float, float]) -> str:
    """Seconds as the table shows them."""
    return f"{times[0]:.2f} s ({times[1]:.2f})"


def noisy(base: Weights, seed: int) -> Weights:
    """The model a little moved."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 1e-3 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in base.items()
    }


def vit_b_16() -> Weights:
    """A ViT-B-16 CLIP model as open_clip initialises it (149.6 M parameters)."""
    import open_clip

    torch.manual_seed(0)
    return {name: value.clone() for name, value in open_clip.create_model("ViT-B-16").state_dict().items()}


def gigabytes(model: Weights) -> float:
    """The size of a model in GB."""
    return sum(value.nbytes for value in model.values()) / 1e9


def in_memory(count: int = 8, size: int = 50_000_000) -> None:
    """Merges of tensors in memory, one thread."""
    base = {f"layer.{i}": torch.randn(size // 16, generator=torch.Generator().manual_seed(i)) for i in range(16)}
    experts = [noisy(base, seed) for seed in range(1, count + 1)]
    total = (count + 2) * gigabytes(base)
    say(f"\nIn memory: {count} experts of {size / 1e6:.0f} M, float32, 1 thread", "time (CPU)", "GB/s", "against")

    def plain() -> None:
        output = {name: torch.empty_like(value) for name, value in base.items()}
        for model in (base, *experts):
            for name, value in model.items():
                output[name].copy_(value)

    reference = min(timed(plain) for _ in range(3))
    copied = (2 * count + 2) * gigabytes(base)
    say("copying every input once (memcpy)", spent(reference), f"{copied / reference[0]:.2f}")
    parameters = {
        "ties": {"weight": 1.0, "density": 0.2},
        "task_arithmetic": {"weight": 1.0},
        "average": {"weight": 1.0},
    }
    for name in ("average", "task_arithmetic", "ties"):
        ours = min(timed(lambda name=name: merge(base, experts, name)) for _ in range(3))
        say(f"time_ray {name}", spent(ours), f"{total / ours[0]:.2f}", f"{reference[0] / ours[0]:.2f}x memcpy")
        theirs = mergekit(base, experts, name, parameters[name])
        if theirs is None:
            say(f"mergekit {name}", "not installed")
        else:
            ratio = f"{theirs[0] / ours[0]:.1f}x slower, CPU {theirs[1] / ours[1]:.1f}x"
            say(f"mergekit 0.1.5 {name}", spent(theirs), f"{total / theirs[0]:.2f}", ratio)


def mergekit(
    base: Weights, experts: Sequence[Weights], name: str, parameters: dict[str, Any]
) -> tuple[float, float] | None:
    """The time of the same merge by mergekit; None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mergekit.merge_methods.api import merge_state_dicts
    except ImportError:
        return None
    models = {str(number): expert for number, expert in enumerate(experts)}
    if name == "average":
        return timed(lambda: merge_state_dicts(models, "linear", parameters=parameters))
    return timed(lambda: merge_state_dicts({"base": base, **models}, name, base="base", parameters=parameters))


def write_models(folder: Path, count: int) -> list[Path]:
    """A base and experts on disk."""
    base = vit_b_16()
    paths = [folder / f"{number}.safetensors" for number in range(count + 1)]
    for number, path in enumerate(paths):
        save_file(noisy(base, number) if number else base, path)
    return paths


def renewed(output: Path, work: Callable[[Path], None]) -> tuple[float, float]:
    """The time in which a new file is written, synced and named; freeing an older one is not part of it."""
    output.unlink(missing_ok=True)

    def whole() -> None:
        part = output.with_name("part")
        work(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(output)

    return timed(whole)


def read_and_write(paths: Sequence[Path], part: Path, threads: int = 1) -> None:
    """Every byte of the inputs is read once and one model written: what no merge can do without."""

    def read(some: Sequence[Path]) -> None:
        buffer = memoryview(bytearray(BLOCK))
        for path in some:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, [paths[number::threads] for number in range(threads)]))
    buffer, left = memoryview(bytearray(BLOCK)), paths[0].stat().st_size
    with part.open("wb", buffering=0) as file:
        while left > 0:
            left -= file.write(buffer[: min(left, len(buffer))])


def by_hand(paths: Sequence[Path], part: Path, technique: str) -> None:
    """The least loop that also does the arithmetic: no checks, no names, one run of float32 numbers per file."""
    elements = BLOCK // 8
    base, total, expert = (torch.empty(elements) for _ in range(3))
    files = [path.open("rb", buffering=0) for path in paths]
    left = paths[0].stat().st_size // 4
    with part.open("wb", buffering=0) as output:
        while left > 0:
            count = min(left, elements)
            now, moved, one = base[:count], total[:count], expert[:count]
            files[0].readinto(memoryview(now.numpy()))
            moved.zero_()
            for file in files[1:]:
                file.readinto(memoryview(one.numpy()))
                moved.add_(one if technique == "average" else one.sub_(now))
            moved.div_(len(paths) - 1)
            output.write(memoryview((moved if technique == "average" else moved.add_(now)).numpy()))
            left -= count
    for file in files:
        file.close()


def apart(request: dict[str, Any]) -> dict[str, float]:
    """The times and the peak memory of one streamed merge in a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def one(request: dict[str, Any]) -> None:
    """Do what `apart` asked for."""
    paths = [Path(path) for path in request["paths"]]
    options = {"threads": request["threads"], "sidecars": True}
    merge({"w": torch.zeros(8)}, [{"w": torch.ones(8)}], request["technique"])  # torch has been used before
    wall, cpu = timed(lambda: merge_files(paths[0], paths[1:], request["output"], request["technique"], **options))
    # Not getrusage: it also counts the process that started this one.
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf8"))
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": int(peak[1]) * 1024 / 1e9 if peak else float("nan")}))


def forget(paths: Sequence[Path]) -> None:
    """Nothing is remembered of the models."""
    for path in paths:
        path.with_name(path.name + ".merging").unlink(missing_ok=True)


def streamed(paths: Sequence[Path], techniques: Sequence[str], counts: Sequence[int], output: Path) -> None:
    """Merges from file to file, one thread and two."""
    size = paths[0].stat().st_size / 1e9
    say(f"\nFile to file: {len(paths) - 1} experts of {size:.2f} GB", "time (CPU)", "GB/s", "peak GB", "against")

    def report(label: str, technique: str, threads: int, times: int = 1) -> None:
        some = paths[: FEW.get(technique, len(paths)) + 1]
        request = {"paths": [str(path) for path in some], "output": str(output), "technique": technique}
        runs, limits, hands = [], [], []
        for _ in range(times):
            limits.append(renewed(output, lambda part: read_and_write(some, part, threads)))
            if technique in SUMS and threads == 1:
                hands.append(renewed(output, lambda part: by_hand(some, part, technique)))
            output.unlink()
            runs.append(apart({**request, "threads": threads}))
        best = min(runs, key=lambda run: run["wall"])
        share = f"{min(limits)[0] / best['wall']:.0%} of the limit ({spent(min(limits))})"
        share += f", {min(hands)[0] / best['wall']:.0%} of by hand ({spent(min(hands))})" if hands else ""
        share += f", {len(some) - 1} experts" if len(some) < len(paths) else ""
        rate = size * (len(some) + 1) / best["wall"]
        say(label, spent((best["wall"], best["cpu"])), f"{rate:.2f}", f"{best['peak']:.2f}", share)

    forget(paths)
    report("average, the first time (with SHA-256)", "average", 1)
    for technique in techniques:
        if {"keep", "drop_low"} & set(TECHNIQUES[technique].parameters):
            report(f"{technique}, the first time (with histograms)", technique, counts[0])
        for threads in counts:
            report(
                f"{technique}, {threads} thread{'s' * (threads > 1)}", technique, threads, 3 if technique in SUMS else 1
            )


def incremental(paths: Sequence[Path], techniques: Sequence[str]) -> None:
    """Adding the last expert to a fold against merging all of them, both from files into memory."""
    count = len(paths) - 1
    say(f"\nOver time: expert {count} of {count}, 1 thread", "add + result", "all at once", "against")
    for technique in techniques:
        running = fold(technique, paths[0])
        for path in paths[1:-1]:
            running.add(path)
        step = timed(lambda running=running: (running.add(paths[-1]), running.result()))
        del running
        whole = timed(lambda technique=technique: merge(paths[0], paths[1:], technique))
        say(technique, spent(step), f"{whole[0]:.2f} s", f"{whole[0] / step[0]:.1f}x")


def on_device(count: int = 8, size: int = 50_000_000) -> None:
    """The same merges on an accelerator, and how far the results are from the CPU's."""
    if not torch.cuda.is_available():
        say("\nOn an accelerator: none here")
        return
    base = {
        f"l.{i}.weight": torch.randn(1000, size // 16_000, generator=torch.Generator().manual_seed(i))
        for i in range(16)
    }
    experts = [noisy(base, seed) for seed in range(1, count + 1)]
    there = [{name: value.cuda() for name, value in model.items()} for model in (base, *experts)]
    total = (count + 2) * gigabytes(base)
    say(
        f"\nOn {torch.cuda.get_device_name()}: {count} x {size / 1e6:.0f} M",
        "device",
        "GB/s",
        "CPU",
        "largest difference",
    )
    for technique, row in TECHNIQUES.items():
        if technique in SLOW or row.needs_moments:
            continue
        results: list[Weights] = []

        def work(technique: str = technique, results: list[Weights] = results) -> None:
            results.append(merge(there[0], there[1:], technique))
            torch.cuda.synchronize()

        device = min(timed(work) for _ in range(3))
        cpu = timed(lambda technique=technique, results=results: results.append(merge(base, experts, technique)))
        gap = max(float((results[0][name].cpu() - results[-1][name]).abs().max()) for name in base)
        say(technique, f"{device[0]:.3f} s", f"{total / device[0]:.1f}", f"{cpu[0]:.2f} s", f"{gap:.1e}")


def models(count: int, kept: Path | None) -> Iterator[list[Path]]:
    """Models on disk; gone afterwards unless they were there before."""
    if kept:
        yield [kept / f"{number}.safetensors" for number in range(count + 1)]
        return
    folder = Path(tempfile.mkdtemp(prefix="merging-"))
    try:
        yield write_models(folder, count)
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["memory", "files", "incremental", "device"])
    parser.add_argument("--experts", type=int, default=20)
    parser.add_argument(
        "--techniques", nargs="+", default=[name for name, row in TECHNIQUES.items() if not row.needs_moments]
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="models 0.safetensors (base), 1.safetensors, ... (default: made)")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        one(asked.one)
        return
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if "memory" in asked.parts:
        in_memory()
    if {"files", "incremental"} & set(asked.parts):
        for paths in models(asked.experts, asked.folder):
            if "files" in asked.parts:
                streamed(paths, asked.techniques, asked.threads, paths[0].parent / "output")
            if "incremental" in asked.parts:
                incremental(paths, [name for name in asked.techniques if name in OVER_TIME])
    if "device" in asked.parts:
        on_device()


if __name__ == "__main__":
    main()
