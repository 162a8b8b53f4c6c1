"""Exact order statistics."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from time_ray.merging import merge
from time_ray.merging.engine import MergePlan
from time_ray.merging.models import MemoryModel
from time_ray.merging.selection import RankSearch, bit_halves, histogram, locate

FLOATS = st.floats(0, width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=50), st.data())
def test_any_rank_is_found_to_the_bit(values, data):
    tensor = torch.tensor(values, dtype=torch.float32)
    rank = data.draw(st.integers(0, len(values) - 1))
    search = RankSearch(*locate(histogram(tensor), rank))
    for part in tensor.split(7):
        search.count_bin(*bit_halves(part))
    assert search.value() == tensor.sort().values[rank]


def test_a_surveyed_expert_needs_one_look_for_any_keep():
    expert = {"w": torch.randn(1000, generator=torch.Generator().manual_seed(0))}
    base = {"w": torch.zeros(1000)}
    model = MemoryModel(expert, "expert")
    reads = []

    class Counted(MemoryModel):
        def read(self, entry, start, stop):
            reads.append((start, stop))
            return super().read(entry, start, stop)

    from time_ray.merging.pieces import Expert
    from time_ray.merging.techniques import TECHNIQUES

    counts = None
    for keep in (0.1, 0.2, 0.9):
        rule = TECHNIQUES["ties"].build(TECHNIQUES["ties"].fill({"keep": keep}), ["w"])
        plan = MergePlan(MemoryModel(base, "base"), rule)
        counts = counts or plan.magnitude_histograms(model)
        reads.clear()
        bounded = plan.with_bounds(Counted(expert, "expert"), Expert(1, "1"), counts)
        assert reads == [(0, 1000)]
        kept = merge(base, [expert], "ties", keep=keep)["w"].abs()
        assert bounded.bounds["text"].low == kept[kept > 0].min()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_ties_in_low_precision_keep_all_equals_unless_told(dtype):
    expert = {"w": torch.tensor([1.0] * 6 + [2.0] * 2 + [0.5] * 2, dtype=dtype)}
    base = {"w": torch.zeros(10, dtype=dtype)}
    assert (merge(base, [expert], "ties", keep=0.4)["w"] != 0).sum() == 8
    kept = merge(base, [expert], "ties", keep=0.4, exact_k=True)["w"]
    assert kept.nonzero().flatten().tolist() == [0, 1, 6, 7]
