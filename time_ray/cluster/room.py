"""Room on a cluster: what its nodes hold, and whether trials find a place on them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from time_ray.core.errors import UserError
from time_ray.model_needs import Needs

NODES_NAMED = 3
TINY = 1e-6  # fractions of a GPU are sums of floats
TYPE = "accelerator_type:"  # a node with such GPUs has 1 of this resource, of which its tasks ask for a little
A_LITTLE = 0.001

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
        each = _words(self.worker)
        return each if self.workers == 1 else f"{self.workers} times {each}"

    def covers(self, other: "Request") -> bool:
        """Whether a trial of this kind that ends leaves place for one of the other."""
        ours = dict(self.worker)
        return self.workers >= other.workers and all(ours.get(name, 0.0) >= amount for name, amount in other.worker)


def fit(nodes: Sequence[Node], requests: Mapping[Request, int]) -> bool:
    """Whether so many trials of each kind have a place at once, the largest workers placed first."""
    free = [dict(node) for node in nodes]
    workers: Counter[Resources] = Counter()
    for request, count in requests.items():
        workers[request.worker] += request.workers * count
    return all(_placed(free, worker, workers[worker]) for worker in sorted(workers, key=_largeness, reverse=True))


def at_once(nodes: Sequence[Node], requests: Mapping[Request, int]) -> int:
    """How many of so many trials of each kind run at once on idle nodes, the largest placed first."""
    free, total = [dict(node) for node in nodes], 0
    for request in sorted(requests, key=lambda request: _largeness(request.worker), reverse=True):
        room = sum(_holds(node, request.worker) for node in free) // request.workers
        count = min(room, requests[request])
        _placed(free, request.worker, count * request.workers)
        total += count
    return total


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


def _largeness(worker: Resources) -> tuple[bool, float, float]:
    """What wants nodes of a kind is placed before what may lie anywhere."""
    amounts = dict(worker)
    is_choosy = any(name.startswith(TYPE) for name in amounts)
    return is_choosy, amounts.get("GPU", 0.0), amounts.get("CPU", 0.0)


def requested(needs: Mapping[str, Needs], nodes: Sequence[Node], *, can_grow: bool) -> dict[str, Request]:
    """What a trial of each model holds on a cluster of these nodes.

    Raises:
        UserError: Of some not even one fits, and the cluster cannot grow.

    """
    requests = {model: _request(need, nodes) for model, need in needs.items()}
    if not can_grow:
        unfit = {model: request for model, request in requests.items() if not fit(nodes, {request: 1})}
        UserError.unless_none(_too_large(request, models, nodes) for request, models in _grouped(unfit).items())
    return requests


def _request(need: Needs, nodes: Sequence[Node]) -> Request:
    gpus = need.gpus if need.gpus is not None else float(any(node.get("GPU") for node in nodes))
    amounts = {"CPU": float(need.threads), "GPU": gpus}
    if need.accelerator is not None:
        amounts[TYPE + need.accelerator] = A_LITTLE
    return Request.of(workers=need.workers, **amounts)


def trained_on(needs: Mapping[str, Needs], requests: Mapping[str, Request], *, can_grow: bool) -> Iterator[str]:
    """Where models train, a line for each kind of place; and why there, where nobody has said so."""
    places: dict[str, list[str]] = {}
    for model, request in requests.items():
        places.setdefault(_place(request, needs[model], can_grow=can_grow), []).append(model)
    for place, models in places.items():
        yield f"{', '.join(models)}: trained on {place}"


def _place(request: Request, need: Needs, *, can_grow: bool) -> str:
    each = dict(request.worker).get("GPU", 0.0)
    if each:
        total = request.workers * each
        of = f" of type {need.accelerator}" if need.accelerator else ""
        return f"{total:g} GPU{'s' * (total > 1)}{of}"
    if need.gpus is not None:
        return "the CPU"
    return "the CPU, as no node has a GPU now" + ("; run.gpus=1 waits for one that has" if can_grow else "")


def _grouped(requests: Mapping[str, Request]) -> dict[Request, list[str]]:
    groups: dict[Request, list[str]] = {}
    for model, request in requests.items():
        groups.setdefault(request, []).append(model)
    return groups


def _too_large(request: Request, models: Sequence[str], nodes: Sequence[Node]) -> str:
    there = "; ".join(_node_words(node) for node in nodes[:NODES_NAMED])
    more = f" and {len(nodes) - NODES_NAMED} more nodes" if len(nodes) > NODES_NAMED else ""
    return (
        f"run: a trial of {', '.join(models)} needs {request.words}, the cluster has {there}{more}; "
        "lower run.workers, run.threads or run.gpus, or name another run.accelerator"
    )


def _node_words(node: Node) -> str:
    types = [name.removeprefix(TYPE) for name in node if name.startswith(TYPE)]
    of = f" ({', '.join(types)})" if types else ""
    return f"{node.get('CPU', 0):g} CPU and {node.get('GPU', 0):g} GPU{of}"


def _words(worker: Resources) -> str:
    types = [name.removeprefix(TYPE) for name, _ in worker if name.startswith(TYPE)]
    amounts = [f"{amount:g} {name}" for name, amount in worker if not name.startswith(TYPE)]
    return " and ".join(amounts) + "".join(f" ({kind})" for kind in types)
