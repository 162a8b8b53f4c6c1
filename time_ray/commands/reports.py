"""`time-ray report`: the page that was written also goes to MLflow; where that fails, it is there all the same."""

from pathlib import Path

from rich.console import Console

from time_ray import api
from time_ray.core.errors import StoreError, UserError


def log_report(opened: api.Opened, page: Path, talk: Console) -> None:
    """The page lies in the sweep's run in MLflow, or a line says why it does not."""
    try:
        with talk.status("copying the page to MLflow"):
            api.log_report(opened, page)
    except (StoreError, UserError) as error:
        talk.print(f"the page is not in MLflow ({error})")
