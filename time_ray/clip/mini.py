"""The mini models: three open_clip architectures, each with a base for each version of the mini world."""

import gzip
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open

CONTEXT = 12  # the world's longest text has ten tokens
WEIGHTS = Path(__file__).parent / "mini_weights"
MERGES_FILE = WEIGHTS / "merges.txt.gz"


class MiniModel(NamedTuple):
    """An architecture as open_clip's configuration, its shipped base, its learning rate on a task, and its memory.

    `pool` is what the base was pretrained on. `pair_bytes` are the activations of a pair in float32 (see
    cost.activations), known without torch.
    """

    config: dict[str, Any]
    weights: Path
    pool: str
    finetune_lr: float
    pair_bytes: int

    @property
    def num_bytes(self) -> int:
        """Bytes of the base in float32; the file's header tells without reading the tensors."""
        with safe_open(self.weights, framework="np") as file:
            return sum(4 * prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 no mapping


def vocab_size() -> int:
    """How many tokens the merges file makes: bytes, bytes that end a word, merges, and two marks."""
    header_and_merges = gzip.decompress(MERGES_FILE.read_bytes()).decode().split("\n")
    return 256 + 256 + (len(header_and_merges) - 1) + 2


class _Size(NamedTuple):
    """Widths and numbers of layers of both towers, and the memory that a pair takes."""

    image: tuple[int, int]
    text: tuple[int, int]
    pair_bytes: int


_SIZES = {
    "tiny": _Size(image=(64, 3), text=(64, 2), pair_bytes=340_000),
    "base": _Size(image=(96, 4), text=(64, 2), pair_bytes=556_000),
    "large": _Size(image=(160, 5), text=(64, 3), pair_bytes=1_072_000),
}


def _model(name: str, size: _Size, pool: str, finetune_lr: float) -> MiniModel:
    """A model of this size, whose base knows this pool."""
    config = {
        "embed_dim": 64,
        "vision_cfg": {
            "image_size": 32,
            "patch_size": 8,
            "width": size.image[0],
            "layers": size.image[1],
            "head_width": 32,
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": vocab_size(),
            "width": size.text[0],
            "heads": size.text[0] // 32,
            "layers": size.text[1],
            "tokenizer_kwargs": {"bpe_path": str(MERGES_FILE)},
        },
    }
    return MiniModel(config, WEIGHTS / f"{name}.safetensors", pool, finetune_lr, size.pair_bytes)


_RATES = {  # chosen by tools.choose_lr
    "mini": {"tiny": 6e-4, "base": 6e-4, "large": 3e-4},
    "mini2": {"tiny": 6e-4, "base": 3e-4, "large": 3e-4},
}
_POOLS = {"mini": "pool", "mini2": "pool2"}

MODELS: dict[str, MiniModel] = {
    f"{world}-{size}": _model(f"{world}-{size}", _SIZES[size], _POOLS[world], rate)
    for world, rates in _RATES.items()
    for size, rate in rates.items()
}
