"""Makes the vocabulary of the mini models: CLIP's, cut down to the words of the mini world.

`python -m time_ray.tools.vocabulary` writes the shipped file anew.
"""

import gzip
from collections.abc import Iterable, Iterator
from itertools import pairwise

import open_clip

from time_ray.clip.mini import MERGES_FILE
from time_ray.data.mini.pool import ROWS, pool_sample
from time_ray.data.mini.world import WORLD, captions_of

_GENERAL = 256  # the first merges are kept for all other text, which falls into smaller pieces

Merge = tuple[str, str]


def world_texts() -> Iterator[str]:
    """Everything that is said in the mini world: the pool's captions and the prompts of all classes."""
    for entry in WORLD.values():
        for classname in entry.classes:
            yield from captions_of(entry, classname)
    for index in range(ROWS):
        yield from pool_sample(index).captions


def chosen_merges(texts: Iterable[str]) -> list[str]:
    """CLIP's merges that these texts use and the first 256, in CLIP's order, so that the words split as in CLIP."""
    full = open_clip.tokenizer.SimpleTokenizer()
    used = {merge for word in _words(full, texts) for merge in _merges_of(word, full.bpe_ranks)}
    ordered = sorted(full.bpe_ranks, key=full.bpe_ranks.__getitem__)
    return [" ".join(merge) for rank, merge in enumerate(ordered) if rank < _GENERAL or merge in used]


def _words(tokenizer: open_clip.tokenizer.SimpleTokenizer, texts: Iterable[str]) -> set[str]:
    return {word for text in set(texts) for word in tokenizer.pat.findall(tokenizer.clean_fn(text))}


def _merges_of(word: str, ranks: dict[Merge, int]) -> Iterator[Merge]:
    """The merges that build a word, which is plain ASCII."""
    pieces = [*word[:-1], f"{word[-1]}</w>"]
    while True:
        pairs = [pair for pair in pairwise(pieces) if pair in ranks]
        if not pairs:
            return
        merge = min(pairs, key=ranks.__getitem__)
        yield merge
        pieces = _merged(pieces, merge)


def _merged(pieces: list[str], merge: Merge) -> list[str]:
    result: list[str] = []
    for piece in pieces:
        if result and (result[-1], piece) == merge:
            result[-1] += piece
        else:
            result.append(piece)
    return result


def main() -> None:
    """Write the merges file; equal merges give equal bytes."""
    text = "\n".join(("#version: 0.2", *chosen_merges(world_texts())))
    MERGES_FILE.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
