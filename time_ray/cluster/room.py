"""Room on a cluster: what its nodes hold, and whether trials find a place on them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from time_ray.core.errors import UserError
from time_ray.core.experiment import Run

NODES_NAMED = 3
TINY = 1e-6  # fractions of a GPU are sums of floats

Node: TypeAlias = Mapping[str, float]  # amounts by Ray's names: CPU, GPU, accelerator_type:...
Resources: TypeAlias = tuple[tuple[str, float], ...]  # the same, as a key; sorted by name


@dataclass(frozen=True)
class Request:
    """What a trial holds while it runs: so many workers, each of which fits on one node."""

    workers: int
    worker: Resources

    @staticmethod
    def of(*, workers: int, **amounts: float) -> "Request":
        """The request with the amounts that are not zero."""
        return Request(workers, tuple(sorted((name, amount) for name, amount in amounts.items() if amount)))

    @property
    def words(self) -> str:
        """As people read it."""
        each = " and ".join(f"{amount:g} {name}" for name, amount in self.worker)
        return each if self.workers == 1 else f"{self.workers} times {each}"


def fit(nodes: Sequence[Node], requests: Mapping[Request, int]) -> bool:
    """Whether so many trials of each kind have a place at once, the largest workers placed first."""
    free = [dict(node) for node in nodes]
    workers: Counter[Resources] = Counter()
    for request, count in requests.items():
        workers[request.worker] += request.workers * count
    return all(_placed(free, worker, workers[worker]) for worker in sorted(workers, key=_largeness, reverse=True))


def at_once(nodes: Sequence[Node], request: Request) -> int:
    """How many trials of this kind run at once on idle nodes."""
    return sum(_holds(node, request.worker) for node in nodes) // request.workers


def _placed(free: Sequence[dict[str, float]], worker: Resources, count: int) -> bool:
    """Whether that many workers have a place in what is free, which is taken."""
    for node in free:
        here = min(count, _holds(node, worker))
        for name, amount in worker:
            node[name] = node.get(name, 0.0) - here * amount
        count -= here
    return count == 0


def _holds(node: Node, worker: Resources) -> int:
    return max(0, min(int(node.get(name, 0.0) / amount + TINY) for name, amount in worker))


def _largeness(worker: Resources) -> tuple[float, float]:
    amounts = dict(worker)
    return amounts.get("GPU", 0.0), amounts.get("CPU", 0.0)


def requested(run: Run, nodes: Sequence[Node], *, can_grow: bool) -> Request:
    """What a trial of this sweep holds on a cluster of these nodes.

    Raises:
        UserError: Not even one fits, and the cluster cannot grow.

    """
    gpus = run.gpus if run.gpus is not None else float(any(node.get("GPU") for node in nodes))
    request = Request.of(workers=run.workers, CPU=run.threads, GPU=gpus)
    if not can_grow and not at_once(nodes, request):
        there = "; ".join(f"{node.get('CPU', 0):g} CPU and {node.get('GPU', 0):g} GPU" for node in nodes[:NODES_NAMED])
        more = f" and {len(nodes) - NODES_NAMED} more nodes" if len(nodes) > NODES_NAMED else ""
        msg = (
            f"run: a trial needs {request.words}, the cluster has {there}{more}; "
            "lower run.workers, run.threads or run.gpus"
        )
        raise UserError(msg)
    return request
