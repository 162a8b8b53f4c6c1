"""Images a second for training, one core: ours against torchvision's ImageFolder in a DataLoader, in the same process.

Run as `OMP_NUM_THREADS=1 python tests/benchmarks/loading.py`. Both read the same JPEGs of 256 to 500 pixels a side,
take a random crop of 90 to 100 % of the area to 224 pixels (bicubic) and put batches together. torchvision ends with
normalised floats; time_ray with bytes, which its patch embedding normalises at no cost worth measuring. Times are CPU
seconds of one thread, rounds take turns, the best counts. The last line is about threads: wall time of a whole pass.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import datasets, transforms

from time_ray.core.mixture import Mixture
from time_ray.core.preprocessing import Resizing
from time_ray.core.stream import Concept, Task
from time_ray.data.batch import Batch
from time_ray.data.batches import Augment, batches
from time_ray.data.dataset import Data, Dataset
from time_ray.data.importers.imagefolder import import_imagefolder

SIZE, BATCH, CLASSES = 224, 64, 4
BICUBIC = transforms.InterpolationMode.BICUBIC
NORMALISED = (transforms.ToTensor(), transforms.Normalize((0.48, 0.46, 0.41), (0.27, 0.26, 0.28)))
CROP = transforms.Compose([transforms.RandomResizedCrop(SIZE, (0.9, 1), interpolation=BICUBIC), *NORMALISED])
FIT = transforms.Compose([transforms.Resize(SIZE, BICUBIC), transforms.CenterCrop(SIZE), *NORMALISED])


def photograph(number: int) -> bytes:
    """A JPEG with structure at all scales, and about as many bytes as a photograph of its size has."""
    draws = np.random.default_rng(number)
    height, width = draws.integers(256, 501, 2).tolist()
    total: NDArray[np.float32] = np.zeros((height, width, 3), dtype=np.float32)
    for scale in (1, 2, 4, 16, 64):
        shape = (height // scale + 2, width // scale + 2, 3)
        noise = Image.fromarray(draws.integers(0, 256, shape, dtype=np.uint8))
        total += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32) * scale**0.3
    total = 255 * (total - total.min()) / np.ptp(total)
    stream = io.BytesIO()
    Image.fromarray(total.astype(np.uint8)).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def write(root: Path, count: int) -> float:
    """The images in folders of their classes; their mean number of bytes."""
    sizes = []
    for number in range(count):
        path = root / "train" / f"class {number % CLASSES}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        sizes.append(path.write_bytes(photograph(number)))
    return sum(sizes) / count


def rates(
    work: dict[str, Callable[[], object]], count: int, rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Images a second of each, the best of some rounds that take turns."""
    best = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, call in work.items():
            start = clock()
            call()
            best[name] = min(best[name], clock() - start)
    return {name: count / seconds for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Loading images for training, against torchvision.")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photographs"
        size = write(root, given.images)
        import_imagefolder(root, Path(folder) / "imported")
        data = Data((Dataset.open(Path(folder) / "imported"),), (), None)
        task = Task(1, tuple(Concept(root.name, f"class {number}") for number in range(CLASSES)))

        def ours(augment: Augment, loaders: int) -> Callable[[], object]:
            def stream() -> Iterator[Batch]:
                return batches(
                    task,
                    (),
                    data,
                    Mixture(),
                    batch_size=BATCH,
                    steps=given.images // BATCH,
                    seed=0,
                    resizing=Resizing(SIZE),
                    augment=augment,
                    loaders=loaders,
                )

            return lambda: sum(len(batch.texts) for batch in stream())

        def plain(transform: Callable[[Image.Image], torch.Tensor]) -> Callable[[], object]:
            folders = datasets.ImageFolder(str(root / "train"), transform)
            loader = torch.utils.data.DataLoader(folders, BATCH, shuffle=True, num_workers=0)
            return lambda: sum(len(labels) for _, labels in loader)

        print(f"{given.images} JPEGs, {size / 1024:.0f} KB each on average; images a second of one core")
        for augment, transform in (("crop", CROP), ("none", FIT)):
            work = {"time_ray": ours(augment, 0), "torchvision": plain(transform)}
            found = rates(work, given.images, given.rounds, time.process_time)
            ratio = found["time_ray"] / found["torchvision"]
            print(f"augment={augment}: {found['time_ray']:7.0f} against {found['torchvision']:7.0f}: {ratio:.2f}x")
        threads = {str(loaders): ours("crop", loaders) for loaders in (0, 1, 2)}
        found = rates(threads, given.images, given.rounds, time.perf_counter)
        print("wall, by loaders: " + ", ".join(f"{name}: {rate:.0f} images/s" for name, rate in found.items()))


if __name__ == "__main__":
    main()
