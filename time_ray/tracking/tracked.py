"""Whether everything of a study has been copied into MLflow: noted in the store, so that nothing is asked there."""

from time_ray.analysis.searching import results_of
from time_ray.core.keys import key_of
from time_ray.core.secrets import hidden
from time_ray.store.files import Files
from time_ray.store.store import Store
from time_ray.study import Study
from time_ray.tracking.client import tracking_uri
from time_ray.tracking.database import finished_cells
from time_ray.tracking.history import sweep_key
from time_ray.tracking.points import points_version
from time_ray.tracking.runs import CELL_TAG
from time_ray.tracking.uris import database_file

RUNS_VERSION = 2  # bump when runs have more than their points, parameters and views, and older ones shall get it


def is_tracked(study: Study, files: Files) -> bool:
    """Whether everything of this study, with every metric, was copied to where it is tracked.

    An SQLite file must still hold every cell; of a server the note counts, until `sync` asks it.
    """
    if Store(files).entry("tracked", _key(study, files)) is None:
        return False
    file = database_file(tracking_uri(files))
    return file is None or finished_cells(file, study.experiment.name, CELL_TAG).issuperset(_finished(study, files))


def _finished(study: Study, files: Files) -> set[str]:
    """The cells that have finished runs once everything is copied."""
    if study.experiment.search is None:
        return {cell.key for cell in study.everything}
    return {result.cell.key for result in results_of(study, Store(files)) if result.done}


def note_tracked(study: Study, files: Files) -> None:
    """Everything of this study has been copied to where it is tracked."""
    Store(files).record("tracked", _key(study, files), {"sweep": sweep_key(study)})


def _key(study: Study, files: Files) -> str:
    where = hidden(tracking_uri(files))
    lengths = [float(length) for length in study.experiment.evaluation.lengths]
    searched = [] if study.experiment.search is None else [study.experiment.search.model_dump()]
    return key_of("tracked", where, sweep_key(study), points_version(), RUNS_VERSION, lengths, *searched)
