"""A sweep that copies nothing into MLflow, for tests whose concern is another one."""


class Untracked:
    """Stands in for the copying into MLflow."""

    lag = None

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def changed(self, *_: object) -> None:
        pass

    def finish(self, *_: object) -> None:
        pass

    def break_off(self, *_: object) -> None:
        pass
