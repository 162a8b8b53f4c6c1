"""Grids of recipes without tensors: what the tests of the core, the loop and the plan are about."""

from collections.abc import Sequence

from time_ray.core.grid import Cell, Setting, grid
from time_ray.core.mixture import Mixture
from time_ray.core.model import ModelSpec
from time_ray.core.recipe import Base, ResolvedTechnique, TaskTraining
from time_ray.core.scoring import WHOLE, Scoring
from time_ray.core.strategies import Strategy, read
from time_ray.core.stream import Concept, Task
from time_ray.core.training import Training

STRATEGIES = ("zs", "ft", "ema", "all")


def technique(
    name: str = "blend",
    *,
    weighted: bool = True,
    alone: bool = True,
    weighs_experts: bool = False,
    needs_moments: bool = False,
    **params: object,
) -> ResolvedTechnique:
    """A technique without tensors: what it takes and what it leaves alone is said, not looked up."""
    more: dict[str, object] = {"weights": None} if weighs_experts else {}
    return ResolvedTechnique(
        *(name, name, 1, more | params, params),
        weighted=weighted,
        identity_of_one=alone,
        weighs_experts=weighs_experts,
        needs_moments=needs_moments,
    )


def setting(
    num_tasks: int = 3,
    *,
    model: str = "toy",
    steps: int = 10,
    seed: int = 0,
    replay: bool = False,
    scoring: Scoring = WHOLE,
    batch_size: int = 512,
) -> Setting:
    """A setting of one class a task."""
    tasks = [Task(t, (Concept("toys", f"class {t}"),)) for t in range(1, num_tasks + 1)]
    mixture = Mixture(update=0.5, buffer=0.5) if replay else Mixture()
    training = Training(lr=1e-3, precision="fp32", batch_size=batch_size)
    trainings = tuple(
        TaskTraining(task, tuple(tasks[:i]) if replay else (), training, mixture, steps, seed, "toy data")
        for i, task in enumerate(tasks)
    )
    base = Base(model, "base digest")
    sides = (("toys",), ("held out",))
    return Setting(ModelSpec(name=model), f"{steps} steps", seed, base, trainings, *sides, "scored data", scoring)


def strategies(names: Sequence[str] = STRATEGIES) -> list[Strategy]:
    return [read(name) for name in names]


def full_grid(techniques: Sequence[ResolvedTechnique], *settings: Setting) -> tuple[Cell, ...]:
    """4 init x 3 deploy x the techniques."""
    return grid(strategies(), strategies(STRATEGIES[1:]), techniques, settings or (setting(),))
