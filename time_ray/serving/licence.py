"""Under which licence base weights are, as far as that is known here."""

from pathlib import Path
from typing import NamedTuple

from time_ray.clip.weights import is_tag, open_clip_with_ours
from time_ray.core.model import ModelSpec


class Licence(NamedTuple):
    """Its identifier on the Hugging Face hub, and a sentence for people."""

    name: str
    note: str


def licence_of(spec: ModelSpec) -> Licence:
    """The licence of the base weights, which what is trained or merged from them has to keep to."""
    if spec.weights is None:
        return Licence("apache-2.0", "The base weights come with time_ray, under Apache-2.0.")
    if not is_tag(spec):
        return Licence("unknown", f"Unknown: see the source of the base weights, the file {Path(spec.weights).name}.")
    if spec.weights == "openai":
        return Licence("mit", "The base weights are OpenAI's (https://github.com/openai/CLIP), under MIT.")
    found = open_clip_with_ours().get_pretrained_cfg(spec.name, spec.weights)
    source = f"hf-hub:{found['hf_hub'].rstrip('/')}" if found.get("hf_hub") else found.get("url", "")
    where = f"open_clip's tag `{spec.weights}`{f' ({source})' if source else ''}"
    return Licence("unknown", f"Unknown: see the source of the base weights, {where}.")
