"""Import of many small images: images a second and memory, beside a plain loop that only decodes them.

`python tests/benchmarks/importing.py [COUNT] [SIDE]` prints the table; each way runs in a process of its own.
"""

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from time_ray.data.importers.imagefolder import import_imagefolder
from time_ray.data.importers.pipeline import ImportProgress
from time_ray.data.verify_dataset import verify

CLASSES = 100


def draw(root: Path, count: int, side: int) -> None:
    """JPEG files in folders of classes; each is one of a hundred pictures with its number after the end."""
    smooth = [np.random.default_rng(n).integers(0, 256, (8, 8, 3), dtype=np.uint8) for n in range(100)]
    pictures = []
    for pixels in smooth:
        stream = io.BytesIO()
        Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        pictures.append(stream.getvalue())
    for number in range(count):
        folder = root / f"train/class {number % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06}.jpg").write_bytes(pictures[number % 100] + number.to_bytes(4, "little"))


def plain(root: Path, _: Path) -> None:
    for path in root.rglob("*.jpg"):
        with Image.open(path) as image:
            image.convert("RGB")


def ours(jobs: int) -> Callable[[Path, Path], None]:
    def run(root: Path, out: Path) -> None:
        import_imagefolder(root, out, jobs=jobs)

    return run


def again(_: Path, out: Path) -> None:
    verify(out.with_name("import, 1 process"))


def resumed(root: Path, out: Path) -> None:
    """All shards are there but for the last half: what a killed import finds."""

    class Killed(BaseException):
        pass

    def stop(progress: ImportProgress) -> None:
        if progress.share > 0.5:
            raise Killed

    try:
        import_imagefolder(root, out, progress=stop)
    except Killed:
        start = time.perf_counter()
        import_imagefolder(root, out)
        print(f"{'of it the second half':28} {'':>10} {time.perf_counter() - start:8.1f}", flush=True)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "decode only, 1 process": plain,
    "import, 1 process": ours(1),
    f"import, {os.cpu_count()} processes": ours(os.cpu_count() or 1),
    "import, stopped and resumed": resumed,
    "verify, 1 process": again,
}


def memory(process: psutil.Process) -> int:
    """Bytes of the process and all below it, shared ones counted once."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def measured(way: str, root: Path, out: Path) -> tuple[float, float, float]:
    """Seconds, CPU seconds of all its processes, and MB at the peak."""
    before = os.times()
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, __file__, "--way", way, str(root), str(out)]) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, memory(psutil.Process(process.pid)))
            time.sleep(0.2)
    after = os.times()
    if process.returncode:
        sys.exit(process.returncode)
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - start, spent, peak / 1e6


def main() -> None:
    if sys.argv[1:2] == ["--way"]:
        WAYS[sys.argv[2]](Path(sys.argv[3]), Path(sys.argv[4]))
        return
    count, side = (int(word) for word in (sys.argv[1:] + ["50000", "64"][len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw(folder / "images", count, side)
        print(f"{count} JPEG images of {side} px")
        print(f"{'':28} {'images/s':>10} {'s':>8} {'CPU s':>8} {'peak MB':>8}", flush=True)
        for way in WAYS:
            seconds, spent, peak = measured(way, folder / "images", folder / way)
            print(f"{way:28} {count / seconds:10.0f} {seconds:8.1f} {spent:8.1f} {peak:8.0f}", flush=True)


if __name__ == "__main__":
    main()
