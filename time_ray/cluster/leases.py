"""The claims of one trial: renewed while it lives, so that they end with it."""

from threading import Event, Thread

from time_ray.cluster.coordinator import LEASE_SECONDS, Board


class Claims:
    """What this trial is making, as the board knows it."""

    def __init__(self, board: Board, holder: str) -> None:
        self._board = board
        self._holder = holder
        self._names: set[str] = set()
        self._none_left = Event()
        self._keeper: Thread | None = None

    def take(self, name: str) -> bool:
        """Whether it is ours to make; if so, for as long as we live and do not release it."""
        ours = self._board.claim(name, self._holder)
        if ours:
            self._names.add(name)
            self._keep()
        return ours

    def release(self, name: str) -> None:
        """It is made, or given up."""
        self._board.release(name, self._holder)
        self._names.discard(name)
        if not self._names and self._keeper is not None:
            self._none_left.set()
            self._keeper.join()
            self._keeper = None

    def _keep(self) -> None:
        if self._keeper is None:
            self._none_left = Event()
            self._keeper = Thread(target=self._renew, args=(self._none_left,), daemon=True, name="claims")
            self._keeper.start()

    def _renew(self, over: Event) -> None:
        while not over.wait(LEASE_SECONDS / 4):
            self._board.renew(self._holder)
