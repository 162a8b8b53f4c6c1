"""How an expert is trained on a task: the settings that are part of its identity."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from time_ray.core.section import Section
from time_ray.core.within_average import WithinAverage

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


def _snapshots(value: object) -> object:
    """A number is short for so many of the last snapshots."""
    return {"last": value} if isinstance(value, int) and not isinstance(value, bool) else value


class Training(Section):
    """Optimisation of one task: AdamW with warm-up and cosine, started afresh for every task (TIME, section B).

    The defaults are the benchmark's: batch 512, learning rate 1e-5, weight decay 0.2 on every parameter,
    10 % warm-up, cosine to 0.001 of the rate, gradient norm clipped at 1.
    """

    batch_size: Annotated[int, Field(ge=2, description="images in one global batch, over all workers")] = 512
    lr: Annotated[Positive | None, Field(description="peak learning rate; null: the model's own")] = None
    image_lr_scale: Annotated[float, Field(ge=0, description="factor on lr for the image tower")] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.2
    decay: Annotated[Literal["all", "matrices"], Field(description="which parameters decay")] = "all"
    beta1: Share = 0.9
    beta2: Share = 0.999
    eps: Positive = 1e-8
    warmup: Annotated[Share, Field(description="share of the steps spent warming up")] = 0.1
    min_lr: Annotated[Share, Field(description="last learning rate, as a share of the peak")] = 0.001
    clip_norm: Annotated[Positive | None, Field(description="largest gradient norm; null: no clipping")] = 1.0
    max_logit_scale: Annotated[Positive | None, Field(description="cap on exp(logit_scale); null: none")] = None
    precision: Annotated[
        Literal["fp32", "tf32", "bf16", "fp16", "auto"],
        Field(
            description="of activations; weights, loss and merges are float32; auto: what run.accelerator is fast in"
        ),
    ] = "auto"
    augment: Annotated[
        Literal["none", "crop"], Field(description="crop: random resized crop of 90 to 100 % of the area")
    ] = "crop"
    average_within: Annotated[
        WithinAverage | None,
        BeforeValidator(_snapshots),
        Field(description="the expert is a mean over its own training, as 5 or {ema: 0.99}; null: its end"),
    ] = None

    @property
    def identity(self) -> dict[str, Any]:
        """The settings as keys are made of them: what came later stands there only where it is set."""
        return self.model_dump(exclude={"average_within"} if self.average_within is None else None)
