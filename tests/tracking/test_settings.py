"""Settings of an experiment in MLflow: which of them decide what a cell is."""

from time_ray.tracking.settings import of_cells, settings


def test_what_moves_no_cell_is_no_parameter_of_one() -> None:
    written = {
        "search": {"mode": "race", "epsilon": 1.0},
        "tuning": {"candidates": 40},
        "exclude": [{"init": "zs"}],
        "only": [{"init": "ft"}],
        "run": {"workers": 1},
        "mixture": {"update": 0.5},
    }
    assert of_cells(settings(written)) == {"mixture.update": "0.5"}
