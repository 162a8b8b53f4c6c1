"""Whether two configurations are of one architecture, as far as it matters to weights, and what it is called."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from time_ray.clip.weights import architecture_config, architecture_names

PARTS = ("vision_cfg", "text_cfg")
DEFAULT_SIZE = 224  # of an architecture that does not say its own
NEUTRAL = frozenset(  # what changes nothing of what a model computes from its weights, an image and tokens
    (
        *("custom_text", "init_logit_scale", "output_dict", "vision_cfg.patch_dropout", "vision_cfg.output_tokens"),
        *("vision_cfg.timm_model_pretrained", "vision_cfg.timm_drop", "vision_cfg.timm_drop_path"),
        *("text_cfg.output_tokens", "text_cfg.hf_tokenizer_name", "text_cfg.tokenizer_mode"),
        "text_cfg.tokenizer_kwargs",
    )
)


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What two architectures differ in, by path; open_clip's defaults stand for what only one of them says."""
    flat = _flat(one), _flat(other)
    if flat[0].keys() != flat[1].keys():
        from open_clip.model import CLIPTextCfg, CLIPVisionCfg  # imports torch, which is rarely needed here

        defaults = _flat({"vision_cfg": asdict(CLIPVisionCfg()), "text_cfg": asdict(CLIPTextCfg())})
        flat = {**defaults, **flat[0]}, {**defaults, **flat[1]}
    both = {key: (flat[0].get(key), flat[1].get(key)) for key in sorted(flat[0].keys() | flat[1].keys())}
    return {key: (mine, theirs) for key, (mine, theirs) in both.items() if mine != theirs}


def name_of(config: Mapping[str, Any], like: str) -> str | None:
    """The name of an architecture that is so configured, if there is one: best one that begins as another name."""
    names = sorted(architecture_names(), key=lambda name: (not name.startswith(like), name))
    return next((name for name in names if _flat(architecture_config(name) or {}) == _flat(config)), None)


def image_size(config: Mapping[str, Any]) -> Any:
    """The side of the images that an architecture takes; a list of two if they are no squares."""
    return side(config["vision_cfg"].get("image_size") or DEFAULT_SIZE)


def side(size: Any) -> Any:
    """The side of a square, if both are given; else what is given."""
    return size[0] if isinstance(size, list) and len(size) == 2 and size[0] == size[1] else size


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """What counts of an architecture, by path."""
    flat = {key: value for key, value in config.items() if key not in PARTS}
    flat |= {f"{part}.{key}": value for part in PARTS for key, value in config.get(part, {}).items()}
    given = {key: value for key, value in flat.items() if value is not None and key not in NEUTRAL}
    return {"quick_gelu": False, **given, "vision_cfg.image_size": image_size(config)}
