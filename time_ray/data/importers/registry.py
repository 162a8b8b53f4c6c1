"""The importers by name: what forms of data become datasets, what an import of each reads, and how others add theirs.

The table is there without pyarrow: what reads data is imported where it is called.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from time_ray.core.errors import StoreError, UserError


class Option(NamedTuple):
    """A text that an import is given besides its source: `--NAME TEXT`, or the default; None if it must be given.

    The name is that of a parameter of `load`.
    """

    name: str
    help: str
    default: str | None = None


def never(_source: str) -> bool:
    """No source alone says all that the importer needs: it is for the command line only."""
    return False


def nothing(_source: str) -> Sequence[Path]:
    """No files: what is never recognised needs no cache key."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Importer:
    """A form of data, and how it becomes a dataset.

    A source is a folder, a file, or a pattern for files. One that an experiment names is imported once, by the importer
    that recognises it; again when one of `files` is added, removed or written, or when the version is another.

    Attributes:
        name: as in `time-ray data import NAME`.
        about: what it imports, one line of help.
        argument: the word for its source in help, such as ROOT.
        source: what its source is, one line of help.
        load: `load(source, folder, *, strict, jobs, progress, **options)` writes the dataset into the folder and gives
            its card (see pipeline.import_parts, which takes the last three). Raises UserError for what cannot be read.
        recognises: whether a source is of this form, by names alone. Of several importers that say so, the one that
            was registered last imports it.
        files: all that `load` reads, in an order of its own. What is missing may be among them.
        options: what else it can be told.
        version: another one when the same files become other rows; None: the digest of the plugin that it comes from.

    """

    name: str
    about: str
    argument: str = "ROOT"
    source: str
    load: Callable[..., Any]
    recognises: Callable[[str], bool] = never
    files: Callable[[str], Sequence[Path]] = nothing
    options: tuple[Option, ...] = ()
    version: str | None = None

    @property
    def stamp(self) -> str:
        """What of the importer itself goes into the key of an automatic import; of this package's own, nothing does."""
        return "" if self.name in _OWN else f"{self.name} {self.version}"


def register(importer: Importer) -> Importer:
    """Experiments and the command line know the importer from now on. Raises UserError if the name is taken."""
    if importer.name in IMPORTERS:
        raise UserError(f"importer '{importer.name}': the name is taken; give it another")
    IMPORTERS[importer.name] = importer
    return importer


@contextmanager
def named_where_it_fails(importer: Importer, source: str) -> Iterator[None]:
    """What an importer from outside raises within is a UserError that names it, in one line."""
    try:
        yield
    except (UserError, StoreError):
        raise
    except Exception as error:
        if importer.name in _OWN:
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{source}: importer '{importer.name}' fails ({text}); correct it, or the source") from error


def recognised(source: str) -> Importer | None:
    """The importer of a source; None if it is of no form that is known."""
    return next((importer for importer in reversed(IMPORTERS.values()) if importer.recognises(source)), None)


def _later(module: str, function: str) -> Callable[..., Any]:
    """A function of an importer's module, which is imported when it is called."""

    def call(*args: Any, **settings: Any) -> Any:
        return getattr(import_module(f"time_ray.data.importers.{module}"), function)(*args, **settings)

    return call


IMPORTERS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        Importer(
            name="imagefolder",
            about="Import a folder of images with one folder for each class.",
            source="ROOT/{train,test}/CLASS/IMAGE or ROOT/CLASS/IMAGE.",
            load=_later("imagefolder", "import_imagefolder"),
            recognises=_later("imagefolder", "is_folder"),
            files=_later("imagefolder", "image_files"),
        ),
        Importer(
            name="parquet",
            about="Import Parquet files, as saved from the Hugging Face hub.",
            source="Folder of Parquet files with image, label, caption(s).",
            load=_later("parquet", "import_parquet"),
            recognises=_later("parquet", "has_parquet_files"),
            files=_later("parquet", "parquet_files"),
        ),
        Importer(
            name="webdataset",
            about="Import webdataset shards (images with .txt or .json captions) as a pretraining pool.",
            argument="SHARDS",
            source="Folder of tars, or as in 'pool/{00000..00010}.tar'.",
            load=_later("webdataset", "import_webdataset"),
            recognises=_later("webdataset", "names_shards"),
            files=_later("webdataset", "shard_paths"),
        ),
        Importer(
            name="fomo",
            about="Import datasets of FoMo-in-Flux, each into a folder named by its handle.",
            source="Folder with data/NAME/... or data/NAME.tar.",
            load=_later("fomo", "import_fomo"),
            options=(
                Option("info", "The benchmark's metadata, data_lib/00_info."),
                Option("dataset", "Handle or folder name."),
            ),
        ),
        Importer(
            name="emoji",
            about="Import emoji as seven open-licensed styles draw them: a dataset a style, or a year of release.",
            argument="PACKAGES",
            source="Folder with the files of npm's packages.",
            load=_later("emoji", "import_emoji"),
            options=(Option("dataset", "A style, as noto, or a year, as emoji_2015."),),
        ),
    )
}
_OWN = frozenset(IMPORTERS)
