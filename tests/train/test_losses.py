"""Each loss against its formula written out, and that it teaches what it is for."""

from __future__ import annotations

import math

import pytest
import torch

from awareness.train.losses import citation_loss, distillation_loss, sparsity_loss


def by_formula(logits: torch.Tensor, teacher: torch.Tensor, k: int, temperature: float) -> float:
    """KL over k outcomes and the rest, token by token, in plain numbers."""
    total = 0.0
    for own, other in zip(logits.double(), teacher.double(), strict=True):
        p, q = (torch.softmax(x / temperature, 0).tolist() for x in (other, own))
        top = sorted(range(len(p)), key=lambda i: -p[i])[:k]
        pairs = [(p[i], q[i]) for i in top] + [(1 - sum(p[i] for i in top), 1 - sum(q[i] for i in top))]
        total += sum(a * math.log(a / b) for a, b in pairs)
    return temperature**2 * total / len(logits)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("k", [1, 5])
def test_distillation(k, temperature):
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 20), torch.randn(3, 20)
    top = torch.log_softmax(teacher / temperature, -1).topk(k)
    loss = distillation_loss(student, top.indices, top.values, temperature)
    assert loss.item() == pytest.approx(by_formula(student, teacher, k, temperature), rel=1e-4)
    assert distillation_loss(teacher, top.indices, top.values, temperature).item() == pytest.approx(0.0, abs=1e-5)


def test_distillation_where_the_teacher_is_certain_has_a_finite_gradient():
    logits = torch.tensor([[0.0, 0.0, 200.0]], requires_grad=True)
    loss = distillation_loss(logits, torch.tensor([[0, 1]]), torch.tensor([[0.0, -60.0]]))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all() and logits.grad[0, 0] < 0 < logits.grad[0, 2]


def attention() -> torch.Tensor:
    """[2, 1, 3, 4]: two rows, one head, three tokens, four tokens of memory of which the first is the sink."""
    row = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.2, 0.4, 0.2, 0.2], [0.1, 0.6, 0.2, 0.1]])
    return torch.stack([row, row.flip(1)])[:, None]


CHUNKS = torch.tensor([[False, True, True, True]] * 2)
ASKED = torch.tensor([[False, True, True], [False, False, True]])


def test_citation_is_the_share_of_the_gold_chunks_over_all_layers_and_tokens_that_answer():
    gold = torch.tensor([[False, True, False, False], [False, False, False, True]])
    loss = citation_loss([attention(), attention()], CHUNKS, gold, ASKED)
    first = (0.4 + 0.6) / (0.8 + 0.9)
    second = 0.1 / (0.2 + 0.6 + 0.1)
    assert loss.item() == pytest.approx(-(math.log(first) + math.log(second)) / 2, rel=1e-5)


def test_rows_without_gold_chunks_cite_nothing():
    gold = torch.tensor([[False, True, False, False], [False] * 4])
    alone = citation_loss([attention()], CHUNKS, gold, ASKED)
    assert alone.item() == pytest.approx(-math.log(1.0 / 1.7), rel=1e-5)
    weights = attention().requires_grad_()
    nothing = citation_loss([weights], CHUNKS, torch.zeros_like(gold), ASKED)
    nothing.backward()
    assert nothing.item() == 0.0 and weights.grad.eq(0).all()


def test_citation_moves_attention_to_the_gold_chunk():
    scores = torch.zeros(1, 1, 2, 4, requires_grad=True)
    gold = torch.tensor([[False, False, True, False]])
    for _ in range(200):
        loss = citation_loss([scores.softmax(-1)], CHUNKS[:1], gold, torch.ones(1, 2, dtype=torch.bool))
        (gradient,) = torch.autograd.grad(loss, scores)
        scores = (scores - gradient).detach().requires_grad_()
    mean = scores.softmax(-1).mean(dim=(0, 1, 2))
    assert mean[2] > 0.9 * mean[1:].sum() and loss < 0.1


def test_sparsity_is_1_where_all_are_read_alike_and_0_where_one_is():
    asked, chunks = torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 4, dtype=torch.bool)
    even, one = torch.full((1, 1, 1, 4), 0.25), torch.tensor([[[[0.0, 0.9, 0.0, 0.0]]]])
    assert sparsity_loss([even], chunks, asked).item() == pytest.approx(1.0)
    assert sparsity_loss([one], chunks, asked).item() == pytest.approx(0.0, abs=1e-6)
    assert sparsity_loss([even, one], chunks, asked).item() == pytest.approx(0.5)
    half = torch.tensor([[[[0.3, 0.3, 0.0, 0.0]]]])
    assert sparsity_loss([half], chunks, asked).item() == pytest.approx(0.5)


def test_sparsity_leaves_out_the_sink_and_tokens_that_do_not_answer():
    layer = attention()
    changed = layer.clone()
    changed[:, :, :, 0] = 0.9  # the sink
    changed[0, :, 0] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # a token that is not asked
    changed[1, :, :2] = torch.tensor([0.0, 0.0, 1.0, 0.0])
    changed[1, :, 2, 0] = 0.3
    assert sparsity_loss([layer], CHUNKS, ASKED) == sparsity_loss([changed], CHUNKS, ASKED)
