"""What an experiment or a command may name: strategies, techniques, metrics, models, datasets of the mini world."""

from time_ray import merging
from time_ray.core.metrics import METRICS
from time_ray.core.strategies import STRATEGIES
from time_ray.merging.techniques import technique_named

BATCH = 512  # pairs of a step, as in the benchmark


def strategy_rows() -> list[dict[str, object]]:
    """Every strategy of the init and deploy axes with its parameters and defaults."""
    return [
        {
            "strategy": name,
            "model": str(strategy.__doc__).splitlines()[0],
            "parameters": ", ".join(f"{key}={field.default}" for key, field in strategy.model_fields.items()),
        }
        for name, strategy in STRATEGIES.items()
    ]


def technique_rows() -> list[dict[str, object]]:
    """Every merge technique with its parameters and defaults."""
    return [
        {
            "technique": row.name,
            "rule": row.rule,
            "parameters": ", ".join(f"{name}={parameter.default}" for name, parameter in row.parameters.items()),
            "state": row.state,
            "paper": row.paper,
        }
        for row in merging.TECHNIQUES.values()
    ]


def technique_row(name: str) -> dict[str, object]:
    """All that is said of a technique. Raises MergeError for a name that is none."""
    known = technique_named(name)
    return next(row for row in technique_rows() if row["technique"] == known.name)


def technique_table() -> list[dict[str, object]]:
    """Every technique as fits a terminal: its rule, and its parameters below."""
    return [
        {"technique": row["technique"], "rule, and parameters": "\n".join(filter(None, [str(row["rule"]), parameters]))}
        for row in technique_rows()
        for parameters in (f"  {row['parameters']}" if row["parameters"] else "",)
    ]


def metric_rows() -> list[dict[str, object]]:
    """Every metric that cells are scored and ranked by."""
    return [
        {
            "metric": name,
            "title": metric.title,
            "unit": metric.unit,
            "better": "higher" if metric.higher_is_better else "lower",
            "what": str(metric.compute.__doc__).splitlines()[0],
        }
        for name, metric in METRICS.items()
    ]


def model_rows() -> list[dict[str, object]]:
    """The mini models, and the open_clip architectures of TIME's size axis, with what they cost.

    A pair of image and text goes forward through both towers; a step is forward and backward on 512 pairs.
    """
    from time_ray.clip import mini
    from time_ray.clip.cost import operations, size
    from time_ray.clip.preprocessing import ACTIVATIONS, resolve
    from time_ray.core.model import ModelSpec

    names = (*mini.MODELS, *("ViT-S-16", "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14", "ViT-g-14", "ViT-bigG-14"))
    return [
        {
            "model": name,
            "parameters (M)": round(counted.total / 1e6, 2),
            "image (M)": round(counted.image / 1e6, 2),
            "text (M)": round(counted.text / 1e6, 2),
            "GFLOPs a pair": round((done.image + done.text) / BATCH, 3),
            "GFLOPs a step": round(done.step),
            "pixels": found.preprocessing.resizing.size,
            "activation": ACTIVATIONS[found.quick_gelu],
            "weights": "shipped" if name in mini.MODELS else "weights: a local file or an open_clip tag",
        }
        for name in names
        for counted, done, found in ((size(name), operations(name, BATCH), resolve(ModelSpec(name=name))),)
    ]


def dataset_rows() -> list[dict[str, object]]:
    """The datasets of the mini world and their roles."""
    from time_ray.data.mini.world import ADAPTATION, EVALUATION

    roles = {"adaptation": ADAPTATION, "evaluation": EVALUATION}
    return [
        {"dataset": f"mini:{name}", "role": role, "classes": len(entry.classes), "prompt": entry.templates[0]}
        for role, table in roles.items()
        for name, entry in table.items()
    ]
