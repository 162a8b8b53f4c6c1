"""LoRA adapters of peft (arXiv:2106.09685) as experts: base + scale · B A, computed for the rows that are asked for.

The expert itself is never made. Blocks of rows are the same whatever is asked, so cutting does not change a bit.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from time_ray.merging.checkpoints import CheckpointModel
from time_ray.merging.errors import MergeError
from time_ray.merging.models import FileModel, Model, OpenFile, StoredModel
from time_ray.merging.pieces import TensorEntry

CONFIG = "adapter_config.json"
INNER_PROJECTION = ".base_layer.out_proj"
"""The output projection within an attention that is adapted whole. Peft (to 0.21 at least) adds its product twice, in
every forward pass of training as in merge_and_unload: so that is the model that was trained."""
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
OUTER = "base_model.model."
"""What peft puts before every name."""
FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.(?:default|weight))*$")
BLOCK = 1 << 16
"""About so many elements of a product are made together, in whole rows."""
UNSUPPORTED = {
    "use_dora": "DoRA's magnitudes",
    "lora_bias": "biases of its own",
    "use_qalora": "QALoRA's pooling",
    "layer_replication": "replicated layers",
    "modules_to_save": "modules that were trained whole",
    "trainable_token_indices": "tokens that were trained whole",
    "target_parameters": "parameters of experts",
    "megatron_config": "Megatron's parallel layers",
    "alora_invocation_tokens": "activation by tokens",
}
"""What a configuration may ask for beyond B A, and what that is."""
SUPPORTED = frozenset(
    """
    alpha_pattern auto_mapping base_model_name_or_path bias corda_config ensure_weight_tying eva_config exclude_modules
    fan_in_fan_out inference_mode init_lora_weights layers_pattern layers_to_transform loftq_config lora_alpha
    lora_dropout lora_ga_config megatron_core peft_type peft_version qalora_group_size r rank_pattern revision
    runtime_config target_modules task_type use_rslora velora_config
    """.split()  # noqa: SIM905
)
"""What it may say without asking for more: read here, or of training alone."""
MOVES_THE_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")
"""Initialisations that subtract something from the base: the adapter then belongs to another base."""


@dataclass(frozen=True, slots=True)
class Product:
    """scale · left [rows, r] · right [r, columns], row-major like the tensor it moves."""

    left: Tensor
    right: Tensor
    scale: float

    @property
    def size(self) -> int:
        """Elements of the product."""
        return self.left.shape[0] * self.right.shape[1]

    def elements(self, start: int, stop: int) -> Tensor:
        """The elements from start to stop, flat, in float32."""
        columns = self.right.shape[1]
        rows = max(BLOCK // columns, 1)
        first, last = start // columns // rows * rows, -(-stop // columns)
        blocks = [self.left[row : row + rows] @ self.right for row in range(first, last, rows)]
        flat = torch.cat(blocks).view(-1) if blocks else torch.empty(0)
        return flat[start - first * columns : stop - first * columns] * self.scale


class LoraModel(StoredModel):
    """The base with an adapter on it. Its entries are the base's, in the arithmetic's precision where it moves them."""

    def __init__(self, folder: Path, base: Model) -> None:
        """MergeError names every feature of peft that is not supported, and every factor that fits no matrix."""
        self.label, self.name, self.metadata, self.base = str(folder), folder.name, {}, base
        self.path = weights_of(folder)
        config = read_config(folder / CONFIG)
        adapter = FileModel(self.path) if self.path.suffix == ".safetensors" else CheckpointModel(self.path)
        MergeError.unless_none(unsupported(self.label, config))
        self.files = (OpenFile(folder / CONFIG), *adapter.files)
        self.products = products(self.label, config, adapter, base)
        self.entries = tuple(
            TensorEntry(entry.name, entry.precision, entry.shape) if entry.name in self.products else entry
            for entry in base.entries
        )
        self.notes = (f"{folder}: a LoRA adapter, applied to {len(self.products)} tensors of the base",)

    def read(self, entry: TensorEntry, start: int, stop: int) -> Tensor:
        """The base's elements, moved by the adapter."""
        values, product = self.base.read(entry, start, stop), self.products.get(entry.name)
        if product is None:
            return values
        moved = values.to(self.by_precision(values))
        return moved + product.elements(start, stop).to(moved)

    @staticmethod
    def by_precision(values: Tensor) -> torch.dtype:
        """float64 for float64, else float32."""
        return torch.float64 if values.dtype == torch.float64 else torch.float32

    def on_cpu(self) -> bool:
        """Whether the base is in main memory."""
        return self.base.on_cpu()


def weights_of(folder: Path) -> Path:
    """The file of an adapter's factors."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise MergeError(f"{folder}: has no {WEIGHTS[0]} beside {CONFIG}; give the folder that save_pretrained has written")


def read_config(path: Path) -> dict[str, Any]:
    """What peft says of an adapter."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise MergeError(f"{path}: cannot be read ({error}); give the configuration that peft has written") from error
    if not isinstance(found, dict) or not all(map(is_number, (found.get("lora_alpha", 8), *alphas_of(found)))):
        raise MergeError(f"{path}: no configuration of a LoRA adapter; give the one that peft has written")
    return found


def alphas_of(config: Mapping[str, Any]) -> list[Any]:
    """The alphas of modules that a pattern names; one that is none where a pattern makes no sense."""
    patterns = config.get("alpha_pattern") or {}
    try:
        return [value for pattern, value in patterns.items() if re.compile(pattern)]
    except (re.error, AttributeError):
        return [None]


def is_number(value: object) -> bool:
    """Whether it is a number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def unsupported(label: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Everything that the adapter is beyond base + scale · B A."""
    instead = "merge it into its model with peft (merge_and_unload) and give that"
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        yield f"{label}: is of peft's type {kind}, and only LORA is read; {instead}"
    for name, what in UNSUPPORTED.items():
        if config.get(name):
            yield f"{label}: {name}: {what} are not supported; {instead}"
    for name in sorted(name for name in config.keys() - SUPPORTED - UNSUPPORTED.keys() if config[name]):
        yield f"{label}: {name}: is not known here, and may change the model; {instead}"
    if config.get("bias", "none") != "none":
        yield f"{label}: bias: '{config['bias']}': trained biases are not supported; {instead}"
    start = str(config.get("init_lora_weights", True)).lower()
    if start.startswith(MOVES_THE_BASE):
        yield f"{label}: init_lora_weights: '{start}' changes the base itself; convert it with peft, or {instead}"


def products(label: str, config: Mapping[str, Any], adapter: Model, base: Model) -> dict[str, Product]:
    """The product that moves each tensor of the base, by its name."""
    sides: dict[tuple[str, bool], dict[str, Tensor]] = {}
    faults: list[str] = []
    for entry in adapter.entries:
        found = FACTOR.match(entry.name)
        if found is None:
            faults.append(f"{label}: {entry.name} is no factor of LoRA; leave it out, or merge it with peft")
            continue
        if not entry.merged or entry.dtype.itemsize < 2 or len(entry.shape) < 2:
            faults.append(f"{label}: {entry.name} is {entry}; give a matrix of float32, float16 or bfloat16")
            continue
        values = adapter.read(entry, 0, entry.size).view(entry.shape).to(torch.float32)
        sides.setdefault((found["module"], bool(found["embedding"])), {})[found["side"]] = values
    made: dict[str, Product] = {}
    for (module, embedding), factors in sides.items():
        target = target_of(module, base)
        if len(factors) < 2:
            faults.append(f"{label}: {module} has lora_{min(factors)} alone; give the whole adapter")
        elif not 0 < factors["A"].shape[0] == factors["B"].shape[1]:
            ranks = f"{factors['A'].shape[0]} and {factors['B'].shape[1]}"
            faults.append(f"{label}: {module}: its factors have ranks {ranks}; give the whole adapter")
        elif target is None:
            faults.append(f"{label}: {module} is no module of the base; give the base that was adapted")
        else:
            transposed = embedding or bool(config.get("fan_in_fan_out"))
            product = product_of(factors["A"], factors["B"], scale_of(config, module, factors["A"]), transposed)
            made[target.name] = product
            if product.size != target.size or product.left.shape[0] != target.shape[0]:
                shape = [product.left.shape[0], product.right.shape[1]]
                faults.append(f"{label}: {module}: its product is {shape}, and {target.name} {target}; give its base")
    MergeError.unless_none(faults)
    return made


def product_of(a: Tensor, b: Tensor, scale: float, transposed: bool) -> Product:
    """B A as a matrix over the rows of the tensor; kernels of convolutions are flat there."""
    left, right = b.flatten(1), a.flatten(1)
    return Product(right.mT.contiguous(), left.mT.contiguous(), scale) if transposed else Product(left, right, scale)


def target_of(module: str, base: Model) -> TensorEntry | None:
    """The tensor that a module's factors move."""
    name = module.removeprefix(OUTER).replace(".base_layer", "")
    known = base.by_name()
    candidates = (f"{name}.weight", f"{name}.in_proj_weight", name)
    for prefix in ("", "model.", "module."):
        for candidate in candidates:
            found = known.get(candidate.removeprefix(prefix))
            if found is not None and len(found.shape) >= 2:
                return found
    return None


def scale_of(config: Mapping[str, Any], module: str, a: Tensor) -> float:
    """The factor alpha / r, or alpha / √r for rank-stabilised LoRA, as far as patterns do not say otherwise."""
    name, rank = module.removeprefix(OUTER), a.shape[0]
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            alpha = value
            break
    if module.endswith(INNER_PROJECTION):
        alpha *= 2
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))
