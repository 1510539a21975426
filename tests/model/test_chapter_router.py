"""The router of chapters: its strategies and its losses."""

from __future__ import annotations

import math

import pytest
import torch

from awareness.config.memory import MemoryConfig
from awareness.model.chapter_router import (
    ChapterChoice,
    ChapterRouter,
    importance_loss,
    load_balance_loss,
    router_losses,
    z_loss,
)

WINDOW = 3
STRATEGIES = ["sequence", "rolling", "token", "hybrid"]


def router_of(strategy, *, hidden_size=6, num_chapters=5, top_k=2, window_size=WINDOW, **options) -> ChapterRouter:
    torch.manual_seed(0)
    options.setdefault("init_std", 1.0)
    router = ChapterRouter(
        hidden_size,
        num_chapters,
        top_k,
        strategy_train="token" if strategy != "token" else "sequence",
        strategy_inference=strategy,
        window_size=window_size,
        **options,
    )
    return router.eval()


def expected_logits(router, strategy, tokens, prompt_length):
    """tokens: [n, d] of one row without padding -> [1 or n, C], token by token as the words say it."""
    weight = router.classifier.weight.detach()
    sequence = tokens[:prompt_length].mean(0) @ weight.T
    if strategy == "sequence":
        return sequence[None]
    if strategy == "token":
        return tokens @ weight.T
    window = router.window_size
    rolling = torch.stack([tokens[max(0, t - window + 1) : t + 1].mean(0) @ weight.T for t in range(len(tokens))])
    return rolling if strategy == "rolling" else (rolling + sequence) / 2


def test_each_strategy_by_hand():
    """Chapter c's logit is feature c: states 0, 3, 6, 9 in the first feature give its means."""
    x = torch.zeros(1, 4, 2)
    x[0, :, 0] = torch.tensor([0.0, 3.0, 6.0, 9.0])
    prompt = torch.tensor([[True, True, True, False]])
    expected = {
        "sequence": [3.0],
        "token": [0.0, 3.0, 6.0, 9.0],
        "rolling": [0.0, 1.5, 4.5, 7.5],
        "hybrid": [1.5, 2.25, 3.75, 5.25],
    }
    for strategy, logits in expected.items():
        router = router_of(strategy, hidden_size=2, num_chapters=2, top_k=1, window_size=2)
        torch.nn.init.eye_(router.classifier.weight)
        choice, _ = router(x, prompt=prompt)
        assert choice.logits[0, :, 0].tolist() == logits
        assert choice.logits.shape == (1, len(logits), 2)


def test_sequence_without_a_prompt_is_by_all_tokens():
    x = torch.randn(2, 7, 6)
    router = router_of("sequence")
    by_prompt, _ = router(x, prompt=torch.ones(2, 7, dtype=torch.bool))
    torch.testing.assert_close(router(x)[0].logits, by_prompt.logits)


def test_training_and_inference_have_their_own_strategy():
    router = router_of("rolling")
    x = torch.randn(1, 5, 6)
    assert torch.allclose(router(x)[0].logits[0], expected_logits(router, "rolling", x[0], 5), atol=1e-6)
    router.train()
    assert torch.allclose(router(x)[0].logits[0], expected_logits(router, "token", x[0], 5), atol=1e-6)


@pytest.mark.parametrize("argument", ["strategy_train", "strategy_inference"])
def test_unknown_strategy_is_refused(argument):
    strategies = {"strategy_train": "token", "strategy_inference": "token", argument: "sentence"}
    with pytest.raises(ValueError, match="'sentence' is not one of sequence, rolling, token, hybrid"):
        ChapterRouter(4, 3, 1, window_size=2, **strategies)


def test_more_chapters_read_than_there_are_is_refused():
    with pytest.raises(ValueError, match="top_k 4 is more than num_chapters 3"):
        router_of("token", num_chapters=3, top_k=4)


def test_choice_is_the_top_k_of_the_full_softmax():
    router = router_of("token", num_chapters=7, top_k=3)
    choice, _ = router(torch.randn(2, 4, 6))
    p = choice.logits.softmax(-1)
    assert choice.chapters.dtype == torch.int64
    assert torch.equal(choice.chapters, p.argsort(-1, descending=True)[..., :3])
    assert torch.allclose(choice.log_prior.exp(), p.gather(-1, choice.chapters), atol=1e-6)
    assert torch.allclose(choice.mass, p.sort(-1, descending=True).values[..., :3].sum(-1), atol=1e-6)


def test_init_std_is_that_of_the_weights():
    weight = router_of("token", hidden_size=64, num_chapters=64, init_std=0.5).classifier.weight
    assert weight.std().item() == pytest.approx(0.5, rel=0.05)
    assert sum(p.numel() for p in router_of("token").parameters()) == 5 * 6


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("prefill", [1, 2, 7])
def test_cached_is_uncached(strategy, prefill):
    x = torch.randn(2, 12, 6, generator=torch.Generator().manual_seed(1))
    prompt = (torch.arange(12) < prefill).expand(2, -1)
    router = router_of(strategy)
    full, _ = router(x, prompt=prompt)
    choice, past = router(x[:, :prefill])
    steps = [choice]
    for t in range(prefill, 12):
        choice, past = router(x[:, t : t + 1], past=past)
        assert past is None or past.recent.shape[1] <= WINDOW - 1
        steps.append(choice)
    if strategy == "sequence":
        assert all(torch.allclose(step.logits, full.logits, atol=1e-6) for step in steps)
        assert all(torch.equal(step.chapters, full.chapters) for step in steps)
    else:
        assert torch.allclose(torch.cat([step.logits for step in steps], 1), full.logits, atol=1e-5)
        assert torch.equal(torch.cat([step.chapters for step in steps], 1), full.chapters)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("side", ["left", "right", "middle"])
@pytest.mark.parametrize("cached", [False, True])
def test_padding_changes_nothing(strategy, side, cached):
    """A prompt of 5 tokens among padding that holds NaN, then 6 tokens that follow it."""
    generator = torch.Generator().manual_seed(2)
    real = {"left": [0, 0, 0, 1, 1, 1, 1, 1], "right": [1, 1, 1, 1, 1, 0, 0, 0], "middle": [0, 1, 1, 0, 0, 1, 1, 1]}
    real = torch.tensor([real[side] + [1] * 6, [1] * 14], dtype=torch.bool)
    x = torch.randn(2, 14, 6, generator=generator).masked_fill(~real[..., None], torch.nan)
    prompt = (torch.arange(14) < 8).expand(2, -1)
    router = router_of(strategy)
    if cached:
        choice, past = router(x[:, :8], real=real[:, :8])
        steps = [choice.logits]
        for t in range(8, 14):
            choice, past = router(x[:, t : t + 1], past=past)
            steps.append(choice.logits)
        logits = steps[-1] if strategy == "sequence" else torch.cat(steps, 1)
    else:
        logits = router(x, real=real, prompt=prompt)[0].logits
    assert not logits.isnan().any()
    for row in range(2):
        got = logits[row] if strategy == "sequence" else logits[row, real[row]]
        want = expected_logits(router, strategy, x[row, real[row]], (real & prompt)[row].sum())
        assert torch.allclose(got, want, atol=1e-5)
    torch.autograd.backward(router(x, real=real)[0].mass.sum())
    assert router.classifier.weight.grad.isfinite().all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_row_without_a_token_is_routed_evenly(strategy):
    x, real = torch.randn(2, 4, 6), torch.tensor([[False] * 4, [True] * 4])
    router = router_of(strategy)
    choice, past = router(x, real=real)
    assert torch.equal(choice.logits[0], torch.zeros_like(choice.logits[0]))
    assert torch.allclose(choice.mass[0], torch.tensor(2 / 5))
    assert not any(t.isnan().any() for t in (choice.logits, choice.log_prior, choice.mass))
    step, _ = router(x[:, :1], past=past)
    assert not step.log_prior.isnan().any()


def test_forward_keeps_nothing():
    router = router_of("hybrid")
    before = dict(vars(router))
    _, past = router(torch.randn(1, 4, 6))
    kept = past.recent.clone()
    router(torch.randn(1, 4, 6), past=past)
    assert vars(router).keys() == before.keys() and torch.equal(past.recent, kept)
    assert not list(router.buffers())


@pytest.mark.parametrize("autocast", [False, True])
def test_bf16_states_are_routed_in_float32(autocast):
    x = torch.randn(2, 9, 6).bfloat16()
    router = router_of("rolling")
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        choice, _ = router(x)
    assert choice.logits.dtype == torch.float32
    assert torch.equal(choice.logits, router(x.float())[0].logits)


def choice_of(logits: torch.Tensor, top_k: int) -> ChapterChoice:
    chapters = logits.topk(top_k, dim=-1).indices
    prior = logits.softmax(-1).gather(-1, chapters)
    return ChapterChoice(logits, chapters, prior.log(), prior.sum(-1))


def test_load_balance_by_hand():
    """p = (3/4, 1/4) twice and (1/4, 3/4) once: f = (2/3, 1/3), P = (7/12, 5/12), 2·(14 + 5)/36 = 19/18."""
    logits = torch.tensor([[[math.log(3), 0.0], [math.log(3), 0.0], [0.0, math.log(3)]]])
    assert load_balance_loss(logits, logits.argmax(-1, keepdim=True)).item() == pytest.approx(19 / 18)
    mask = torch.tensor([[True, False, False]])  # one token: 2·3/4
    assert load_balance_loss(logits, logits.argmax(-1, keepdim=True), mask).item() == pytest.approx(3 / 2)


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_load_balance_of_an_even_router_is_one(top_k):
    logits = torch.zeros(2, 3, 4)
    assert load_balance_loss(logits, logits.topk(top_k).indices).item() == pytest.approx(1.0)


def test_load_balance_is_c_when_all_read_one_chapter():
    logits = torch.tensor([50.0, 0, 0, 0]).expand(2, 3, 4)
    assert load_balance_loss(logits, logits.topk(1).indices).item() == pytest.approx(4.0)


def test_load_balance_has_gradient_through_the_full_softmax():
    """d/dlogit_j of C·Σ f_i·p_i is C·p_j·(f_j - Σ f_i·p_i), for chapters that were not chosen as well."""
    logits = torch.tensor([[[1.0, 0.0, -1.0]]], requires_grad=True)
    load_balance_loss(logits, torch.tensor([[[0]]])).backward()
    p = logits.detach().softmax(-1)[0, 0]
    f = torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(logits.grad[0, 0], 3 * p * (f - (f * p).sum()))


def test_importance_by_hand():
    """p = (3/4, 1/4) and (1/4, 3/4), one chosen each: sums (3/4, 3/4), no variation. Both on the first: (3/2, 0),
    mean 3/4, variance 9/16, squared coefficient 1."""
    even = torch.tensor([[[math.log(3), 0.0], [0.0, math.log(3)]]])
    assert importance_loss(even, even.argmax(-1, keepdim=True)).item() == pytest.approx(0.0, abs=1e-12)
    same = even[:, :1].expand(-1, 2, -1)
    assert importance_loss(same, same.argmax(-1, keepdim=True)).item() == pytest.approx(1.0)
    both = importance_loss(same, torch.tensor([[[0, 1], [0, 1]]]))  # sums (3/2, 1/2): mean 1, variance 1/4
    assert both.item() == pytest.approx(0.25)
    three = torch.cat([even, even[:, :1]], 1)
    mask = torch.tensor([[True, True, False]])
    assert importance_loss(three, three.argmax(-1, keepdim=True), mask).item() == pytest.approx(0.0, abs=1e-12)
    assert importance_loss(three, three.argmax(-1, keepdim=True)).item() == pytest.approx(1 / 9)  # sums (3/2, 3/4)


def test_importance_has_a_gradient_when_one_chapter_is_read():
    logits = torch.tensor([[[1.0, 0.5, 0.0], [0.0, 1.5, 0.0]]], requires_grad=True)
    importance_loss(logits, logits.argmax(-1, keepdim=True)).backward()
    assert logits.grad.abs().sum() > 1e-3


def test_z_loss_by_hand():
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), math.log(5)]]])
    assert z_loss(logits).item() == pytest.approx((math.log(2) ** 2 + math.log(8) ** 2) / 2)
    assert z_loss(logits, torch.tensor([[True, False]])).item() == pytest.approx(math.log(2) ** 2)
    assert z_loss(logits).shape == ()


def test_losses_of_padding_alone_are_finite():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    mask, chapters = torch.zeros(2, 3, dtype=torch.bool), logits.topk(2).indices
    balance, importance = (loss(logits, chapters, mask) for loss in (load_balance_loss, importance_loss))
    losses = [balance, importance, z_loss(logits, mask)]
    assert [loss.item() for loss in losses] == [0.0, 0.0, 0.0]
    sum(losses).backward()
    assert not logits.grad.isnan().any()


def test_router_losses_are_those_switched_on_times_their_coefficients():
    torch.manual_seed(6)
    choices = [choice_of(torch.randn(2, 3, 4), 2), choice_of(torch.randn(2, 1, 4), 2)]
    mask = torch.tensor([[True, True, False], [False, False, False]])
    options = {"load_balance_coefficient": 0.5, "auxiliary_loss_coefficient": 0.25, "z_loss_coefficient": 0.125}
    switches = {"load_balance_loss": "use_load_balance_loss", "auxiliary_loss": "use_auxiliary_loss",
                "z_loss": "use_z_loss"}  # fmt: skip
    (one, of_one), (two, of_two) = zip(choices, (mask, torch.tensor([[True], [False]])), strict=True)
    pairs = [(one, of_one), (two, of_two)]
    want = {
        "load_balance_loss": 0.5 * sum(load_balance_loss(c.logits, c.chapters, m) for c, m in pairs),
        "auxiliary_loss": 0.25 * sum(importance_loss(c.logits, c.chapters, m) for c, m in pairs),
        "z_loss": 0.125 * sum(z_loss(c.logits, m) for c, m in pairs),
    }
    for name, switch in switches.items():
        config = MemoryConfig(**{s: s == switch for s in switches.values()}, **options)
        got = router_losses(choices, config, mask)
        assert list(got) == [name] and torch.allclose(got[name], want[name])
    config = MemoryConfig(**dict.fromkeys(switches.values(), True), **options)
    assert set(router_losses(choices, config, mask)) == set(switches)
    config = MemoryConfig(**dict.fromkeys(switches.values(), False))
    assert router_losses(choices, config, mask) == {}
