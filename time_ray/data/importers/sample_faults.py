"""What is wrong with samples of a source: counted, named in a report beside the card, never silently dropped.

So is what was not read at all, which is no fault.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from time_ray.core.errors import UserError
from time_ray.limits import parse_json

REPORT = "report.jsonl"
NAMED = 3  # of files that are not read


class SampleFault(NamedTuple):
    """What is wrong with one sample: a kind that can be counted, and what is known of this one.

    `kept` says that the sample was imported nevertheless, as the detail says. A note is no fault: what was seen in
    the source and passed over, or read in another sense than its name has; it stands for so many `files`.
    """

    kind: str
    split: str
    where: str
    detail: str
    kept: bool = False
    files: int = 1
    is_note: bool = False

    @property
    def line(self) -> str:
        """Where, what, and what to do."""
        return f"{self.where}: {self.detail}"


def note(kind: str, where: str, names: Sequence[str]) -> SampleFault:
    """A note on files or folders of those names."""
    shown = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
    return SampleFault(kind, "", where, f"{kind}: {shown}", kept=True, files=len(names), is_note=True)


def notes_on(where: str, *, hidden: Sequence[str], others: Iterable[str]) -> list[SampleFault]:
    """A note on hidden files and folders, and one for each ending of other files that are not read."""
    by_ending: dict[str, list[str]] = {}
    for name in others:
        by_ending.setdefault(PurePath(name).suffix.lower(), []).append(name)
    kinds = {"hidden or system file or folder, not read": hidden} if hidden else {}
    for ending, names in sorted(by_ending.items()):
        kinds[f"file {f'ending in {ending}' if ending else 'without an ending'}, not read"] = names
    return [note(kind, where, names) for kind, names in kinds.items()]


def write_report(folder: Path, faults: Iterable[SampleFault]) -> None:
    """The report holds one JSON object a fault."""
    with (folder / REPORT).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(fault._asdict()) + "\n" for fault in faults)


def read_report(folder: str | Path) -> list[SampleFault]:
    """All faults and notes of the import that made the dataset in that folder; none if it was not imported."""
    path = Path(folder) / REPORT
    if not path.is_file():
        return []
    try:
        return [SampleFault(**parse_json(line)) for line in path.read_bytes().splitlines()]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: is not as it was written ({error}); import the dataset again") from error


def counted(faults: Iterable[SampleFault]) -> dict[tuple[str, bool], int]:
    """How many faults there are of each kind, apart for samples kept and left out; the most frequent first."""
    return dict(Counter((fault.kind, fault.kept) for fault in faults if not fault.is_note).most_common())


def noted(faults: Iterable[SampleFault]) -> dict[str, int]:
    """How many files or folders there are notes on, of each kind; the most frequent first."""
    counts = Counter[str]()
    for fault in faults:
        if fault.is_note:
            counts[fault.kind] += fault.files
    return dict(counts.most_common())
