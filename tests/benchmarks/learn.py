"""Training, evaluation and sampling against the plain way to do the same, one after the other in the same process.

Run as `OMP_NUM_THREADS=1 python tests/benchmarks/learn.py`. Times are CPU seconds of one thread, the best of a few
rounds, so that a busy machine disturbs them little; ratios above 1 mean that time_ray is faster.
"""

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image, ImageFilter
from torchvision import datasets, transforms

from time_ray.core.mixture import Mixture
from time_ray.core.model import ModelSpec
from time_ray.core.stream import Concept, Task
from time_ray.core.training import Training
from time_ray.learn.dataset import Dataset, Row, write_dataset
from time_ray.learn.evaluate import evaluate
from time_ray.learn.imagefolder import import_imagefolder
from time_ray.learn.models import Clip, create
from time_ray.learn.sampling import Data, batches
from time_ray.learn.train import Batch, train

ROUNDS = 5
BATCH = 64
STEPS = 10
HOW = Training(lr=1e-3, batch_size=BATCH)


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of the fastest round, after one that fills caches."""
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def line(what: str, count: int, ours: float, plain: float) -> None:
    print(f"{what:44} {count / ours:10,.0f} {count / plain:10,.0f} {1000 * ours:9.1f} {plain / ours:7.2f}x")


def picture(number: int, size: int, form: str) -> bytes:
    noise = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    stream = io.BytesIO()
    (image.filter(ImageFilter.GaussianBlur(2)) if form == "JPEG" else image).save(stream, form)
    return stream.getvalue()


def training(clip: Clip) -> None:
    weights = {name: tensor.clone() for name, tensor in clip.module.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    given = [
        Batch(
            torch.randint(0, 256, (BATCH, 3, clip.image_size, clip.image_size), dtype=torch.uint8, generator=generator),
            [f"a photo of a {i % 24} tree by day {step % 4}" for i in range(BATCH)],
        )
        for step in range(STEPS)
    ]
    tokenizer = open_clip.get_tokenizer(clip.name)
    mean, std = (torch.tensor(stat).view(-1, 1, 1) for stat in (clip.mean, clip.std))

    def plain() -> None:
        module = clip.load(weights).train()
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        loss_of = open_clip.ClipLoss()
        for images, texts in given:
            loss = loss_of(*module((images.float() / 255 - mean) / std, tokenizer(texts)))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            loss.item()

    ours = seconds(lambda: train(clip, weights, lambda first: given[first:], HOW, steps=STEPS))
    line(f"train {clip.name}, batch {BATCH}, samples", STEPS * BATCH, ours, seconds(plain))


def evaluation(clip: Clip, folder: Path) -> None:
    count, classes = 300, [f"kind of thing {i}" for i in range(15)]
    sets = []
    for number in range(10):
        rows = (Row(picture(i, clip.image_size, "PNG"), ("x",), i % 15, "") for i in range(count))
        place = folder / f"{clip.name}-{number}"
        prompts = ("a photo of a {}.", "a drawing of a {}.")
        write_dataset(
            place,
            name=f"set {number}",
            kind="classification",
            classes=classes,
            templates=prompts,
            splits={"test": rows},
        )
        sets.append(Dataset.open(place))
    weights = {name: tensor.clone() for name, tensor in clip.module.state_dict().items()}
    tokenizer = open_clip.get_tokenizer(clip.name)
    mean, std = (torch.tensor(stat).view(-1, 1, 1) for stat in (clip.mean, clip.std))
    loaded = [
        (
            torch.stack(
                [
                    torch.from_numpy(np.array(Image.open(io.BytesIO(data))))
                    for data in one.split("test").images(range(count))
                ]
            ).permute(0, 3, 1, 2),
            torch.from_numpy(one.split("test").labels),
        )
        for one in sets
    ]

    def plain() -> None:
        module = clip.load(weights).eval()
        with torch.no_grad():
            for one, (images, labels) in zip(sets, loaded, strict=True):
                prompts = [[template.format(name) for template in one.card.templates] for name in classes]
                vectors = [module.encode_text(tokenizer(texts), normalize=True).mean(0) for texts in prompts]
                head = torch.nn.functional.normalize(torch.stack(vectors), dim=-1)
                for chunk, truth in zip(images.split(128), labels.split(128), strict=True):
                    features = module.encode_image((chunk.float() / 255 - mean) / std, normalize=True)
                    ((features @ head.T).argmax(1) == truth).sum().item()

    line(f"evaluate {clip.name}, images", 10 * count, seconds(lambda: evaluate(clip, [weights], sets)), seconds(plain))


def sampling(folder: Path, size: int, stored: int, form: str) -> None:
    root = folder / f"{form} {stored}"
    for number in range(256):
        path = root / "train" / f"class {number % 4}" / f"{number:03}.{form.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, stored, form))
    import_imagefolder(root, folder / f"imported {form}")
    data = Data((Dataset.open(folder / f"imported {form}"),), (), None)
    task = Task(1, tuple(Concept(root.name, f"class {i}") for i in range(4)))
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, (0.9, 1), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ]
    )
    plain = torch.utils.data.DataLoader(datasets.ImageFolder(str(root / "train"), transform), BATCH, shuffle=True)

    def stream() -> Iterator[Batch]:
        return batches(task, (), data, Mixture(), batch_size=BATCH, steps=4, seed=0, image_size=size, augment="crop")

    line(
        f"load {form} {stored} px to {size} px, images",
        256,
        seconds(lambda: list(stream())),
        seconds(lambda: list(plain)),
    )


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'':44} {'ours/s':>10} {'plain/s':>10} {'ours ms':>9} {'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("mini-tiny", "mini-base"):
            clip = create(ModelSpec(name=name))
            training(clip)
            evaluation(clip, Path(folder))
        sampling(Path(folder), 32, 32, "PNG")
        sampling(Path(folder), 224, 256, "JPEG")


if __name__ == "__main__":
    main()
