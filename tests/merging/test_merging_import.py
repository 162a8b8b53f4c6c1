"""What is known of techniques costs no torch, and nothing of the package is lost by that."""

import subprocess
import sys

import pytest

from time_ray import merging

LIGHT = """
import sys
from time_ray.merging import TECHNIQUES, MergeError, Parameter, Technique, normalise
from time_ray.merging.techniques import technique_named
assert normalise("ties", {"keep": 0.3})["keep"] == 0.3
assert technique_named("dare").random
assert "torch" not in sys.modules, sorted(name for name in sys.modules if name.startswith("torch"))[:5]
from time_ray import merging
assert set(merging.__all__) <= set(dir(merging))
merging.merge
assert "torch" in sys.modules
"""


def test_the_table_is_there_without_torch():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_every_public_name_is_there_and_is_no_module():
    for name in merging.__all__:
        assert not isinstance(getattr(merging, name), type(sys)), name
    with pytest.raises(AttributeError, match="no attribute 'marge'"):
        merging.marge  # noqa: B018
