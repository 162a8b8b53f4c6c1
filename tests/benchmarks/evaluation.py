"""What evaluation costs: each figure beside its reference from the same run on the same machine.

    python tests/benchmarks/evaluation.py                       # everything, a few minutes on two cores
    python tests/benchmarks/evaluation.py --parts images        # one part: models, images, retrieval

Models: ViT-B-32 with random weights on the test images of one dataset, against open_clip's own calls on torchvision's
ImageFolder, a model at a time; both give the same accuracies. Images: JPEGs to 224 px squares against the same loader,
decoded and from the disk. Retrieval: recall of random vectors against sorting the matrix of all pairs. Every figure is
of a process of its own, on one thread: images a second of CPU time (of wall time in brackets) and its peak memory.
"""

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from time_ray.clip.evaluate import outcomes
from time_ray.clip.models import create
from time_ray.clip.retrieval import Pairs, recall_hits
from time_ray.core.model import ModelSpec
from time_ray.core.outcomes import CUTOFFS
from time_ray.core.outcomes import accuracies as accuracies_of
from time_ray.core.preprocessing import Resizing
from time_ray.data.dataset import Dataset
from time_ray.data.image_cache import ImageBlock, ImageCache
from time_ray.data.images import Decoded
from time_ray.data.importers.imagefolder import import_imagefolder

MODEL, SIZE = "ViT-B-32", 224
CLASSES = [f"thing {number}" for number in range(10)]
BATCH = 64
IMAGES, CAPTIONS, WIDTH = 5_000, 25_010, 512  # MSCOCO's test set


def made(folder: Path, count: int, models: int) -> None:
    """Photo-like JPEGs of 500 x 375 as an image folder and as our dataset, and models that differ."""
    for number in range(count):
        noise = np.random.default_rng(number)
        small = Image.fromarray(noise.integers(0, 256, (47, 63, 3), dtype=np.uint8))
        photo = np.asarray(small.resize((500, 375), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = noise.normal(0, 6, photo.shape).astype(np.int16)
        picture = Image.fromarray((photo + grain).clip(0, 255).astype(np.uint8))
        for split in ("test",) if number >= len(CLASSES) else ("test", "train"):
            path = folder / "pictures" / split / CLASSES[number % len(CLASSES)] / f"{number:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, quality=90)
    import_imagefolder(folder / "pictures", folder / "dataset")
    for seed in range(models):
        torch.manual_seed(seed)
        module = open_clip.create_model(MODEL, load_weights=False)
        save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path_of(folder, seed))


def path_of(folder: Path, seed: int) -> Path:
    return folder / f"model-{seed}.safetensors"


def weights_of(folder: Path, seed: int) -> dict[str, torch.Tensor]:
    """The model in memory, as a trial has it."""
    return {name: value.clone() for name, value in load_file(path_of(folder, seed)).items()}


def loader(folder: Path, mean: tuple[float, ...], std: tuple[float, ...]) -> DataLoader[Any]:
    """Torchvision's way to the input of a model."""
    steps = [
        transforms.Resize(SIZE, transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(SIZE),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
    return DataLoader(ImageFolder(str(folder / "pictures" / "test"), transforms.Compose(steps)), batch_size=BATCH)


def models_plainly(folder: Path, models: int) -> dict[str, Any]:
    """Accuracies by open_clip's own calls, one model after the other."""
    module = open_clip.create_model(MODEL, load_weights=False).eval()
    tokens = open_clip.get_tokenizer(MODEL)([f"a photo of a {name}." for name in CLASSES])
    accuracies, clock = [], Clock()
    for seed in range(models):
        module.load_state_dict(weights_of(folder, seed))
        with clock, torch.no_grad():
            head = module.encode_text(tokens, normalize=True)
            hits = count = 0
            for images, labels in loader(folder, module.visual.image_mean, module.visual.image_std):
                hits += int(((module.encode_image(images, normalize=True) @ head.T).argmax(1) == labels).sum())
                count += len(labels)
        accuracies.append(100 * hits / count)
    return {"scores": accuracies, **clock.per_second(count * models)}


def models_ours(folder: Path, models: int, *, together: bool, disk: bool) -> dict[str, Any]:
    """Accuracies by one call for all models, or by one for each."""
    clip, dataset = create(ModelSpec(name=MODEL)), Dataset.open(folder / "dataset")
    cache = ImageCache(folder / "pixels") if disk else None
    weights = [weights_of(folder, seed) for seed in range(models)]
    clock, scores = Clock(), []
    with clock:
        for group in [weights] if together else [[one] for one in weights]:
            scores += map(accuracies_of, outcomes(clip, group, [dataset], batch_size=BATCH, cache=cache))
    return {
        "scores": [one[dataset.card.name] for one in scores],
        **clock.per_second(len(dataset.split("test")) * models),
    }


def images_plainly(folder: Path) -> dict[str, Any]:
    clock = Clock()
    with clock:
        count = sum(len(images) for images, _ in loader(folder, (0.5,) * 3, (0.5,) * 3))
    return clock.per_second(count)


def images_ours(folder: Path, *, disk: bool) -> dict[str, Any]:
    dataset = Dataset.open(folder / "dataset")
    decoded, cache = Decoded(dataset.split("test"), Resizing(SIZE)), ImageCache(folder / "pixels")
    rows = np.arange(len(dataset.split("test")))
    clock = Clock()
    with clock:
        for first in range(0, len(rows), BATCH):
            block = ImageBlock(dataset.card.digest, "test", Resizing(SIZE), rows[first : first + BATCH])
            (cache.get(block, decoded.block) if disk else decoded.block(block.rows)).sum()
    return clock.per_second(len(rows))


def vectors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unit vectors of images and of captions that are often nearest to theirs, and each caption's image."""
    generator = torch.Generator().manual_seed(0)
    owner = torch.arange(CAPTIONS) % IMAGES
    images = torch.randn(IMAGES, WIDTH, generator=generator)
    captions = images[owner] + 5 * torch.randn(CAPTIONS, WIDTH, generator=generator)
    return *(torch.nn.functional.normalize(each, dim=-1) for each in (images, captions)), owner


def retrieval_plainly() -> dict[str, Any]:
    images, captions, owner = vectors()
    clock, scores = Clock(), []
    with clock:
        similar = captions @ images.T
        by_caption = similar.argsort(dim=1, descending=True)[:, :5]
        by_image = similar.T.argsort(dim=1, descending=True)[:, :5]
        scores.append(100 * float((by_caption == owner[:, None]).any(dim=1).double().mean()))
        scores.append(100 * float((owner[by_image] == torch.arange(IMAGES)[:, None]).any(dim=1).double().mean()))
    return {"scores": [sum(scores) / 2], **clock.per_second(CAPTIONS)}


def retrieval_ours() -> dict[str, Any]:
    images, captions, owner = vectors()
    order = owner.argsort(stable=True)
    pairs = Pairs(images, torch.arange(IMAGES), captions[order], owner[order])
    clock = Clock()
    with clock:
        hits = recall_hits(pairs, [(IMAGES, CAPTIONS)], 0)
    of_captions, of_images = (hits[place + CUTOFFS.index(5)] for place in (0, len(CUTOFFS)))
    shares = [100 * float(right.double().mean()) for right in (of_captions, of_images)]
    return {"scores": [sum(shares) / 2], **clock.per_second(CAPTIONS)}


class Clock:
    """CPU and wall seconds spent within, summed over all uses."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0

    def __enter__(self) -> None:
        self._start = time.process_time(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.cpu += time.process_time() - self._start[0]
        self.wall += time.perf_counter() - self._start[1]

    def per_second(self, count: int) -> dict[str, float]:
        return {"cpu": count / self.cpu, "wall": count / self.wall}


def job(name: str, folder: Path, models: int) -> Callable[[], dict[str, Any]]:
    return {
        "models plainly": lambda: models_plainly(folder, models),
        "models apart": lambda: models_ours(folder, models, together=False, disk=False),
        "models together": lambda: models_ours(folder, models, together=True, disk=False),
        "models together from disk": lambda: models_ours(folder, models, together=True, disk=True),
        "images plainly": lambda: images_plainly(folder),
        "images decoded": lambda: images_ours(folder, disk=False),
        "images written": lambda: images_ours(folder, disk=True),
        "images from disk": lambda: images_ours(folder, disk=True),
        "retrieval plainly": retrieval_plainly,
        "retrieval counted": retrieval_ours,
    }[name]


def measured(name: str, folder: Path, models: int = 1) -> dict[str, Any]:
    """The outcome of a job in a process of its own, with its peak memory in GB."""
    words = [sys.executable, __file__, "--job", name, "--folder", str(folder), "--models", str(models)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads(done.stdout)


def table(rows: list[tuple[str, dict[str, Any]]]) -> None:
    """Rows beside the first of them, and whether all found the same."""
    reference = rows[0][1]
    for label, row in rows:
        factor = f"{row['cpu'] / reference['cpu']:.1f}x"
        speed = f"{row['cpu']:.1f} ({row['wall']:.1f})"
        print(f"  {label:<44}{speed:>20}{factor:>8}{row['gb']:>8.2f} GB", flush=True)
    same = all(np.allclose(row.get("scores", 0), reference.get("scores", 0), atol=1e-9) for _, row in rows)
    if "scores" in reference:
        print(f"  the same scores: {'yes' if same else [row['scores'] for _, row in rows]}")


def models_part(folder: Path) -> None:
    for count in (1, 8):
        print(f"\n{MODEL}, {count} model{'s' * (count > 1)}: images x models a second")
        rows = [("open_clip and ImageFolder, a model at a time", measured("models plainly", folder, count))]
        if count > 1:
            rows.append(("evaluate, a model at a time", measured("models apart", folder, count)))
        rows.append(("evaluate, one pass", measured("models together", folder, count)))
        measured("images written", folder)
        rows.append(("evaluate, one pass, images from disk", measured("models together from disk", folder, count)))
        table(rows)


def images_part(folder: Path) -> None:
    print(f"\nJPEGs of 500 x 375 to {SIZE} px: images a second")
    jobs = {
        "torchvision ImageFolder": "images plainly",
        "decoded": "images decoded",
        "decoded, and written to disk": "images written",
        "from disk, verified": "images from disk",
    }
    table([(label, measured(name, folder)) for label, name in jobs.items()])


def retrieval_part(folder: Path) -> None:
    print(f"\nRecall of {IMAGES} images and {CAPTIONS} captions: captions a second")
    jobs = {"all pairs, sorted": "retrieval plainly", "counted by blocks": "retrieval counted"}
    table([(label, measured(name, folder)) for label, name in jobs.items()])


PARTS = {"models": models_part, "images": images_part, "retrieval": retrieval_part}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
    parser.add_argument("--images", type=int, default=48, help="test images that models look at")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--models", type=int, default=1, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # open_clip's, about random weights
    if given.job:
        outcome = job(given.job, given.folder, given.models)()
        print(json.dumps({**outcome, "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}))
        return
    for part in given.parts:
        with tempfile.TemporaryDirectory() as folder:
            if part != "retrieval":
                is_slow = part == "models"
                made(Path(folder), given.images * (1 if is_slow else 8), 8 if is_slow else 0)
            PARTS[part](Path(folder))


if __name__ == "__main__":
    main()
