"""Where data comes from: a name or a path in the experiment becomes datasets in time_ray's own format.

`mini2` is the embedded world, `mini` its version 1, `mini:letters` one of their datasets. A path is a
dataset folder (with `card.json`), a folder of such folders, or whatever an importer recognises: it is imported once.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pyarrow import fs

from time_ray.core.errors import UserError
from time_ray.core.home import at_home
from time_ray.core.scoring import WHOLE
from time_ray.data import mini
from time_ray.data.dataset import CARD, Dataset, content_digest
from time_ray.data.decoding import DECODING
from time_ray.data.importers.folder_files import file_stamp
from time_ray.data.importers.pipeline import RULES, WORK
from time_ray.data.importers.registry import Importer, named_where_it_fails, recognised
from time_ray.data.importers.sample_faults import noted, read_report
from time_ray.data.importers.samples import readable
from time_ray.data.mini.world import WORLD
from time_ray.data.shard_reader import set_aside
from time_ray.data.shards import row_digest
from time_ray.data.subset import lacks

log = logging.getLogger(__name__)

Role = Literal["adaptation", "evaluation", "pretraining"]
MINI = "mini"
POOL_OF = {MINI: "pool", "mini2": "pool2"}  # versions of the mini world differ in their pools alone
NAME_BYTES = 200


@dataclass(frozen=True)
class DatasetRef:
    """A dataset by identity, before its bytes are needed: planning asks for no more."""

    name: str
    classes: tuple[str, ...]
    key: str  # changes when the data does
    folder: str
    filesystem: fs.FileSystem
    is_copy: bool = False  # drawn or imported: what is damaged can be made again
    num_scored: int = 0  # images of the split test
    lacks: str = ""  # what it would need to be scored by its own prompts
    teaches: bool = True  # it has images of the split train
    templates: tuple[str, ...] = ()  # its own class prompts; {} is the class name
    retrieves: bool = False  # it is scored by its captions, not by classes

    def open(self) -> Dataset:
        """The dataset, whose files must be there (see `prepare`)."""
        return Dataset.open(self.folder, self.filesystem, is_copy=self.is_copy)


def find(reference: str, role: Role, cache: str, filesystem: fs.FileSystem) -> list[DatasetRef]:
    """The datasets that a reference names. What must be imported first is imported into `cache`.

    Args:
        reference: `mini` or `mini2`, one dataset of it as in `mini:flags`, or a path.
        role: which datasets `mini` and `mini2` stand for.
        cache: folder of the filesystem for what is drawn or imported.
        filesystem: of the storage.

    Raises:
        UserError: there is no such data, it cannot be read, or its import has faults: all of them.
        StoreError: the cache cannot be written.

    """
    if reference in POOL_OF or reference.startswith(f"{MINI}:"):
        return _find_mini(reference, role, cache, filesystem)
    return _find_folder(reference, cache, filesystem)


def prepare(sources: Sequence[DatasetRef], say: Callable[[str], None]) -> None:
    """All files of the datasets are there: the mini world is drawn where it is not yet."""
    missing = [s for s in sources if s.key.startswith(f"{MINI}:") and not _is_whole(s.folder, s.filesystem)]
    if missing:
        say(f"drawing the mini world: {len(missing)} datasets")
    for source in missing:
        _placed(source.folder, source.filesystem, lambda folder: mini.write(folder.parent, [folder.name]))


def _placed(target: str, filesystem: fs.FileSystem, make: Callable[[Path], object]) -> None:
    """The dataset that `make` writes lies at the target: made beside, then copied, the card last.

    So a folder with a card is whole, on any kind of storage.
    """
    if isinstance(filesystem, fs.LocalFileSystem) and Path(target).is_symlink():
        raise UserError(f"{target}: is a link, where a dataset is to be written; remove it")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, target.rpartition("/")[2])
        make(folder)
        filesystem.create_dir(target, recursive=True)
        for path in sorted(folder.iterdir(), key=lambda path: path.name == CARD):
            fs.copy_files(str(path), f"{target}/{path.name}", fs.LocalFileSystem(), filesystem)


def _is_whole(folder: str, filesystem: fs.FileSystem) -> bool:
    """Whether the folder holds a dataset with all its files; a damaged card, or one of lost files, is set aside."""
    try:
        Dataset.open(folder, filesystem)
    except UserError:
        if filesystem.get_file_info(f"{folder}/{CARD}").type == fs.FileType.File:
            set_aside(filesystem, f"{folder}/{CARD}")
        return False
    return True


def _find_mini(reference: str, role: Role, cache: str, filesystem: fs.FileSystem) -> list[DatasetRef]:
    if reference in POOL_OF:
        pool = (POOL_OF[reference],)
        wanted = {"adaptation": mini.NAMES_ADAPTATION, "evaluation": mini.NAMES_EVALUATION, "pretraining": pool}[role]
    else:
        wanted = (reference.partition(":")[2],)
    known = {*mini.NAMES_ADAPTATION, *mini.NAMES_EVALUATION, *mini.POOLS}
    if not known.issuperset(wanted):
        raise UserError(f"'{reference}' is no dataset of the mini world; it has {', '.join(sorted(known))}")
    folder = f"{cache}/mini-v{mini.VERSION}"
    return [
        DatasetRef(
            n,
            _mini_classes(n),
            f"mini:{mini.VERSION}:{n}",
            f"{folder}/{n}",
            filesystem,
            is_copy=True,
            num_scored=mini.num_test(n),
            lacks="" if n in WORLD else "test images",
            teaches=n not in mini.NAMES_EVALUATION,
            templates=WORLD[n].templates if n in WORLD else (),
        )
        for n in wanted
    ]


def _mini_classes(name: str) -> tuple[str, ...]:
    return WORLD[name].classes if name in WORLD else ()  # the pool has captions only


def _find_folder(reference: str, cache: str, filesystem: fs.FileSystem) -> list[DatasetRef]:
    root = at_home(reference).absolute()
    cards = [root] if (root / CARD).is_file() else sorted(path.parent for path in root.glob(f"*/{CARD}"))
    if cards:
        local = fs.LocalFileSystem()
        return [_from_card(folder.as_posix(), local, cache, filesystem) for folder in cards]
    importer = recognised(str(root))
    if importer is None:
        raise UserError(f"'{reference}' is no folder ({root}); give a dataset folder, an image folder, or 'mini2'")
    with named_where_it_fails(importer, reference):
        return [_imported(importer, root, cache, filesystem)]


def _imported(importer: Importer, root: Path, cache: str, filesystem: fs.FileSystem) -> DatasetRef:
    """What the importer makes of the root, now or earlier. Nothing is left out: bad samples are faults."""
    name = root.name if root.is_dir() else root.parent.name
    target = f"{cache}/{_folder_name(name)}-{_import_key(importer, root)}"
    if not _is_whole(target, filesystem):
        if isinstance(filesystem, fs.LocalFileSystem):
            Path(target, WORK).mkdir(parents=True, exist_ok=True)  # what is there already is ours
            _load(importer, root, Path(target))
        else:
            _placed(target, filesystem, lambda folder: _load(importer, root, folder))
    return _from_card(target, filesystem, cache, filesystem, is_copy=True)


def _folder_name(name: str) -> str:
    """The name of a dataset as the beginning of a folder's: file systems take 255 bytes, and more comes after it."""
    whole = readable(name).encode()
    if len(whole) <= NAME_BYTES:
        return whole.decode()
    return f"{whole[:NAME_BYTES].decode(errors='ignore')}-{hashlib.sha256(whole).hexdigest()[:8]}"


def _load(importer: Importer, root: Path, folder: Path) -> None:
    """The dataset is in the folder, and what of the root was not read is said."""
    importer.load(str(root), folder)
    for kind, number in noted(read_report(folder)).items():
        log.warning("%s: %d × %s", readable(str(root)), number, kind)


def _from_card(
    folder: str, filesystem: fs.FileSystem, cache: str, cache_files: fs.FileSystem, *, is_copy: bool = False
) -> DatasetRef:
    dataset = Dataset.open(folder, filesystem)
    card = dataset.card
    rows = {name: split.rows for name, split in card.splits.items()}
    return DatasetRef(
        card.name,
        card.classes,
        _content_key(dataset, cache, cache_files),
        folder,
        filesystem,
        is_copy,
        rows.get("test", 0),
        lacks(card, WHOLE),
        rows.get("train", 0) > 0,
        card.templates,
        card.kind == "retrieval",
    )


def _content_key(dataset: Dataset, cache: str, filesystem: fs.FileSystem) -> str:
    """The digest of what the dataset's images are decoded to.

    A dataset written under older rules of decoding is read once to know: its digest is another only if one of its
    images is decoded otherwise since. The answer is kept in the cache.
    """
    card = dataset.card
    if card.decoding == DECODING:
        return card.digest
    path = f"{cache}/decoding-{DECODING}/{card.digest}"
    if filesystem.get_file_info(path).type == fs.FileType.File:
        with filesystem.open_input_stream(path) as stream:
            kept = bytes(stream.read()).decode()
        if len(kept) == len(card.digest):  # else whoever wrote it was killed
            return kept
    digests = {name: map(row_digest, dataset.split(name).rows()) for name in card.splits}
    key = content_digest(card.kind, card.classes, card.templates, digests)
    filesystem.create_dir(path.rpartition("/")[0], recursive=True)
    with filesystem.open_output_stream(path) as stream:
        stream.write(key.encode())
    return key


def _import_key(importer: Importer, root: Path) -> str:
    """Changes when a file that the importer reads is added, removed or written: an import is reused while it stands."""
    digest = hashlib.sha256()
    for path in importer.files(str(root)):
        if os.path.lexists(path):  # the import names what is missing
            digest.update(readable(f"{os.path.relpath(path, root)}\0{file_stamp(path)}\n").encode())
    digest.update(f"{RULES} {importer.stamp}".encode())
    return digest.hexdigest()[:16]
