"""Files of fine-tuned weights that are the experts of their tasks: found by names of models and datasets."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

from time_ray.core.errors import StoreError, UserError, nearest, some_of
from time_ray.core.home import at_home
from time_ray.core.keys import key_of
from time_ray.core.recipe import GivenExpert
from time_ray.store.files import Files
from time_ray.whole_files import file_digest

ENDINGS = (".safetensors", ".pt")
DIGEST_CHARACTERS = 64

GivenExperts: TypeAlias = Mapping[str, Mapping[str, GivenExpert]]  # by the names of model and dataset


class _Seen(NamedTuple):
    """A file as it was last seen: one line of a note on the storage."""

    digest: str
    stamp: str  # its size and its time
    path: str


def find_experts(folder: str, models: Sequence[str], datasets: Sequence[str], files: Files) -> GivenExperts:
    """The file of each model and dataset: FOLDER/MODEL/DATASET.safetensors, or without MODEL where there is one model.

    Where a file is gone it is the one that was last seen there: what came of it can still be read.

    Args:
        folder: As it is written.
        models: Names of architectures.
        datasets: Names of the tasks' datasets.
        files: The storage, which remembers digests of files for as long as their sizes and times stand.

    Raises:
        UserError: A file is missing and was never seen, or there are two for a dataset: a line each, and where one is
            missing also a line for each file that belongs to no dataset. Else such files may lie there.

    """
    if "://" in folder:
        raise UserError(f"'{folder}' is an address; experts are read from a folder on a disk, so copy them to one")
    root, faults, places = at_home(folder), list[str](), dict[str, dict[str, Path]]()
    notes = {model: {name: _note(root, model, name) for name in datasets} for model in models}
    seen = {model: {name: _last_seen(note, files) for name, note in of.items()} for model, of in notes.items()}
    for model in notes:
        inside = root / model
        place = inside if inside.is_dir() or len(notes) > 1 else root
        places[model] = {}
        faults += _matched(place, datasets, [name for name in datasets if seen[model][name]], places[model])
    UserError.unless_none(faults)
    return {
        model: _told_apart(
            {name: _expert(places[model].get(name), seen[model][name], note, files) for name, note in of.items()}
        )
        for model, of in notes.items()
    }


def _matched(place: Path, datasets: Sequence[str], seen: Collection[str], found: dict[str, Path]) -> Iterator[str]:
    """The file of each dataset is found, if there is one; yields what is wrong. Those that were seen may be gone."""
    is_there = place.is_dir()
    if not is_there and len(seen) < len(datasets):
        yield f"'{place}' is no folder; give one with a file {datasets[0]}{ENDINGS[0]} for each dataset"
        return
    by_name, odd = dict[str, list[Path]](), dict[str, Path]()
    for path in sorted(place.iterdir()) if is_there else ():
        if path.suffix in ENDINGS and path.is_file():
            by_name.setdefault(path.stem, []).append(path)
        else:
            odd.setdefault(path.stem, path)
    others = by_name.keys() - set(datasets)
    missing = [name for name in datasets if name not in by_name and name not in seen]
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


def _told_apart(experts: Mapping[str, GivenExpert]) -> dict[str, GivenExpert]:
    """The experts by dataset, copies of one file by that, too."""
    count = Counter(expert.digest for expert in experts.values())
    return {
        name: expert._replace(dataset=name) if count[expert.digest] > 1 else expert for name, expert in experts.items()
    }


def copied(experts: GivenExperts) -> Iterator[tuple[str, str]]:
    """The paths of experts that are copies, each with the first of the same bytes."""
    for by_dataset in experts.values():
        first: dict[str, str] = {}
        for expert in by_dataset.values():
            if expert.digest in first:
                yield expert.path, first[expert.digest]
            first.setdefault(expert.digest, expert.path)


def _note(root: Path, model: str, dataset: str) -> tuple[str, ...]:
    """Where the storage remembers a file."""
    return ("data", "experts", key_of("expert file", str(root.absolute()), model, dataset))


def _last_seen(note: Sequence[str], files: Files) -> _Seen | None:
    parts = (files.find(*note) or b"").decode(errors="replace").split("\n")
    return _Seen(*parts) if len(parts) == len(_Seen._fields) and len(parts[0]) == DIGEST_CHARACTERS else None


def _expert(path: Path | None, seen: _Seen | None, note: Sequence[str], files: Files) -> GivenExpert:
    """The expert in a file, which is read once for as long as its size and time stand, or as it was seen last."""
    if path is None:
        assert seen is not None  # noqa: S101 else it is a fault
        return GivenExpert(seen.path, seen.digest)
    stat = path.stat()
    stamp = f"{stat.st_size} {stat.st_mtime_ns}"
    if seen is None or (seen.stamp, seen.path) != (stamp, str(path)):
        seen = _Seen(file_digest(path), stamp, str(path))
        with suppress(StoreError):  # a storage that takes nothing can still be read
            files.write("\n".join(seen).encode(), *note)
    return GivenExpert(seen.path, seen.digest)
