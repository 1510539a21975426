"""Generation: single prompts, batches and sampling, up to the end token."""

from __future__ import annotations

import pytest
import torch

from awareness.config.memory import MemoryConfig
from awareness.model.adapter import build_adapter
from awareness.model.assemble import stacked
from awareness.model.fusion import fuse
from awareness.model.generate import generate, generate_batch
from awareness.model.load import load
from awareness.model.model_files import find
from awareness.model.not_said import NOT_SAID
from awareness.model.prompts import encode
from awareness.types import Sampling
from tests.model.test_forms import memory_of

PROMPTS = ([40, 41, 42], [50, 51, 52, 53, 54, 55, 56], [60, 61])


@pytest.fixture
def decoder(model_folder):
    return load(find(str(model_folder)), dtype=torch.float32)


def random_adapter(decoder, **settings):
    torch.manual_seed(0)
    adapter = build_adapter(fuse(decoder.model), MemoryConfig(**settings))
    with torch.no_grad():
        for tensor in adapter.parameters():
            tensor += 0.3 * torch.randn(tensor.shape)
    return adapter.eval()


@pytest.mark.parametrize("strategy", ["sequence", "rolling", "token", "hybrid"])
def test_a_batch_gives_the_answers_of_single_prompts(decoder, strategy):
    adapter = random_adapter(
        decoder,
        num_memory_tokens=10,
        use_chapters=True,
        num_chapters=5,
        top_k_chapters=2,
        routing_strategy_inference=strategy,
        routing_window_size=3,
    )
    memories = [memory_of(decoder.model, adapter.config, length, seed=length) for length in (4, 2, 6)]
    together = generate_batch(decoder, PROMPTS, stacked(memories), max_new_tokens=12, adapter=adapter)
    alone = [
        generate(decoder, prompt, memory, max_new_tokens=12, adapter=adapter).text
        for prompt, memory in zip(PROMPTS, memories, strict=True)
    ]
    assert together == alone
    assert len(set(together)) == 3 and together != generate_batch(decoder, PROMPTS, max_new_tokens=12)
    shared = generate_batch(decoder, PROMPTS, memories[0], max_new_tokens=12, adapter=adapter)
    assert shared[0] == together[0] and shared[1:] != together[1:]


def test_a_refusal_must_be_probable_enough(decoder, monkeypatch):
    """A known fault: one sentence that refuses was more probable than each of many answers, not than all together."""
    plain = generate(decoder, PROMPTS[0], max_new_tokens=4).text
    with torch.inference_mode():
        probabilities = decoder.model(torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)
    first = encode(decoder.tokenizer, NOT_SAID)[0]
    best = int(probabilities.argmax())
    assert first != best
    assert generate(decoder, PROMPTS[0], max_new_tokens=4, refuse_above=0.9).text == plain  # it is not the best
    monkeypatch.setattr("awareness.model.generate.encode", lambda *_: [best])
    share = float(probabilities[best])
    assert generate(decoder, PROMPTS[0], max_new_tokens=4, refuse_above=0.99 * share).text == plain
    other = generate(decoder, PROMPTS[0], max_new_tokens=4, refuse_above=1.01 * share).text
    assert other != plain
    second = decoder.tokenizer.decode([int(probabilities.topk(2).indices[1])])
    assert other.startswith(second)


def test_no_text_after_the_end_token(decoder):
    """A known fault. The token that row 0 says second ends a text: row 0 stops, row 1 goes on."""
    prompts = PROMPTS[:2]
    ids = decoder.model.generate(torch.tensor([prompts[0]]), max_new_tokens=6, do_sample=False)[0, 3:].tolist()
    end = ids[1]
    decoder.model.generation_config.eos_token_id = [end, 258]
    want = decoder.tokenizer.decode(ids[: ids.index(end)])
    together = generate_batch(decoder, prompts, max_new_tokens=6)
    assert together[0] == want
    assert together[1] == generate(decoder, prompts[1], max_new_tokens=6).text


def test_sampling_uses_its_own_seed(decoder):
    state = torch.get_rng_state()
    drawn = [
        generate(decoder, PROMPTS[0], max_new_tokens=12, sampling=Sampling(temperature=3.0, seed=seed)).text
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert torch.equal(torch.get_rng_state(), state)
    greedy = generate(decoder, PROMPTS[0], max_new_tokens=12).text
    assert generate(decoder, PROMPTS[0], max_new_tokens=12, sampling=Sampling(3.0, top_k=1)).text == greedy
    assert generate(decoder, PROMPTS[0], max_new_tokens=12, sampling=Sampling(3.0, top_p=1e-6)).text == greedy
    assert drawn[0] != greedy
