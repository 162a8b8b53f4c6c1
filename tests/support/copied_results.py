"""What a finished sweep has stored, in another storage: a test that adds to it need not begin from nothing."""

import shutil
from pathlib import Path

RESULTS = ("weights", "scores", "payloads", "rates")


def copy_results(source: Path, target: Path) -> None:
    """All results below one storage root lie below the other, too; MLflow there knows nothing of them."""
    for kind in RESULTS:
        shutil.copytree(source / kind, target / kind, dirs_exist_ok=True)
