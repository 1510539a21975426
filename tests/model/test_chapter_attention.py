"""Attention over chosen chapters: the formula, what is read, and what it costs in memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import one_hot, scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from awareness.model.chapter_attention import attend_chapters
from tests.model.test_chapter_router import STRATEGIES, choice_of, router_of


def reference(query, key, value, choice, num_chapters, scale):
    """The formula over the whole bank with an explicit mask: (mass · softmax · V, softmax · V, log-sum-exp)."""
    tokens, group = key.shape[2], query.shape[1] // key.shape[1]
    batch, length = query.shape[0], query.shape[2]
    chapter = torch.tensor([next(c for c in range(num_chapters) if n < (c + 1) * tokens // num_chapters)
                            for n in range(tokens)])  # fmt: skip
    p = choice.logits.softmax(-1)
    chosen = one_hot(choice.chapters, num_chapters).sum(-2).bool()
    bias = p.log().masked_fill(~chosen, -torch.inf)[..., chapter].expand(batch, length, -1)[:, None]
    key, value = (t.repeat_interleave(group, 1) for t in (key, value))
    scores = query @ key.mT * scale + bias
    plain = scores.softmax(-1) @ value
    mass = (p * chosen).sum(-1).expand(batch, length)[:, None, :, None]
    return mass * plain, plain, scores.logsumexp(-1, keepdim=True) + math.log(num_chapters)


def inputs(tokens, *, bank_batch=2, width=9, num_chapters=4, top_k=2, length=9):
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(2, 6, length, 8, generator=generator)
    key, value = torch.randn(2, bank_batch, 2, tokens, 8, generator=generator)
    logits = torch.randn(2, width, num_chapters, generator=generator) * 2
    return [t.requires_grad_() for t in (query, key, value, logits)], top_k, num_chapters


@pytest.mark.parametrize("tokens", [12, 13, 4])  # four chapters, even and uneven
@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize(("width", "length"), [(1, 9), (9, 9), (1, 1)])
@pytest.mark.parametrize("bank_batch", [1, 2])
@pytest.mark.parametrize("block_tokens", [4, 64])
def test_attention_is_the_formula_and_so_are_its_gradients(tokens, top_k, width, length, bank_batch, block_tokens):
    leaves, *_ = inputs(tokens, bank_batch=bank_batch, width=width, length=length)
    query, key, value, logits = leaves
    seed = torch.randn(2, 6, length, 8, generator=torch.Generator().manual_seed(4))
    for weighted in (True, False):
        choice = choice_of(logits, top_k)
        output, lse = attend_chapters(query, key, value, choice, 4, 0.3, weighted=weighted, block_tokens=block_tokens)
        want_weighted, want_plain, want_lse = reference(query, key, value, choice, 4, 0.3)
        want = want_weighted if weighted else want_plain
        assert torch.allclose(output, want, atol=1e-5)
        assert lse.shape == (2, 6, length, 1) and torch.allclose(lse, want_lse, atol=1e-5)
        got_grads = torch.autograd.grad((output * seed).sum() + lse.sum(), leaves)
        want_grads = torch.autograd.grad((want * seed).sum() + want_lse.sum(), leaves)
        for got_grad, want_grad in zip(got_grads, want_grads, strict=True):
            assert torch.allclose(got_grad, want_grad, atol=1e-4)


@pytest.mark.parametrize("width", [1, 9])
def test_all_chapters_and_an_even_router_is_plain_attention(width):
    (query, key, value, _), *_ = inputs(13)
    choice = choice_of(torch.zeros(2, width, 4), 4)
    output, lse = attend_chapters(query, key, value, choice, 4, 0.3)
    assert torch.allclose(
        output, scaled_dot_product_attention(query, key, value, scale=0.3, enable_gqa=True), atol=1e-6
    )
    scores = query @ key.repeat_interleave(3, 1).mT * 0.3
    assert torch.allclose(lse, scores.logsumexp(-1, keepdim=True), atol=1e-5)


def test_merged_by_lse_is_one_softmax_over_chapters_and_text():
    """exp(lse) weighs the unweighted output against another softmax: the chosen tokens are columns of one."""
    (query, key, value, logits), *_ = inputs(13)
    own_key, own_value = torch.randn(2, 2, 2, 5, 8)
    choice = choice_of(logits, 2)
    output, lse = attend_chapters(query, key, value, choice, 4, 0.3, weighted=False)
    own = (query @ own_key.repeat_interleave(3, 1).mT * 0.3).detach()
    gate = torch.sigmoid(lse - own.logsumexp(-1, keepdim=True))
    merged = gate * output + (1 - gate) * (own.softmax(-1) @ own_value.repeat_interleave(3, 1))

    chapter = torch.tensor([0] * 3 + [1] * 3 + [2] * 3 + [3] * 4)
    chosen = one_hot(choice.chapters, 4).sum(-2).bool()
    bias = (4 * logits.softmax(-1)).log().masked_fill(~chosen, -torch.inf)[..., chapter][:, None]
    scores = torch.cat([query @ key.repeat_interleave(3, 1).mT * 0.3 + bias, own], -1)
    values = torch.cat([value, own_value], 2).repeat_interleave(3, 1)
    assert torch.allclose(merged, scores.softmax(-1) @ values, atol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("weighted", [True, False])
def test_gradient_reaches_the_router(strategy, top_k, weighted):
    router = router_of(strategy, num_chapters=4, top_k=top_k)
    (query, key, value, _), *_ = inputs(13)
    choice, _ = router(torch.randn(2, 9, 6))
    output, lse = attend_chapters(query, key, value, choice, 4, 0.3, weighted=weighted)
    if not weighted:  # as read beside text of one token whose score and value are 0
        output = torch.sigmoid(lse) * output
    output.square().sum().backward()
    assert router.classifier.weight.grad.abs().max() > 1e-4
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in (query, key, value))


def test_only_chosen_chapters_are_read():
    (query, key, value, logits), *_ = inputs(13, width=1)
    choice = choice_of(logits[:1].expand(2, -1, -1), 2)
    output, _ = attend_chapters(query, key, value, choice, 4, 0.3)
    others = [n for c in range(4) if c not in choice.chapters[0, 0] for n in range(c * 13 // 4, (c + 1) * 13 // 4)]
    with torch.no_grad():
        key[:, :, others], value[:, :, others] = torch.nan, torch.nan
        assert torch.equal(attend_chapters(query, key, value, choice, 4, 0.3)[0], output)


@pytest.mark.parametrize("width", [1, 9])
def test_bf16_is_near_float32(width):
    (query, key, value, logits), *_ = inputs(13, width=width)
    choice = choice_of(logits, 2)
    rounded = [t.bfloat16() for t in (query, key, value)]
    output, lse = attend_chapters(*rounded, choice, 4, 0.3)
    want, want_lse = attend_chapters(*(t.float() for t in rounded), choice, 4, 0.3)
    assert output.dtype == torch.bfloat16 and lse.dtype == torch.float32
    assert torch.allclose(output.float(), want, atol=0.03) and torch.allclose(lse, want_lse, atol=0.03)


def test_more_chapters_than_tokens_is_refused():
    (query, key, value, _), *_ = inputs(3)
    with pytest.raises(ValueError, match="4 chapters are more than the 3 tokens"):
        attend_chapters(query, key, value, choice_of(torch.zeros(2, 9, 4), 1), 4, 0.3)


class Allocations(TorchDispatchMode):
    """The largest new tensor that an operation made, in numbers; views and what is written in place are not new."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = {t.untyped_storage().data_ptr() for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for t in tree_iter(result):
            if isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in before:
                self.largest = max(self.largest, t.untyped_storage().nbytes() // t.element_size())
        return result


class TestMemory:
    """T = 512 tokens, a bank of N = 256, 16 chapters of which 2 are read, blocks of 8 tokens."""

    LENGTH, TOKENS, CHAPTERS, BLOCK, HEADS, KV_HEADS, HEAD_DIM = 512, 256, 16, 8, 4, 2, 8

    def read(self, *, length=LENGTH, width=LENGTH, gradient, block=BLOCK):
        generator = torch.Generator().manual_seed(5)
        query = torch.randn(1, self.HEADS, length, self.HEAD_DIM, generator=generator)
        key, value = torch.randn(2, 1, self.KV_HEADS, self.TOKENS, self.HEAD_DIM, generator=generator)
        logits = torch.randn(1, width, self.CHAPTERS, generator=generator)
        for t in (query, key, value, logits):
            t.requires_grad_(gradient)
        saved = []
        choice = choice_of(logits, 2)
        allocations = Allocations()
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t)
        with allocations, hooks, torch.set_grad_enabled(gradient):
            output, lse = attend_chapters(query, key, value, choice, self.CHAPTERS, 0.3, block_tokens=block)
        if gradient:
            with allocations:
                (output.sum() + lse.sum()).backward()
            assert key.grad.abs().sum() > 0
        return allocations.largest, sum(saved)

    @pytest.mark.parametrize("gradient", [False, True])
    @pytest.mark.parametrize("width", [1, LENGTH])
    def test_no_tensor_of_tokens_times_memory(self, width, gradient):
        gathered = self.BLOCK * 2 * (self.TOKENS // self.CHAPTERS) * self.KV_HEADS * self.HEAD_DIM
        output = self.HEADS * self.LENGTH * self.HEAD_DIM
        largest, saved = self.read(width=width, gradient=gradient)
        assert largest <= max(gathered, output) < self.LENGTH * self.TOKENS
        assert saved < self.LENGTH * self.TOKENS  # what the blocks keep for the backward, together
        whole, _ = self.read(width=width, gradient=gradient, block=self.LENGTH)
        assert whole > max(gathered, output)  # so the measure can fail

    def test_a_decoding_step_gathers_only_the_chosen_chapters(self):
        largest, _ = self.read(length=1, width=1, gradient=False)
        assert largest == 2 * (self.TOKENS // self.CHAPTERS) * self.KV_HEADS * self.HEAD_DIM
