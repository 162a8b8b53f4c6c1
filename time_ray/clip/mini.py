"""The three mini models: open_clip architectures with a base that is shipped in the package."""

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

    `pair_bytes` are the activations of a pair in float32 (see cost.activations), known without torch.
    """

    config: dict[str, Any]
    weights: Path
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


def _model(
    name: str, *, image: tuple[int, int], text: tuple[int, int], finetune_lr: float, pair_bytes: int
) -> MiniModel:
    """A model whose towers have these widths and numbers of layers."""
    config = {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": image[0], "layers": image[1], "head_width": 32},
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": vocab_size(),
            "width": text[0],
            "heads": text[0] // 32,
            "layers": text[1],
            "tokenizer_kwargs": {"bpe_path": str(MERGES_FILE)},
        },
    }
    return MiniModel(config, WEIGHTS / f"{name}.safetensors", finetune_lr, pair_bytes)


MODELS: dict[str, MiniModel] = {
    "mini-tiny": _model("mini-tiny", image=(64, 3), text=(64, 2), finetune_lr=6e-4, pair_bytes=340_000),
    "mini-base": _model("mini-base", image=(96, 4), text=(64, 2), finetune_lr=6e-4, pair_bytes=556_000),
    "mini-large": _model("mini-large", image=(160, 5), text=(64, 3), finetune_lr=3e-4, pair_bytes=1_072_000),
}
