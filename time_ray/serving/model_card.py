"""The model card: what a model is, what it scores, how sure that is, how it is loaded, and its licence."""

from collections.abc import Iterable, Sequence

from time_ray.core.metrics import METRICS
from time_ray.serving.layout import Layout
from time_ray.serving.licence import licence_of
from time_ray.serving.served import Served

_SHOWN = 10  # names of classes, and of cells that may be as good


def model_card(served: Served, layout: Layout = "open_clip", *, own_vocabulary: bool, folder: str = "FOLDER") -> str:
    """The README of a model's folder, in Markdown.

    Args:
        served: the model.
        layout: as the folder is laid out.
        own_vocabulary: the folder holds the model's vocabulary, which is not CLIP's.
        folder: what it is called where it says how to load it.

    """
    cell = served.result.cell
    axes = {**cell.axes, **({} if served.length == 1 else {"length": f"{served.length:g}"})}
    names = [concept.classname for concept in served.taught]
    return "\n".join(
        [
            f"# {served.model.name}, merged over time",
            "",
            f"A CLIP model that was taught {len(names)} classes in {len(cell.setting.trainings)} tasks with time_ray,",
            "by temporal model merging ([TIME](https://arxiv.org/abs/2412.06712)).",
            "",
            *_table(("axis", "value"), axes.items()),
            "",
            f"Taught: {_some(names, ', ')}.",
            "",
            "## Scores",
            "",
            "After the last task:",
            "",
            *_table(("metric", "score"), _scores(served)),
            "",
            *_table(("dataset", "accuracy, %"), ((n, f"{v:.2f}") for n, v in served.scored.accuracy.items())),
            "",
            *_how_sure(served),
            "## Use",
            "",
            *(_with_mlflow(folder) if layout == "open_clip" else ()),
            *_with_open_clip(folder, layout, own_vocabulary=own_vocabulary),
            "## Licence",
            "",
            licence_of(served.model).note,
            *(["", "The vocabulary: see `merges.LICENSE.txt`, if it is there."] if own_vocabulary else []),
            "",
        ]
    )


def hub_metadata(served: Served) -> str:
    """What the Hugging Face hub reads at the top of a README."""
    return "\n".join(
        [
            "---",
            "library_name: open_clip",
            "pipeline_tag: zero-shot-image-classification",
            f"license: {licence_of(served.model).name}",
            "tags: [clip, open_clip, model-merging, time_ray]",
            "---",
            "",
            "",
        ]
    )


def _with_mlflow(folder: str) -> list[str]:
    return [
        "With MLflow, from the folder or from a registry, probabilities of the classes that were taught:",
        "",
        "```python",
        "import mlflow",
        "",
        f'model = mlflow.pyfunc.load_model("{folder}")',
        'model.predict(["photo.jpg"])  # paths, bytes, arrays of uint8, or a column `image` of these',
        'model.predict(["photo.jpg"], params={"classes": ["a cat", "a dog"]})',
        "```",
        "",
        "`params` are `classes`, `dataset` (all classes of one in `classes.json`) and `templates` (prompts with `{}`).",
        "An array is [height, width, 3], or a batch. Inputs have no schema, since those of MLflow refuse arrays. The",
        "code that runs is in `code/`; it needs open_clip and pandas alone.",
        "",
    ]


def _with_open_clip(folder: str, layout: Layout, *, own_vocabulary: bool) -> list[str]:
    own = f', bpe_path="{folder}/merges.txt.gz"' if own_vocabulary and layout == "open_clip" else ""
    needs = ", and transformers, as its vocabulary is its own" if own_vocabulary and layout == "hf-folder" else ""
    return [
        f"With open_clip{needs}:",
        "",
        "```python",
        "import open_clip",
        "",
        f'model, _, preprocess = open_clip.create_model_and_transforms("local-dir:{folder}")',
        f'tokenizer = open_clip.get_tokenizer("local-dir:{folder}"{own})',
        "```",
        "",
    ]


def _scores(served: Served) -> list[tuple[str, str]]:
    """Every metric with its unit, as far as it is defined."""
    found = served.scored.scores
    return [
        (metric.title, f"{value:.2f} {metric.unit}") for n, metric in METRICS.items() if (value := found[n]) is not None
    ]


def _how_sure(served: Served) -> list[str]:
    """What speaks for the model, if it was chosen."""
    if not (said := served.support):
        return []
    tied = said["tied_set"].split("; ") if said["tied_set"] else []
    if said["seeds"] == "1":
        sure = "It was chosen on one seed, which supports no ranking."
    elif tied:
        sure = f"{said['seeds']} seeds do not tell it from {said['tied']} others: {_some(tied, '; ')}."
    else:
        sure = f"On {said['seeds']} seeds no other may be better."
    return [f"Chosen by {said['metric']} ({said['value']}) among the cells of its sweep. {sure}", ""]


def _some(names: Sequence[str], separator: str) -> str:
    rest = len(names) - _SHOWN
    return separator.join(names[:_SHOWN]) + (f"{separator}and {rest} more" if rest > 0 else "")


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> list[str]:
    """Rows as a table in Markdown."""
    lines = (head, ("---", "---"), *rows)
    return [f"| {' | '.join(text.replace('|', '&#124;') for text in line)} |" for line in lines]
