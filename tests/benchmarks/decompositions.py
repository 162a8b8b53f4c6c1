"""What techniques that decompose matrices cost, in units of plain decompositions of the same matrices.

    python tests/benchmarks/decompositions.py                               # a tenth of ViT-B-16, 4 experts
    python tests/benchmarks/decompositions.py --blocks 12 --experts 20      # all of it (half an hour on two cores)
    python tests/benchmarks/decompositions.py --techniques opcm tsv_m

The unit is `torch.linalg.svd` in float32 of every matrix of one expert, batched by shape, vocabulary left out on both
sides. opcm, tsv_m and iso_cts decompose the matrices of every expert, so they are compared with as many units as there
are experts; iso_c decomposes one sum. Wall seconds, and CPU seconds in brackets: on a shared machine use these.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from time_ray.merging import TECHNIQUES, merge

Weights = dict[str, Tensor]
TOWERS = (("visual.transformer", 768), ("transformer", 512))
DECOMPOSED = {"iso_c": 1}
"""Of how many matrices each tensor is the sum, where that does not grow with the experts."""
WHOLE = ("opcm", "iso_c", "iso_cts", "tsv_m", "null_space", "wudi", "ace", "della", "karcher", "geometric_median")


def shapes(blocks: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The matrices of so many blocks of each tower of ViT-B-16, and a few of what is none."""
    for tower, width in TOWERS:
        for number in range(blocks):
            block = f"{tower}.resblocks.{number}"
            yield f"{block}.attn.in_proj_weight", (3 * width, width)
            yield f"{block}.attn.out_proj.weight", (width, width)
            yield f"{block}.mlp.c_fc.weight", (4 * width, width)
            yield f"{block}.mlp.c_proj.weight", (width, 4 * width)
            yield f"{block}.ln_1.bias", (width,)
    yield "visual.conv1.weight", (768, 3, 16, 16)
    yield "logit_scale", ()


def model(blocks: int, seed: int, base: Weights | None = None) -> Weights:
    """A model of normal numbers, or one a little moved from its base."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes(blocks)}
    return drawn if base is None else {name: base[name] + 1e-3 * value for name, value in drawn.items()}


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """The wall and CPU seconds of some work."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def plainly(base: Weights, expert: Weights) -> None:
    """Every matrix of an expert's task vector is decomposed by LAPACK, equal shapes together."""
    by_shape: dict[tuple[int, ...], list[Tensor]] = {}
    for name, value in expert.items():
        if value.dim() == 2:
            by_shape.setdefault(tuple(value.shape), []).append(value - base[name])
    for stack in by_shape.values():
        torch.linalg.svd(torch.stack(stack), full_matrices=False)


def on_disk(weights: Weights, path: Path) -> Weights:
    """The same, read as they are needed: twenty experts of all of ViT-B-16 take 10 GB."""
    torch.save(weights, path)
    mapped: Weights = torch.load(path, mmap=True)
    return mapped


def compare(blocks: int, experts: int, techniques: Sequence[str], folder: Path) -> None:
    """Print the unit, and each technique in units."""
    base = model(blocks, 0)
    moved = [on_disk(model(blocks, seed, base), folder / f"{seed}.pt") for seed in range(1, experts + 1)]
    size = sum(value.numel() for value in base.values()) / 1e6
    print(f"{experts} experts of {size:.1f} M in {blocks} blocks a tower, {torch.get_num_threads()} threads")
    plainly({"w": torch.zeros(64, 64)}, {"w": torch.randn(64, 64)})  # LAPACK has been used before
    wall, cpu = timed(lambda: plainly(base, moved[0]))
    print(f"{'one plain decomposition':<28}{wall:8.2f} s ({cpu:.2f})", flush=True)
    for technique in techniques:
        found = timed(lambda technique=technique: merge(base, moved, technique))
        units = DECOMPOSED.get(technique, experts)
        ratio = f"{found[1] / (units * cpu):.2f} x {units} decompositions (CPU)"
        print(f"{technique:<28}{found[0]:8.2f} s ({found[1]:.2f}){'':4}{ratio}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=1, help="blocks of each tower (ViT-B-16 has 12)")
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--techniques", nargs="+", choices=list(TECHNIQUES), default=WHOLE)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with TemporaryDirectory() as folder:
        compare(asked.blocks, asked.experts, asked.techniques, Path(folder))


if __name__ == "__main__":
    main()
