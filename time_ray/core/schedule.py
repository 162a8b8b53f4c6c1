"""The schedule of a sweep, simulated: trials on GPUs, longest chain first; what trials share is made once.

Nothing runs: a trial is a list of what it needs, with seconds. It starts as in a sweep (see core.waiting), and holds
its GPUs from then to its end, also while it waits for what another trial has come to make first. Nodes are not known
here: GPUs that are free can be used together.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from heapq import heappop, heappush
from typing import NamedTuple

from time_ray.core.waiting import STARTS_AT_ONCE, WaitingTrials

UNITS = 10_000  # of a GPU: Ray's own, in which shares of a GPU add up exactly


class Piece(NamedTuple):
    """What is made once, whoever needs it: an expert, or the scores of a model."""

    key: str
    seconds: float
    written: int = 0  # bytes that whoever makes it stores
    read: int = 0  # bytes that a trial reads which finds it made


class SimulatedTrial(NamedTuple):
    """A chain of stages, one after another; the pieces of a stage are made together. No piece is in it twice.

    It does not start while another trial makes the first missing piece of `awaited`, which are keys in order.
    """

    stages: Sequence[Sequence[Piece]]
    gpus: float
    awaited: Sequence[str] = ()


class Delays(NamedTuple):
    """Seconds that are no work: until the first trial of a process is at work, and until each later one is.

    `mtbf` are the mean hours between failures of one GPU. A trial of which one fails starts anew, and has lost what it
    did since the last step checkpoint, or since the stage began. Counted is the mean over such losses.
    """

    first: float = 0.0
    later: float = 0.0
    mtbf: float = math.inf
    checkpoint: float = 600.0

    def stretched(self, seconds: float, gpus: float) -> float:
        """The expected seconds of so much work on GPUs that fail.

        With r failures a second a portion of c seconds that begins again at each takes (1/r + restart)(e^rc - 1).
        """
        rate, portion = gpus / (self.mtbf * 3600), min(seconds, self.checkpoint)
        if not rate or not portion:
            return seconds
        return seconds / portion * (1 / rate + self.first) * math.expm1(rate * portion)


NO_DELAYS = Delays()


class Schedule(NamedTuple):
    """How a sweep would go. Trials held their GPUs for `held` GPU-seconds, at work or waiting."""

    seconds: float
    held: float
    peak: float  # GPUs held at once


class Totals(NamedTuple):
    """GPU-seconds of work, each piece once; bytes that are stored, and that trials read which did not make them."""

    work: float
    written: int
    read: int


class _Stage(NamedTuple):
    """What only this trial makes, as seconds, and what others need as well."""

    alone: float
    shared: tuple[Piece, ...]


class Simulator:
    """Trials that can be put on any number of GPUs.

    A GPU that is free goes to the trial with the longest chain of those that may start.

    Args:
        trials: What is to be done. Each is a chain: it makes what is missing of a stage, waits for what others are
            making of it, and goes on to the next.
        made: Keys of pieces that need not be made.
        delays: What takes time besides work.

    """

    def __init__(
        self, trials: Sequence[SimulatedTrial], *, made: Collection[str] = (), delays: Delays = NO_DELAYS
    ) -> None:
        self.trials = trials
        self.made = frozenset(made)
        self.delays = delays
        needed_by = Counter(piece.key for trial in trials for stage in trial.stages for piece in stage)
        self._shared = frozenset(key for key, number in needed_by.items() if number > 1)
        self.chains = [
            sum(piece.seconds for piece in self._missing(trial)) for trial in trials
        ]  # seconds of each alone
        self.stages = [list(self._joined(trial)) for trial in trials]
        self.order = sorted(range(len(trials)), key=lambda number: -self.chains[number])

    @cached_property
    def totals(self) -> Totals:
        """What is made and moved, however many GPUs there are."""
        pieces = [(piece, trial) for trial in self.trials for stage in trial.stages for piece in stage]
        made = {piece.key: (piece, trial) for piece, trial in pieces if piece.key not in self.made}
        return Totals(
            work=sum(piece.seconds * trial.gpus for piece, trial in made.values()),
            written=sum(piece.written for piece, _ in made.values()),
            read=sum(piece.read for piece, _ in pieces) - sum(piece.read for piece, _ in made.values()),
        )

    def on(self, gpus: float) -> Schedule:
        """The schedule on so many GPUs, of which no trial needs more."""
        return _Run(self, gpus).run()

    def enough(self) -> int:
        """GPUs beyond which no schedule is shorter than with as many as one likes; 0 without trials."""
        if not self.trials:
            return 0
        unlimited = self.on(math.inf)
        shortest = unlimited.seconds * (1 + 1e-9)
        widest = max(trial.gpus for trial in self.trials)
        too_few = math.ceil(max(widest, self.totals.work / shortest)) - 1
        found = math.ceil(unlimited.peak)
        while self.on(found).seconds > shortest:  # places that are kept may want more than are ever used at once
            too_few, found = found, 2 * found
        while found - too_few > 1:
            middle = (found + too_few) // 2
            if self.on(middle).seconds <= shortest:
                found = middle
            else:
                too_few = middle
        return found

    def _missing(self, trial: SimulatedTrial) -> Iterator[Piece]:
        return (piece for stage in trial.stages for piece in stage if piece.key not in self.made)

    def _joined(self, trial: SimulatedTrial) -> Iterator[_Stage]:
        """The trial's stages; neighbours without shared pieces are one, as nobody cares what of them is made when."""
        alone = 0.0
        for stage in trial.stages:
            missing = [piece for piece in stage if piece.key not in self.made]
            shared = tuple(piece for piece in missing if piece.key in self._shared)
            seconds = sum(piece.seconds for piece in missing if piece.key not in self._shared)
            seconds = self.delays.stretched(seconds, trial.gpus)
            if not shared:
                alone += seconds
                continue
            if alone:
                yield _Stage(alone, ())
            yield _Stage(seconds, shared)
            alone = 0.0
        if alone:
            yield _Stage(alone, ())


class _Run:
    """Trials while they run on so many GPUs, each at a stage of its own."""

    def __init__(self, what: Simulator, gpus: float) -> None:
        self._what = what
        self._stages = what.stages
        self._widths = [round(trial.gpus * UNITS) for trial in what.trials]
        self._made: set[str] = set()
        self._making: dict[str, list[int]] = {}  # by piece, the trials that wait for it
        self._at = [0] * len(what.trials)
        self._begun = [False] * len(what.trials)  # whether it has made what it alone needs of its stage
        self._started = [0.0] * len(what.trials)
        self._place = {trial: place for place, trial in enumerate(what.order)}
        self._waiting = WaitingTrials(
            [[key for key in what.trials[trial].awaited if key not in what.made] for trial in what.order],
            [self._widths[trial] for trial in what.order],
            [what.chains[trial] for trial in what.order],
        )
        self._starting: set[int] = set()
        self._idle_processes: Counter[int] = Counter()  # by width
        self._running: Counter[int] = Counter()  # trials by width
        self._all = self._free = math.inf if math.isinf(gpus) else round(gpus * UNITS)
        self._events: list[tuple[float, int, Sequence[Piece]]] = []  # when, which trial, what it has made then
        self._holding = self._peak = 0
        self._held = 0.0

    def run(self) -> Schedule:
        """See Simulator.on."""
        now = 0.0
        self._start(now)
        while self._events:
            now, trial, pieces = heappop(self._events)
            self._starting.discard(trial)
            going_on = [trial]
            for piece in pieces:
                self._made.add(piece.key)
                self._waiting.made(piece.key)
                going_on += self._making.pop(piece.key)
            for each in going_on:
                self._go_on(each, now)
            self._start(now)
        return Schedule(now, self._held / UNITS, self._peak / UNITS)

    def _start(self, now: float) -> None:
        """Whatever may start has begun."""
        while (place := self._next()) is not None:
            trial = self._what.order[place]
            width = self._widths[trial]
            self._starting.add(trial)
            reused = self._idle_processes[width] > 0
            self._idle_processes[width] -= reused
            self._running[width] += 1
            self._free -= width
            self._holding += width
            self._peak = max(self._peak, self._holding)
            self._started[trial] = now
            delays = self._what.delays
            heappush(self._events, (now + (delays.later if reused else delays.first), trial, ()))

    def _next(self) -> int | None:
        if len(self._starting) >= STARTS_AT_ONCE:
            return None
        return self._waiting.next(self._fits, lambda width: self._all / width)

    def _fits(self, width: int, before: Sequence[int], kept: Mapping[int, int]) -> bool:
        """Whether so many GPUs are free. Narrow trials together leave room for a wider one that waits before them."""
        room = self._free - sum(other * count for other, count in kept.items())
        return width <= room and all(
            sum(held * count for held, count in self._running.items() if held < wider) + width + wider <= self._all
            for wider in before
            if wider > width
        )

    def _go_on(self, trial: int, now: float) -> None:
        """The trial makes what is missing of its stage, waits for what others are making of it, or is at its end."""
        stages = self._stages[trial]
        while self._at[trial] < len(stages):
            alone, shared = stages[self._at[trial]]
            missing = [piece for piece in shared if piece.key not in self._made]
            ours = [piece for piece in missing if piece.key not in self._making]
            if ours or (alone and not self._begun[trial]):
                self._make(trial, 0.0 if self._begun[trial] else alone, ours, now)
                return
            if missing:
                self._making[missing[0].key].append(trial)
                return
            self._at[trial] += 1
            self._begun[trial] = False
        self._end(trial, now)

    def _make(self, trial: int, alone: float, pieces: Sequence[Piece], now: float) -> None:
        self._begun[trial] = True
        self._making.update((piece.key, []) for piece in pieces)
        together = sum(piece.seconds for piece in pieces)
        seconds = alone + self._what.delays.stretched(together, self._what.trials[trial].gpus)
        heappush(self._events, (now + seconds, trial, pieces))

    def _end(self, trial: int, now: float) -> None:
        width = self._widths[trial]
        self._running[width] -= 1
        self._free += width
        self._holding -= width
        self._held += (now - self._started[trial]) * width
        self._idle_processes[width] += 1
        self._waiting.ended(self._place[trial])
