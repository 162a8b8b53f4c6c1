"""The findings of TIME (https://arxiv.org/abs/2412.06712), R1 to R7, each judged by the results of an experiment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from time_ray.analysis import claim_rules as rules
from time_ray.analysis.claim_rules import Verdict
from time_ray.analysis.evidence import Evidence, LackingError


@dataclass(frozen=True)
class Claim:
    """One of the paper's findings, and the rule that judges it."""

    name: str
    says: str
    rule: Callable[[Evidence, float], Verdict]


CLAIMS = (
    Claim(
        "R1",
        "offline merging stays below continual fine-tuning with replay, whatever the technique",
        rules.offline_below_replay,
    ),
    Claim("R2", "replay lifts offline merging", rules.replay_lifts_offline),
    Claim(
        "R3",
        "recency weights lift it further, to within ε of fine-tuning with replay",
        rules.recency_lifts_further,
    ),
    Claim("R4", "init and deploy explain more than technique", rules.strategies_over_technique),
    Claim("R5", "ema/ema may be the best; ft/ft and zs/* are not", rules.best_in_time),
    Claim(
        "R6",
        "R5 holds over model size, budget and length of stream; the gap to ft/ft grows with size",
        rules.holds_everywhere,
    ),
    Claim("R7", "techniques differ by at most ε at best length", rules.techniques_are_alike),
)


def judge(evidence: Evidence, epsilon: float = 1.0) -> list[Verdict]:
    """Every claim with its verdict. Differences in GM of at most `epsilon` do not matter to R3 and R7."""
    return [_verdict(claim, evidence, epsilon) for claim in CLAIMS]


def _verdict(claim: Claim, evidence: Evidence, epsilon: float) -> Verdict:
    try:
        found = claim.rule(evidence, epsilon)
    except LackingError as error:
        found = Verdict(verdict="undecided", decide=str(error))
    decide = found.decide if found.verdict == "undecided" else None
    if found.verdict == "undecided" and decide is None:
        decide = f"in {evidence.opened.path}, seed: {_more(evidence.seeds)}"
    return replace(found, claim=claim.name, says=claim.says, seeds=evidence.seeds, decide=decide)


def _more(seeds: Sequence[int]) -> list[int]:
    """Twice as many, three at least."""
    wanted = max(3, 2 * len(seeds))
    return [*seeds, *range(max(seeds) + 1, max(seeds) + 1 + wanted - len(seeds))]
