"""Files of fine-tuned weights that are the experts of their tasks: found by names of models and datasets."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from time_ray.core.errors import UserError, nearest, some_of
from time_ray.core.home import at_home
from time_ray.core.keys import key_of
from time_ray.core.recipe import GivenExpert
from time_ray.store.files import Files
from time_ray.whole_files import file_digest

ENDINGS = (".safetensors", ".pt")
DIGEST_CHARACTERS = 64

GivenExperts: TypeAlias = Mapping[str, Mapping[str, GivenExpert]]  # by the names of model and dataset


def find_experts(folder: str, models: Sequence[str], datasets: Sequence[str], files: Files) -> GivenExperts:
    """The file of each model and dataset: FOLDER/MODEL/DATASET.safetensors, or without MODEL where there is one model.

    Args:
        folder: As it is written.
        models: Names of architectures.
        datasets: Names of the tasks' datasets.
        files: The storage, which remembers digests of files for as long as their sizes and times stand.

    Raises:
        UserError: A file is missing, or there are two for a dataset: a line each, and where one is missing also a line
            for each file that belongs to no dataset. Else such files may lie there.

    """
    root, faults, places = at_home(folder), list[str](), dict[str, dict[str, Path]]()
    for model in dict.fromkeys(models):
        inside = root / model
        place = inside if inside.is_dir() or len(set(models)) > 1 else root
        places[model] = {}
        faults += _matched(place, datasets, places[model])
    UserError.unless_none(faults)
    return {
        model: {name: GivenExpert(str(path), _digest(path, files)) for name, path in found.items()}
        for model, found in places.items()
    }


def _matched(place: Path, datasets: Sequence[str], found: dict[str, Path]) -> Iterator[str]:
    """The file of each dataset is found; yields what is wrong."""
    if not place.is_dir():
        yield f"'{place}' is no folder; give one with a file {datasets[0]}{ENDINGS[0]} for each dataset"
        return
    by_name, odd = dict[str, list[Path]](), dict[str, Path]()
    for path in sorted(place.iterdir()):
        if path.suffix in ENDINGS and path.is_file():
            by_name.setdefault(path.stem, []).append(path)
        else:
            odd.setdefault(path.stem, path)
    others = by_name.keys() - set(datasets)
    missing = [name for name in datasets if name not in by_name]
    for name in missing:
        meant = f"; '{odd[name].name}' is no file that ends so" if name in odd else nearest(name, others)
        yield f"'{place / name}{ENDINGS[0]}': missing, as is {ENDINGS[1]}{meant or '; put it there'}"
    for name in sorted(others if missing else ()):
        yield f"'{by_name[name][0]}': no dataset is named so; the stream has {some_of(datasets)}"
    for name in datasets:
        paths = by_name.get(name, [])
        if len(paths) > 1:
            yield f"'{paths[0]}' and '{paths[1].name}' are both of dataset {name}; keep one"
        found.update((name, path.resolve()) for path in paths[:1])


def _digest(path: Path, files: Files) -> str:
    """The digest of the file; it is read once for as long as its size and time stand."""
    stat = path.stat()
    note = ("data", "digests", key_of("expert file", str(path), stat.st_size, stat.st_mtime_ns))
    known = (files.find(*note) or b"").decode(errors="replace")
    if len(known) != DIGEST_CHARACTERS:
        known = file_digest(path)
        files.write(known.encode(), *note)
    return known
