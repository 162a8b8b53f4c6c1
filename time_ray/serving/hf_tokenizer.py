"""A vocabulary of CLIP's form as tokenizer files of transformers, which open_clip finds in a folder wherever it lies.

Of its own form of a vocabulary open_clip wants the path, which is another one once a folder has moved.
"""

import gzip
import json
from pathlib import Path
from typing import Any

START, END = "<start_of_text>", "<end_of_text>"
PAD = "<PAD>"  # texts are in lower case by then, and never hold it
WORD_END = "</w>"
MOST_MERGES = 49152 - 256 - 2  # that open_clip reads
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # open_clip's own expression
TEXT_CFG = {"hf_tokenizer_name": "tokenizer.json", "tokenizer_kwargs": {"clean": "lower"}}  # clean as open_clip does


def tokenizer_files(vocabulary: Path, context_length: int) -> dict[str, str]:
    """The files by name. Every text has the tokens that open_clip gives it by that vocabulary."""
    lines = gzip.decompress(vocabulary.read_bytes()).decode("utf-8").split("\n")
    merges = [line.split() for line in lines[1 : MOST_MERGES + 1]]
    letters = list(_letters())
    tokens = [*letters, *(f"{letter}{WORD_END}" for letter in letters), *("".join(pair) for pair in merges), START, END]
    ids = {token: number for number, token in enumerate(tokens)} | {PAD: 0}  # open_clip fills up with zeros
    named = {"bos_token": START, "eos_token": END, "pad_token": PAD, "model_max_length": context_length}
    return {
        "tokenizer.json": json.dumps(_tokenizer(ids, merges), ensure_ascii=False),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **named}, indent=1),
    }


def _tokenizer(ids: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    def piece(kind: str, name: str) -> dict[str, Any]:
        return {kind: {"id": name, "type_id": 0}}

    marks = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in (START, END)}
    exact = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    frame = [piece("SpecialToken", START), piece("Sequence", "A"), piece("SpecialToken", END)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[name], "content": name, **exact} for name in (PAD, START, END)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": frame,
            "pair": [*frame, piece("Sequence", "B"), piece("SpecialToken", END)],
            "special_tokens": marks,
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": WORD_END,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": ids,
            "merges": merges,
        },
    }


def _letters() -> list[str]:
    """A letter for each byte, in the order of CLIP's vocabulary: printable ones first, then stand-ins."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(others)]
