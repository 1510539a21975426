"""Recomputed tokens: all of them are the text in the prompt, the others stay the same numbers."""

from __future__ import annotations

import pytest
import torch

from awareness.errors import UsageError
from awareness.model import hf
from awareness.model.assemble import assemble
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached, fuse
from awareness.model.lora import add_lora
from awareness.model.prompts import encode, sink_ids
from awareness.model.reading.recompute import recomputed
from awareness.model.session import adapter_is_read
from awareness.types import Latent

TEXTS = ["# file: a.py\nMAX = 3\nMIN = 2\n", "def login(self):\n    return MAX\n", "class Pool:\n    size = MIN\n"]
SINK = [257, 10, 20, 258]
PROMPT = torch.tensor([[40, 41, 42, 43]])


def memory_of(model, tokenizer, *, layers=None, quant="none", sharpness=1.0, texts=TEXTS):
    """The memory, and the ids of its tokens."""
    layers = range(model.config.num_hidden_layers) if layers is None else layers
    encoder = SelfEncoder(fuse(model), tokenizer, fingerprint="tiny", layers=layers, quant=quant)
    memory = assemble(model, encoder.spec, encoder.sink, list(encoder.encode(texts)), sharpness=sharpness)
    return memory, sink_ids(tokenizer) + [token for text in texts for token in encode(tokenizer, text)]


def logits_after(model, memory, ids=PROMPT):
    with torch.inference_mode(), attached(model, memory):
        return model(ids).logits


def test_all_tokens_and_all_layers_are_the_text_in_the_prompt(model, tokenizer):
    encoder = SelfEncoder(fuse(model), tokenizer, fingerprint="tiny", sink=SINK, layers=range(6))
    object.__setattr__(encoder.spec, "dtype", "float32")  # the comparison measures no rounding of bfloat16
    encoder.sink = Latent(len(SINK), encoder._project([SINK], encoder.spec)[0].data)
    memory = assemble(model, encoder.spec, encoder.sink, list(encoder.encode(TEXTS)))
    ids = SINK + [token for text in TEXTS for token in encode(tokenizer, text)]
    text = logits_after(model, None, torch.cat([torch.tensor([ids]), PROMPT], dim=1))[:, len(ids) :]
    assert (logits_after(model, memory) - text).abs().max() > 0.1  # chunks that were encoded apart differ
    whole = recomputed(model, memory, ids, range(len(ids)))
    assert whole.recomputed == len(ids) - len(SINK)
    torch.testing.assert_close(logits_after(model, whole), text, atol=1e-4, rtol=0)


def test_a_prefix_is_the_text_up_to_there(model, tokenizer):
    """The tokens of the first two chunks do not see the third."""
    memory, ids = memory_of(model, tokenizer)
    until = memory.spans[-1].start
    part = recomputed(model, memory, ids, range(until))
    whole = recomputed(model, memory, ids, range(len(ids)))
    for layer in memory.keys:
        for old, some, every in zip(*((m.keys[layer], m.values[layer]) for m in (memory, part, whole)), strict=True):
            torch.testing.assert_close(some[:, :, :until], every[:, :, :until])
            assert torch.equal(some[:, :, until:], old[:, :, until:])


def test_only_the_places_change_and_they_see_what_is_before_them(model, tokenizer):
    memory, ids = memory_of(model, tokenizer, layers=(2, 3, 4, 5))
    first, second = memory.spans[1], memory.spans[2]
    places = [second.start + 1, second.start + 5]
    new = recomputed(model, memory, ids, places)
    kept = [place for place in range(memory.tokens) if place not in places]
    for layer in memory.keys:
        assert torch.equal(new.keys[layer][:, :, kept], memory.keys[layer][:, :, kept])
    assert not torch.equal(new.keys[5][:, :, places], memory.keys[5][:, :, places])
    # A change before them changes them, one after them does not.
    for place, is_before in ((first.start, True), (second.stop, False)):
        other = {layer: side.clone() for layer, side in memory.values.items()}
        for side in other.values():
            side[:, :, place] += 3.0
        moved = recomputed(model, type(memory)(memory.keys, other, memory.spans), ids, places)
        assert torch.equal(moved.keys[5][:, :, places], new.keys[5][:, :, places]) is not is_before


def test_nothing_to_do_gives_the_same_memory(model, tokenizer):
    memory, ids = memory_of(model, tokenizer)
    assert recomputed(model, memory, ids, []) is memory
    assert recomputed(model, memory, ids, range(memory.spans[0].stop)) is memory  # the sink stays


def test_keys_stay_sharpened(model, tokenizer):
    plain, ids = memory_of(model, tokenizer)
    sharp, _ = memory_of(model, tokenizer, sharpness=1.5)
    places = range(plain.tokens)
    plain, sharp = recomputed(model, plain, ids, places), recomputed(model, sharp, ids, places)
    sink = plain.spans[0].stop
    torch.testing.assert_close(sharp.keys[3][:, :, sink:], plain.keys[3][:, :, sink:] * 1.5)
    torch.testing.assert_close(sharp.keys[3][:, :, :sink], plain.keys[3][:, :, :sink])


def test_lora_of_an_adapter_is_off(model, tokenizer):
    memory, ids = memory_of(model, tokenizer)
    places = [memory.spans[1].start, memory.spans[2].start]
    before = recomputed(model, memory, ids, places)
    lora = add_lora(model, rank=2, alpha=4, targets=["v_proj"], active=adapter_is_read)
    for parameter in lora.values():
        torch.nn.init.normal_(parameter)
    after = recomputed(model, memory, ids, places)
    assert torch.equal(after.values[5], before.values[5])
    assert hf.lora_layers(model)


def test_quantised_latents(model, tokenizer):
    memory, ids = memory_of(model, tokenizer, quant="int4")
    exact, _ = memory_of(model, tokenizer)
    everything = [recomputed(model, m, ids, range(len(ids))) for m in (memory, exact)]
    for layer in memory.keys:
        torch.testing.assert_close(everything[0].keys[layer], everything[1].keys[layer])


def test_tokens_of_another_memory_are_refused(model, tokenizer):
    memory, ids = memory_of(model, tokenizer)
    with pytest.raises(UsageError, match=f"{len(ids) - 1} tokens for a memory of {len(ids)}"):
        recomputed(model, memory, ids[1:], [9])


def test_layers_that_share_latents(model, tokenizer):
    """Layer 3 reads what is stored for layer 2, and layer 5 what is stored for layer 4."""
    encoder = SelfEncoder(fuse(model), tokenizer, fingerprint="tiny", layers=(2, 4))
    reads = {2: 2, 3: 2, 4: 4, 5: 4}
    memory = assemble(model, encoder.spec, encoder.sink, list(encoder.encode(TEXTS)), reads=reads)
    alone = assemble(model, encoder.spec, encoder.sink, list(encoder.encode(TEXTS)))
    ids = sink_ids(tokenizer) + [token for text in TEXTS for token in encode(tokenizer, text)]
    places = range(memory.spans[2].start, memory.tokens)
    new, want = recomputed(model, memory, ids, places, reads=reads), recomputed(model, alone, ids, places)
    for layer, source in reads.items():
        assert torch.equal(new.keys[layer], want.keys[source])
        assert torch.equal(new.values[layer], want.values[source])
