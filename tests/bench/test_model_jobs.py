"""Whole models, tiny: all forms compute the same, and their time is told by kind of operator."""

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
def test_forms_agree(name):
    found = job(name).run()
    assert [(m.case.direction, m.name) for m in found] == job(name).results()
    assert all(m.right and min(m.seconds) > 0 and m.peak_bytes > 0 for m in found), found


def test_a_form_with_other_shifts_is_wrong(monkeypatch):
    monkeypatch.setattr(layers, "spatial_shift", lambda x, *rest, **options: x)
    found = {m.name: m.right for m in job("s2mlpv2_small_7").run() if m.case.direction == INFERENCE}
    assert found == {SLICES: True, NATIVE: False, FUSED: True}


def test_every_form_shifts_by_its_own_means(monkeypatch):
    """Slices must not be timed with our operator inside."""
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


def test_breakdown_tells_our_operators_from_slices():
    found = {b.name: b.seconds for b in BreakdownJob(job("s2mlpv2_small_7")).run()}
    ours, copied = "spatial shift, fused operators", "copies and slices"
    assert found[SLICES][ours] == 0 and found[NATIVE][ours] > 0 and found[FUSED][ours] > 0
    assert all(seconds["matrix products"] > 0 and seconds["optimizer"] > 0 for seconds in found.values())
    assert found[FUSED][copied] < found[SLICES][copied]


def test_models_of_timm_have_one_form():
    assert job("vit_small_patch16_224").forms() == {TIMM: None}
