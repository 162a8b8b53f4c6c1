"""Precision: the numbers that a model computes in. It is part of what a result is, so it is settled at first."""

from typing import Literal, TypeAlias

Precision: TypeAlias = Literal["fp32", "tf32", "bf16", "fp16"]
AskedPrecision: TypeAlias = Precision | Literal["auto"]

# What accelerators lack, by Ray's names; all others are taken to have all of it, as NVIDIA's have from Ampere on.
WITHOUT_BF16 = ("V100", "T4")
WITHOUT_ANY = ("P100", "P4", "K80")


def training_precision(asked: AskedPrecision, accelerator: str | None) -> Precision:
    """What training computes in: as asked, or what the accelerator that is named is fast in; without one float32."""
    if asked != "auto":
        return asked
    if accelerator is None or accelerator in WITHOUT_ANY:
        return "fp32"
    return "fp16" if accelerator in WITHOUT_BF16 else "bf16"


def evaluation_precision(asked: AskedPrecision, accelerator: str | None) -> Precision:
    """What evaluation computes in: as asked, or TF32 where an accelerator with it is named.

    TF32 leaves KA and ZS of the mini world's models within 0.1 points of float32. Bfloat16 moves them by up to 0.4,
    so it is used only where it is asked for.
    """
    if asked != "auto":
        return asked
    return "fp32" if accelerator is None or lacks("tf32", accelerator) else "tf32"


def lacks(precision: Precision, accelerator: str) -> bool:
    """Whether that type of accelerator does not compute in this precision, or only by imitating it."""
    if precision == "fp32":
        return False
    return accelerator in WITHOUT_ANY or (accelerator in WITHOUT_BF16 and precision != "fp16")
