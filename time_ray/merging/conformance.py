"""The conformance suite: whether a technique does what every technique must, and what it claims of itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from time_ray.merging.checks import CHECKS, Check
from time_ray.merging.declaration import Technique, TechniqueLike
from time_ray.merging.errors import MergeError
from time_ray.merging.techniques import technique_named


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check has found of a technique."""

    check: str
    """Its name."""
    about: str
    """What must hold, in one line."""
    parameters: Mapping[str, Any]
    """The technique's, as far as they are not its defaults."""
    reason: str | None
    """Why it fails, in one line; None if it passes."""

    @property
    def passed(self) -> bool:
        """Whether it holds."""
        return self.reason is None


def run(technique: TechniqueLike) -> Iterator[CheckResult]:
    """Tests a technique with its defaults and its examples, on small models: one result after the other.

    Which checks it has to pass follows from what it claims (`Technique.symmetric` and so on). MergeError: it merges by
    second moments, and these models have none.
    """
    found = technique_named(technique)
    if found.needs_moments:
        raise MergeError(f"{found.name}: it merges by second moments, and the suite has only weights; test it yourself")
    for check, params in cases(found):
        yield result_of(check, found, params)


def cases(technique: Technique) -> Iterator[tuple[Check, Mapping[str, Any]]]:
    """The checks that a technique has to pass, with the parameters for each."""
    for params in ({}, *technique.examples):
        for check in CHECKS:
            if check.applies(technique, params):
                yield check, params


def result_of(check: Check, technique: Technique, params: Mapping[str, Any]) -> CheckResult:
    """The result of one check; whatever the technique raises is a reason."""
    try:
        reason = check.find_fault(technique, params)
    except MergeError as error:
        reason = "; ".join(error.faults)
    return CheckResult(check.name, check.about, params, reason)
