"""Every technique of weights alone passes the package's conformance suite; a new one joins by being in the table."""

import pytest
from merging_toys import RULES

from time_ray.merging import TECHNIQUES
from time_ray.merging.conformance import cases, result_of

CASES = [
    pytest.param(row, check, params, id=f"{row.name}{params or ''}-{check.name}")
    for row in RULES.values()
    for check, params in cases(row)
]


@pytest.mark.parametrize(("technique", "check", "params"), CASES)
def test_a_technique_conforms(technique, check, params):
    result = result_of(check, technique, params)
    assert result.passed, f"{result.about} {result.reason}"


def test_every_row_is_described():
    for name, row in TECHNIQUES.items():
        assert row.name == name
        assert row.state
        assert row.paper.startswith("https://")
