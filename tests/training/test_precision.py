import pytest
import torch

from training.finetune.config import FinetuneConfig
from training.precision import multiplies_bf16, usual_precision
from training.recipes.base import Recipe

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("known", "has"),
    [({"avx512_bf16": True}, True), ({"bf16": True}, True), ({"avx2": True, "avx512_bf16": False}, False), ({}, False)],
)
def test_a_cpu_multiplies_bfloat16_where_it_has_instructions_for_it(known, has, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert multiplies_bf16(CPU) is has
    assert usual_precision() == ("bf16" if has else "fp32")


def test_a_gpu_does_and_an_old_torch_does_not_tell(monkeypatch):
    assert multiplies_bf16(torch.device("cuda"))
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not multiplies_bf16(CPU)


def test_a_run_is_by_default_in_the_type_of_this_machine():
    assert FinetuneConfig.model_fields["mixed_precision"].default == usual_precision()
    assert Recipe.model_fields["precision"].default == usual_precision()
