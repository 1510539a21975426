"""Readers: each reads as `ask` does, answers as `generate` does, and its likelihoods are those of the next tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.errors import UsageError
from awareness.evals.readers import Bm25, Reader, open_readers
from awareness.model.answering import answer
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
from awareness.model.reading.question_reading import prepared
from awareness.types import Chunk, QuestionReading, Sample

TEXTS = ("# file: a.py\nlimit = 3\n", "# file: b.py · run\ndef run(): pass\n", "# file: c.py\nx = 1\n")
SAMPLE = Sample(TEXTS, (0,), "What is limit?", "3 or so", "limit = ")


@pytest.fixture(scope="module")
def decoder(model_folder):
    return load(find(str(model_folder)), dtype=torch.float32)


@pytest.fixture(scope="module")
def readers(decoder):
    encoder = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint="f")
    reads = {"none": "none", "text": "text", "joint": "memory"}
    return {name: Reader(name, way, decoder, encoder if way == "memory" else None) for name, way in reads.items()}


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
    return open_readers(names, checkpoints, model=find(str(model_folder)))


# --- what is read --------------------------------------------------------------------------------------------------


def test_prompts_hold_the_chunks_for_a_reader_of_text(readers, tokenizer):
    none, text, joint = (readers[name].prompt(SAMPLE) for name in ("none", "text", "joint"))
    assert none == sample_ids(tokenizer, SAMPLE)
    assert text == sample_ids(tokenizer, SAMPLE, chunks=TEXTS)
    assert none == [*sink_ids(tokenizer), *joint]  # the sink is in the memory
    assert readers["joint"].prompt(replace(SAMPLE, texts=())) == none


@pytest.fixture
def sharpened(model_folder, monkeypatch):
    """The decoder's own sharpness, as the table of settings would have it."""
    monkeypatch.setitem(SETTINGS, str(model_folder), ReadingSettings(sharpness=1.2))
    return 1.2


def test_memory_is_assembled_as_ask_does(readers, decoder, sharpened):
    joint = readers["joint"]
    memory = joint.memory(TEXTS)
    encoder = joint.encoder
    again = assemble(decoder.model, encoder.spec, encoder.sink, list(encoder.encode(TEXTS)), sharpness=sharpened)
    assert [span.name for span in memory.spans] == ["sink", "0", "1", "2"]
    assert memory.tokens == again.tokens
    for layer, key in memory.keys.items():
        torch.testing.assert_close(key, again.keys[layer], atol=0.02, rtol=0.02)  # batched by another order
    assert joint.memory(()) is None
    assert readers["text"].memory(TEXTS) is None


def test_an_encoder_is_only_for_memory(decoder, readers):
    with pytest.raises(ValueError, match="reader joint reads memory, without an encoder"):
        Reader("joint", "memory", decoder)
    with pytest.raises(ValueError, match="reader text reads text, with an encoder"):
        Reader("text", "text", decoder, readers["joint"].encoder)


def test_what_fits_is_counted_with_the_answer(readers, decoder, tokenizer):
    room = decoder.model.config.max_position_embeddings
    left = room - len(readers["text"].prompt(SAMPLE)) - len(answer_ids(tokenizer, SAMPLE))
    longer = {extra: replace(SAMPLE, texts=(*TEXTS, "x" * extra)) for extra in (left, left + 1)}
    assert [readers["text"].fits(sample) for sample in longer.values()] == [True, False]
    assert all(readers["joint"].fits(sample) and readers["none"].fits(sample) for sample in longer.values())


# --- answers, and how likely they are ---------------------------------------------------------------------------------


def one_by_one(reader, sample):
    """The answer's negative log-likelihood from one forward pass a token."""
    ids, total = reader.prompt(sample), 0.0
    answer = answer_ids(reader.decoder.tokenizer, sample)
    with torch.inference_mode():
        memory = reader.memory(sample.texts)
        for token in answer:
            with attached(reader.decoder.model, memory, adapter=reader.adapter):
                logits = reader.decoder.model(torch.tensor([ids])).logits[0, -1].float()
            total -= float(logits.log_softmax(-1)[token])
            ids = [*ids, token]
    return total, len(answer)


@pytest.mark.parametrize("name", ["none", "text", "joint"])
def test_likelihood_is_that_of_each_next_token(readers, name):
    total, count = readers[name].nll(SAMPLE)
    expected, length = one_by_one(readers[name], SAMPLE)
    assert count == length == 8  # seven bytes and the end of the turn
    assert total == pytest.approx(expected, rel=1e-4)


def test_likelihood_with_other_texts(readers):
    joint, shuffled = readers["joint"], TEXTS[::-1]
    assert joint.nll(SAMPLE, texts=shuffled) == joint.nll(replace(SAMPLE, texts=shuffled)) != joint.nll(SAMPLE)
    assert joint.nll(SAMPLE, texts=()) == readers["none"].nll(SAMPLE) == readers["none"].nll(SAMPLE, texts=shuffled)
    assert readers["text"].nll(SAMPLE, texts=()) == readers["none"].nll(SAMPLE)


def test_code_is_continued_and_nothing_is_nothing(readers):
    code = Sample(TEXTS, (), "", "y = 2", context="x = 1\n")
    for reader in readers.values():
        total, count = reader.nll(code)
        assert count == 5 and total == pytest.approx(one_by_one(reader, code)[0], rel=1e-4)
        assert reader.nll(replace(code, answer="")) == (0.0, 0)


def test_an_answer_is_that_of_generate(readers, decoder):
    joint = readers["joint"]
    record = AttentionRecord(joint.retrieval_layers)
    answer = joint.generate(SAMPLE, max_new_tokens=5, record=record)
    alone = generate(decoder, joint.prompt(SAMPLE), joint.memory(TEXTS), max_new_tokens=5)
    assert answer.text == alone.text
    assert joint.generate(SAMPLE, max_new_tokens=5).attention == answer.attention  # recorded without being asked
    assert set(answer.attention) == {"0", "1", "2"} and sum(answer.attention.values()) == pytest.approx(1.0)
    assert joint.retrieval_layers == [2, 3, 4]  # of six, 40 to 80 % of the depth
    assert set(record.sums) == {2, 3, 4}
    assert readers["text"].retrieval_layers == []


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_untrained_readers_share_one_decoder_and_come_as_named(model_folder):
    joint, none = opened(["joint", "none", "joint"], [], model_folder)
    assert (joint.name, none.name) == ("joint", "none")
    assert joint.decoder is none.decoder


def test_a_trained_tanh_form_keeps_the_system_turn_and_reads_the_shared_layers(
    trained, model_folder, tokenizer, sharpened
):
    folder = trained("t", latent_sharing="shared", gca_start_layer=2)
    base, reader = opened(["joint"], [folder], model_folder)
    assert (reader.name, reader.reads) == ("tanh", "memory")
    assert reader.prompt(SAMPLE) == sample_ids(tokenizer, SAMPLE)
    memory = reader.memory(TEXTS)
    assert set(memory.keys) == {2, 3, 4, 5}
    assert memory.keys[5] is memory.keys[2] or torch.equal(memory.keys[5], memory.keys[2])
    sharper = base.memory(TEXTS).keys[2]
    sink = memory.spans[0].stop
    torch.testing.assert_close(sharper[:, :, :sink], memory.keys[2][:, :, :sink])  # the sink's are as they are
    ratio = (sharper[:, :, sink:].float().norm() / memory.keys[2][:, :, sink:].float().norm()).item()
    assert ratio == pytest.approx(sharpened, rel=0.01)
    assert reader.nll(SAMPLE)[0] != pytest.approx(reader.nll(SAMPLE, texts=())[0], rel=1e-3)
    dtypes = {parameter.dtype for parameter in reader.module.parameters()}
    assert dtypes == {reader.decoder.model.dtype}


def test_a_trained_joint_form_has_its_system_turn_in_the_memory(trained, model_folder, tokenizer):
    (reader,) = opened(
        [], [trained("j", memory_form="joint", use_both_memory_and_lora=True, lora_rank=2)], model_folder
    )
    assert reader.name == "joint+lora"
    assert reader.prompt(SAMPLE) == sample_ids(tokenizer, SAMPLE, with_system=False)


def test_lora_on_text_is_the_honest_control(trained, model_folder):
    lora = {"use_memory_adapter": False, "use_lora": True, "lora_rank": 2}
    text, reader = opened(["text"], [trained("l", reads="text", **lora)], model_folder)
    assert (reader.name, reader.reads, reader.encoder, reader.adapter) == ("text+lora", "text", None, None)
    assert reader.prompt(SAMPLE) == text.prompt(SAMPLE)
    assert reader.nll(SAMPLE)[0] != pytest.approx(text.nll(SAMPLE)[0], rel=1e-3)


def test_a_bank_is_read_without_any_chunk(trained, model_folder):
    none, reader = opened(["none"], [trained("b", reads="none", num_memory_tokens=8)], model_folder)
    assert (reader.name, reader.reads) == ("bank", "none")
    assert reader.memory(TEXTS) is None and reader.prompt(SAMPLE) == none.prompt(SAMPLE)
    assert reader.nll(SAMPLE)[0] != pytest.approx(none.nll(SAMPLE)[0], rel=1e-3)
    answers = [r.generate(SAMPLE, max_new_tokens=8).text for r in (none, reader)]
    assert answers[0] != answers[1]


def test_two_that_were_trained_alike_are_named_by_their_folders(trained, model_folder, tmp_path):
    both = [trained("one"), trained("two")]
    assert [reader.name for reader in opened([], both, model_folder)] == ["tanh (one)", "tanh (two)"]
    with pytest.raises(UsageError, match="would both be the arm tanh \\(one\\)"):
        opened([], [both[0], both[0]], model_folder)


def test_an_arm_with_a_model_has_its_own_decoder(model_folder):
    there = f"text@{model_folder}"
    text, joint, other, again = opened(["text", "joint", there, f"none@{model_folder}"], [], model_folder)
    assert (other.name, other.reads) == (there, "text")
    assert text.decoder is joint.decoder is not other.decoder
    assert other.decoder is again.decoder
    assert other.nll(SAMPLE) == text.nll(SAMPLE)


def test_a_checkpoint_is_not_added_where_an_arm_is_about_it(trained, model_folder):
    folder = trained("j", memory_form="joint", use_both_memory_and_lora=True, lora_rank=2)
    assert [reader.name for reader in opened(["joint+lora", "none"], [folder], model_folder)] == ["joint+lora", "none"]
    with pytest.raises(UsageError, match="a checkpoint has a model of its own") as caught:
        opened([f"joint+lora@{model_folder}"], [folder], model_folder)
    assert caught.value.hint == "--arms joint+lora"


def test_readers_with_the_same_latents_encode_a_text_once(trained, model_folder):
    """LoRA is off while chunks are encoded."""
    folder = trained("j", memory_form="joint", use_both_memory_and_lora=True, lora_rank=2)
    joint, lora = opened(["joint"], [folder], model_folder)
    joint.memory(TEXTS[:2])
    assert lora.kept.missing(TEXTS) == [TEXTS[2]]


def test_an_answer_is_that_of_ask(readers, decoder):
    joint, chunks = readers["joint"], [Chunk("a.py", 1, 1, "", "limit = 3"), Chunk("b.py", 1, 1, "", "x = 1")]
    latents = list(joint.encoder.encode([chunk.encoded_text for chunk in chunks]))
    memory = joint.attach(latents)
    assert [span.name for span in memory.spans] == ["sink", "1", "0"]  # the best is next to the question
    got = joint.answer("What is limit?", chunks, memory, max_new_tokens=6)
    expected = answer(decoder, joint.settings, "What is limit?", chunks, memory, max_new_tokens=6)
    assert (got.sentences, got.generation.text) == (expected.sentences, expected.generation.text)
    texts = [chunk.encoded_text for chunk in reversed(chunks)]
    got = readers["text"].answer("What is limit?", chunks, None, max_new_tokens=6)
    expected = answer(decoder, joint.settings, "What is limit?", chunks, texts=texts, max_new_tokens=6)
    assert got.generation.text == expected.generation.text


def test_an_arm_may_store_its_latents_in_another_way(trained, model_folder):
    folder = trained("j", memory_form="joint", use_both_memory_and_lora=True, lora_rank=2)
    names = ["joint", "joint@quant=int8", "joint+lora", "joint+lora@quant=int8"]
    readers = opened(names, [folder], model_folder)
    assert [reader.encoder.spec.quant for reader in readers] == ["none", "int8"] * 2
    assert readers[0].decoder is readers[1].decoder and readers[2].decoder is readers[3].decoder
    assert readers[0].kept is readers[2].kept is not readers[1].kept


def test_an_arm_may_read_with_another_sharpness(model_folder, sharpened):
    own, other = opened(["joint", "joint@sharpness=1.5"], [], model_folder)
    assert (own.settings.sharpness, other.settings.sharpness) == (sharpened, 1.5)
    sink = other.memory(TEXTS).spans[0].stop
    sharper, sharp = (reader.memory(TEXTS).keys[2][:, :, sink:].float() for reader in (other, own))
    torch.testing.assert_close(sharper * sharpened, sharp * 1.5, atol=0.05, rtol=0.02)


def test_unknown_readers(model_folder):
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


def test_an_arm_may_read_again_for_the_question(model_folder):
    arms = ["joint", "joint@recompute=1", "joint@top=1", "joint@recompute=0.5@top=2"]
    joint, again, one, both = opened(arms, [], model_folder)
    assert both.question_reading == QuestionReading(recompute=0.5, top_chunks=2)
    assert joint.decoder is again.decoder and joint.kept is again.kept
    prompt = joint.prompt(SAMPLE)
    want = prepared(again.decoder, joint.memory(TEXTS), TEXTS, prompt, QuestionReading(recompute=1.0))
    told = replace(SAMPLE, texts=TEXTS)
    got = again.generate(told, max_new_tokens=3)
    assert got.text == generate(again.decoder, prompt, want, max_new_tokens=3).text
    assert again.nll(told) != joint.nll(told) != one.nll(told)
    assert len(one.generate(told, max_new_tokens=1, record=AttentionRecord(one.retrieval_layers)).attention) <= 1


@pytest.mark.parametrize(
    ("name", "message"), [("joint@top=1.5", "top is 1.5, not a whole"), ("text@top=1", "text has no memory to read")]
)
def test_settings_that_cannot_be(model_folder, name, message):
    with pytest.raises(UsageError, match=message) as caught:
        opened([name], [], model_folder)
    opened([caught.value.hint.removeprefix("--arms ")], [], model_folder)
