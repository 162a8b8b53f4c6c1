"""What datasets on disk look like to a person."""

from pathlib import Path

from time_ray.core.errors import UserError
from time_ray.data.dataset import CARD, Card, Dataset
from time_ray.data.importers.pipeline import WORK
from time_ray.data.importers.sample_faults import counted, noted, read_report

SHOWN = 8  # classes named when a dataset is inspected


def rows_of_folder(folder: Path) -> list[dict[str, object]]:
    """One row for each dataset in the folder, or for the folder itself: whole, unfinished or damaged."""
    if not folder.is_dir():
        msg = f"{folder}: no such folder; correct the path"
        raise UserError(msg)
    places = [folder] if _is_dataset(folder) else [path for path in sorted(folder.iterdir()) if _is_dataset(path)]
    return [_row(path) for path in places]


def properties(folder: Path) -> dict[str, object]:
    """All that is known of a dataset without reading its images."""
    dataset = Dataset.open(folder)
    card = dataset.card
    left_out = {
        f"{kind} ({'kept' if kept else 'left out'})": n for (kind, kept), n in counted(read_report(folder)).items()
    }
    return {
        "name": card.name,
        "kind": card.kind,
        "classes": len(card.classes),
        "first classes": ", ".join(card.classes[:SHOWN]),
        "prompts": list(card.templates),
        "splits": {name: _split(dataset, folder, name) for name in card.splits},
        "faults": left_out,
        "notes": noted(read_report(folder)),
        "digest": card.digest,
    }


def _is_dataset(path: Path) -> bool:
    return (path / CARD).is_file() or (path / WORK).is_dir()


def _row(folder: Path) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(("dataset", "kind", "classes", "train", "test", "MB", "state"))
    row["dataset"] = str(folder)
    if not (folder / CARD).is_file():
        return row | {"state": "unfinished: the same import goes on"}
    try:
        card = Dataset.open(folder).card
    except UserError as error:
        return row | {"state": "; ".join(error.faults)}
    rows = {name: info.rows for name, info in card.splits.items()}
    return row | {
        "kind": card.kind,
        "classes": len(card.classes),
        "train": rows.get("train"),
        "test": rows.get("test"),
        "MB": round(sum(_bytes(folder, card, split) for split in rows) / 1e6, 2),
        "state": "whole",
    }


def _split(dataset: Dataset, folder: Path, name: str) -> dict[str, object]:
    split = dataset.split(name)
    shown = {int(label) for label in split.labels}
    return {
        "images": len(split),
        "classes": len(shown - {-1}),
        "captions": sum(len(captions) for captions in split.captions(range(len(split)))),
        "shards": len(split.shards),
        "MB": round(_bytes(folder, dataset.card, name) / 1e6, 2),
    }


def _bytes(folder: Path, card: Card, split: str) -> int:
    return sum((folder / shard).stat().st_size for shard in card.splits[split].shards)
