"""Benchmarks of tiny models: all variants compute the same, and breakdowns distinguish kinds of operators."""

import pytest
import torch

from s2mlp_cuda import layers, reference
from s2mlp_cuda.bench.models import FUSED, INFERENCE, NATIVE, SLICES, TIMM, BreakdownJob, ModelJob

EAGER = (SLICES, NATIVE, FUSED)
SMALL = {
    "s2mlp_deep": (("depth", 2), ("embed_dim", 32), ("patch_size", 7)),
    "s2mlpv2_small_7": (("depths", (1, 1)), ("embed_dims", (16, 32))),
}


def job(name, names=EAGER):
    return ModelJob(name, 2, 28, torch.float32, torch.device("cpu"), 2, names, SMALL.get(name, ()))


@pytest.mark.parametrize("name", SMALL)
def test_variants_agree(name):
    found = job(name).run()
    assert [(m.case.direction, m.name) for m in found] == job(name).results()
    assert all(m.right and min(m.seconds) > 0 and m.peak_bytes > 0 for m in found), found


def test_a_variant_with_wrong_shifts_is_wrong(monkeypatch):
    monkeypatch.setattr(layers, "spatial_shift", lambda x, *rest, **options: x)
    found = {m.name: m.right for m in job("s2mlpv2_small_7").run() if m.case.direction == INFERENCE}
    assert found == {SLICES: True, NATIVE: False, FUSED: True}


def test_each_variant_uses_its_own_shift(monkeypatch):
    """The slices variant must not call our operator."""
    calls = []
    for name, module in ((SLICES, reference), (NATIVE, layers)):

        def shift(*args, inner=module.spatial_shift, name=name, **options):
            calls.append(name)
            return inner(*args, **options)

        monkeypatch.setattr(module, "spatial_shift", shift)
    for name in EAGER:
        calls.clear()
        job("s2mlpv2_small_7", (name,)).run()
        assert set(calls) == (set() if name == FUSED else {name})


def test_breakdown_distinguishes_our_operators_from_slices():
    found = {b.name: b.seconds for b in BreakdownJob(job("s2mlpv2_small_7")).run()}
    ours, copied = "spatial shift, fused operators", "copies and slices"
    assert found[SLICES][ours] == 0 and found[NATIVE][ours] > 0 and found[FUSED][ours] > 0
    assert all(seconds["matrix products"] > 0 and seconds["optimizer"] > 0 for seconds in found.values())
    assert found[FUSED][copied] < found[SLICES][copied]


def test_timm_models_have_one_variant():
    assert job("vit_small_patch16_224").variants() == {TIMM: None}
