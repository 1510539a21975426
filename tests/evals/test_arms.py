"""Arms: each reads as `ask` does, says what `generate` says, and its likelihoods are those of the next tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.errors import UsageError
from awareness.evals.arms import Arm, Bm25, CachedEncoder, open_arms
from awareness.model.assemble import assemble
from awareness.model.attention_record import AttentionRecord
from awareness.model.checkpoint import save_checkpoint
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached
from awareness.model.generate import generate
from awareness.model.load import load
from awareness.model.memory_decoder import build_memory_decoder
from awareness.model.model_files import find
from awareness.model.presets import SETTINGS, ReadingSettings
from awareness.model.prompts import answer_ids, sample_ids, sink_ids
from awareness.types import Chunk, Sample

TEXTS = ("# file: a.py\nlimit = 3\n", "# file: b.py · run\ndef run(): pass\n", "# file: c.py\nx = 1\n")
SAMPLE = Sample(TEXTS, (0,), "What is limit?", "3 or so", "limit = ")


@pytest.fixture(scope="module")
def decoder(model_folder):
    return load(find(str(model_folder)), dtype=torch.float32)


@pytest.fixture(scope="module")
def arms(decoder):
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint="f")
    reads = {"none": "none", "text": "text", "joint": "memory"}
    return {name: Arm(name, way, decoder, encoder if way == "memory" else None) for name, way in reads.items()}


@pytest.fixture
def trained(model_folder, tmp_path):
    """Writes a checkpoint whose tensors are not those of a new one; float32 while it was trained."""

    def write(name: str, reads: str = "memory", **settings):
        torch.manual_seed(0)
        model = ModelConfig(base_model_name=str(model_folder))
        config = MemoryConfig(num_memory_tokens=settings.pop("num_memory_tokens", 0), **settings)
        module, base = build_memory_decoder(model, config, pull=find, dtype=torch.float32)
        with torch.no_grad():
            for tensor in module.trainable().values():
                tensor += 0.3 * torch.randn(tensor.shape)
        save_checkpoint(tmp_path / name, module, base.folder, model, reads=reads)
        return tmp_path / name

    return write


def opened(names, checkpoints, model_folder):
    return open_arms(names, checkpoints, model=find(str(model_folder)), pull=find)


# --- what is read --------------------------------------------------------------------------------------------------


def test_prompts_have_the_chunks_where_the_arm_reads_them(arms, tokenizer):
    none, text, joint = (arms[name].prompt(SAMPLE) for name in ("none", "text", "joint"))
    assert none == sample_ids(tokenizer, SAMPLE)
    assert text == sample_ids(tokenizer, SAMPLE, chunks=TEXTS)
    assert none == [*sink_ids(tokenizer), *joint]  # the sink is in the memory
    assert arms["joint"].prompt(replace(SAMPLE, texts=())) == none


@pytest.fixture
def sharpened(model_folder, monkeypatch):
    """The decoder's own sharpness, as the table of settings would have it."""
    monkeypatch.setitem(SETTINGS, str(model_folder), ReadingSettings(sharpness=1.2))
    return 1.2


def test_memory_is_assembled_as_ask_does(arms, decoder, sharpened):
    joint = arms["joint"]
    memory = joint.memory(TEXTS)
    encoder = joint.encoder
    again = assemble(decoder.model, encoder.spec, encoder.sink, list(encoder.encode(TEXTS)), sharpness=sharpened)
    assert [span.name for span in memory.spans] == ["sink", "0", "1", "2"]
    assert memory.tokens == again.tokens
    for layer, key in memory.keys.items():
        torch.testing.assert_close(key, again.keys[layer], atol=0.02, rtol=0.02)  # batched by another order
    assert joint.memory(()) is None
    assert arms["text"].memory(TEXTS) is None


def test_an_arm_that_cannot_be(decoder, arms):
    with pytest.raises(ValueError, match="arm joint reads memory, without an encoder"):
        Arm("joint", "memory", decoder)
    with pytest.raises(ValueError, match="arm text reads text, with an encoder"):
        Arm("text", "text", decoder, arms["joint"].encoder)


def test_what_fits_is_counted_with_the_answer(arms, decoder, tokenizer):
    room = decoder.model.config.max_position_embeddings
    left = room - len(arms["text"].prompt(SAMPLE)) - len(answer_ids(tokenizer, SAMPLE))
    longer = {extra: replace(SAMPLE, texts=(*TEXTS, "x" * extra)) for extra in (left, left + 1)}
    assert [arms["text"].fits(sample) for sample in longer.values()] == [True, False]
    assert all(arms["joint"].fits(sample) and arms["none"].fits(sample) for sample in longer.values())


class Counting:
    """An encoder that notes what it was given."""

    def __init__(self, encoder):
        self.encoder, self.given = encoder, []

    def encode(self, texts):
        self.given += texts
        return self.encoder.encode(texts)


def test_latents_are_encoded_once_and_the_oldest_leave_first(arms):
    counting = Counting(arms["joint"].encoder)
    a, b, c = "aaaa", "bbbb", "cccc"
    size = len(next(counting.encoder.encode([a])).data)
    cache = CachedEncoder(counting, limit=2 * size)
    found = cache.latents([b, a, b])
    assert found[0] is found[2] is not found[1]
    cache.latents([a, b])
    assert sorted(counting.given) == [a, b]
    cache.latents([a])  # b was used before it
    cache.latents([c])
    counting.given.clear()
    cache.latents([a, c])
    assert counting.given == []
    cache.latents([b])
    assert counting.given == [b]


# --- what is said, and how likely it is ------------------------------------------------------------------------------


def one_by_one(arm, sample):
    """The answer's negative log-likelihood from one forward pass a token."""
    ids, total = arm.prompt(sample), 0.0
    answer = answer_ids(arm.decoder.tokenizer, sample)
    with torch.inference_mode():
        memory = arm.memory(sample.texts)
        for token in answer:
            with attached(arm.decoder.model, memory, adapter=arm.adapter):
                logits = arm.decoder.model(torch.tensor([ids])).logits[0, -1].float()
            total -= float(logits.log_softmax(-1)[token])
            ids = [*ids, token]
    return total, len(answer)


@pytest.mark.parametrize("name", ["none", "text", "joint"])
def test_likelihood_is_that_of_each_next_token(arms, name):
    total, count = arms[name].nll(SAMPLE)
    expected, length = one_by_one(arms[name], SAMPLE)
    assert count == length == 8  # seven bytes and the end of the turn
    assert total == pytest.approx(expected, rel=1e-4)


def test_likelihood_with_other_texts(arms):
    joint, shuffled = arms["joint"], TEXTS[::-1]
    assert joint.nll(SAMPLE, texts=shuffled) == joint.nll(replace(SAMPLE, texts=shuffled)) != joint.nll(SAMPLE)
    assert joint.nll(SAMPLE, texts=()) == arms["none"].nll(SAMPLE) == arms["none"].nll(SAMPLE, texts=shuffled)
    assert arms["text"].nll(SAMPLE, texts=()) == arms["none"].nll(SAMPLE)


def test_code_is_continued_and_nothing_is_nothing(arms):
    code = Sample(TEXTS, (), "", "y = 2", context="x = 1\n")
    for arm in arms.values():
        total, count = arm.nll(code)
        assert count == 5 and total == pytest.approx(one_by_one(arm, code)[0], rel=1e-4)
        assert arm.nll(replace(code, answer="")) == (0.0, 0)


def test_what_is_said_is_what_generate_says(arms, decoder):
    joint = arms["joint"]
    record = AttentionRecord(joint.retrieval_layers)
    said = joint.say(SAMPLE, max_new_tokens=5, record=record)
    alone = generate(decoder, joint.prompt(SAMPLE), joint.memory(TEXTS), max_new_tokens=5)
    assert said.text == alone.text
    assert set(said.attention) == {"0", "1", "2"} and sum(said.attention.values()) == pytest.approx(1.0)
    assert joint.retrieval_layers == [2, 3, 4]  # of six, 40 to 80 % of the depth
    assert set(record.sums) == {2, 3, 4}
    assert arms["text"].retrieval_layers == []


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_arms_of_the_base_share_one_decoder_and_come_as_named(model_folder):
    joint, none = opened(["joint", "none", "joint"], [], model_folder)
    assert (joint.name, none.name) == ("joint", "none")
    assert joint.decoder is none.decoder


def test_a_trained_tanh_form_keeps_the_system_turn_and_reads_the_shared_layers(
    trained, model_folder, tokenizer, sharpened
):
    folder = trained("t", latent_sharing="shared", gca_start_layer=2)
    base, arm = opened(["joint"], [folder], model_folder)
    assert (arm.name, arm.reads) == ("tanh", "memory")
    assert arm.prompt(SAMPLE) == sample_ids(tokenizer, SAMPLE)
    memory = arm.memory(TEXTS)
    assert set(memory.keys) == {2, 3, 4, 5}
    assert memory.keys[5] is memory.keys[2] or torch.equal(memory.keys[5], memory.keys[2])
    sharper = base.memory(TEXTS).keys[2]
    sink = memory.spans[0].stop
    torch.testing.assert_close(sharper[:, :, :sink], memory.keys[2][:, :, :sink])  # the sink's are as they are
    ratio = (sharper[:, :, sink:].float().norm() / memory.keys[2][:, :, sink:].float().norm()).item()
    assert ratio == pytest.approx(sharpened, rel=0.01)
    assert arm.nll(SAMPLE)[0] != pytest.approx(arm.nll(SAMPLE, texts=())[0], rel=1e-3)
    dtypes = {parameter.dtype for parameter in arm.module.parameters()}
    assert dtypes == {arm.decoder.model.dtype}


def test_a_trained_joint_form_has_its_system_turn_in_the_memory(trained, model_folder, tokenizer):
    (arm,) = opened([], [trained("j", memory_form="joint", use_both_memory_and_lora=True, lora_rank=2)], model_folder)
    assert arm.name == "joint+lora"
    assert arm.prompt(SAMPLE) == sample_ids(tokenizer, SAMPLE, with_system=False)


def test_lora_on_text_is_the_honest_control(trained, model_folder):
    lora = {"use_memory_adapter": False, "use_lora": True, "lora_rank": 2}
    text, arm = opened(["text"], [trained("l", reads="text", **lora)], model_folder)
    assert (arm.name, arm.reads, arm.encoder, arm.adapter) == ("text+lora", "text", None, None)
    assert arm.prompt(SAMPLE) == text.prompt(SAMPLE)
    assert arm.nll(SAMPLE)[0] != pytest.approx(text.nll(SAMPLE)[0], rel=1e-3)


def test_a_bank_is_read_without_any_chunk(trained, model_folder):
    none, arm = opened(["none"], [trained("b", reads="none", num_memory_tokens=8)], model_folder)
    assert (arm.name, arm.reads) == ("bank", "none")
    assert arm.memory(TEXTS) is None and arm.prompt(SAMPLE) == none.prompt(SAMPLE)
    assert arm.nll(SAMPLE)[0] != pytest.approx(none.nll(SAMPLE)[0], rel=1e-3)
    said = [a.say(SAMPLE, max_new_tokens=8).text for a in (none, arm)]
    assert said[0] != said[1]


def test_two_that_were_trained_alike_are_called_by_their_folders(trained, model_folder, tmp_path):
    both = [trained("one"), trained("two")]
    assert [arm.name for arm in opened([], both, model_folder)] == ["tanh (one)", "tanh (two)"]
    with pytest.raises(UsageError, match="would both be the arm tanh \\(one\\)"):
        opened([], [both[0], both[0]], model_folder)


def test_arms_that_are_not(model_folder):
    with pytest.raises(UsageError, match="unknown arm tanh; there are none, text, joint") as caught:
        opened(["text", "tanh"], [], model_folder)
    assert "--checkpoint" in caught.value.hint


# --- words -----------------------------------------------------------------------------------------------------------


def test_bm25_ranks_by_words_of_text_path_and_symbol():
    chunks = [
        Chunk("a.py", 1, 2, "", "total = price * count"),
        Chunk("src/lease.py", 1, 2, "renew", "return None"),
        Chunk("b.py", 1, 2, "Lease", "lease_ttl = 4821\nother = 1"),
        Chunk("c.py", 1, 2, "", "value = 2"),
    ]
    sample = Sample(tuple(chunk.encoded_text for chunk in chunks), (2,), "What is lease_ttl?", "4821")
    assert Bm25().rank(sample)[0] == 2
    assert Bm25().rank(replace(sample, question="renew"))[0] == 1
    assert Bm25().rank(replace(sample, question="lease"))[:2] in ([1, 2], [2, 1])
    assert Bm25().rank(replace(sample, question="nowhere")) == [0, 1, 2, 3]
