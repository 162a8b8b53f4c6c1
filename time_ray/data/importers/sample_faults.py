"""What is wrong with samples of a source: counted, named in a report beside the card, never silently dropped."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

REPORT = "report.jsonl"


class SampleFault(NamedTuple):
    """What is wrong with one sample: a kind that can be counted, and what is known of this one.

    `kept` says that the sample was imported nevertheless, as the detail says.
    """

    kind: str
    split: str
    where: str
    detail: str
    kept: bool = False

    @property
    def line(self) -> str:
        """Where, what, and what to do."""
        return f"{self.where}: {self.detail}"


def write_report(folder: Path, faults: Iterable[SampleFault]) -> None:
    """The report holds one JSON object a fault."""
    with (folder / REPORT).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(fault._asdict()) + "\n" for fault in faults)


def read_report(folder: str | Path) -> list[SampleFault]:
    """All faults of the import that made the dataset in that folder; none if it was not imported."""
    path = Path(folder) / REPORT
    if not path.is_file():
        return []
    return [SampleFault(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def counted(faults: Iterable[SampleFault]) -> dict[tuple[str, bool], int]:
    """How many faults there are of each kind, apart for samples kept and left out; the most frequent first."""
    return dict(Counter((fault.kind, fault.kept) for fault in faults).most_common())
