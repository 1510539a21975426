"""One step of training: rows, terms, the teacher, and the latents that are kept."""

from __future__ import annotations

import pytest
import torch

from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.config.training import LossConfig
from awareness.model.attention_record import AttentionRecord
from awareness.model.load import load
from awareness.model.memory_decoder import build_memory_decoder
from awareness.model.model_files import find
from awareness.model.prompts import answer_ids, sample_ids
from awareness.train.batch_memory import MemoryMaker
from awareness.train.step import Rows, TrainingStep, padded_rows
from awareness.train.teacher import Teacher
from awareness.types import SINK, Sample
from tests.train.conftest import Numbers

JOINT = MemoryConfig(memory_form="joint", num_memory_tokens=0, use_both_memory_and_lora=True, lora_rank=4)
SAMPLES = [Numbers(3)[i] for i in range(3)]


@pytest.fixture(scope="module")
def built(model_folder):
    module, base = build_memory_decoder(
        ModelConfig(base_model_name=str(model_folder)), JOINT, pull=find, dtype=torch.float32
    )
    return module, base


def step_of(built, teacher=None, **losses):
    module, base = built
    return TrainingStep(module, LossConfig(**losses), MemoryMaker(module, base, 1 << 30), teacher)


def rows_of(built, samples=SAMPLES):
    return Rows(built[1].tokenizer, "memory", False)(samples)


def test_rows_learn_the_answer_and_its_end_alone(built):
    tokenizer = built[1].tokenizer
    rows = rows_of(built)
    for sample, ids, labels, mask in zip(
        SAMPLES, rows["input_ids"], rows["labels"], rows["attention_mask"], strict=True
    ):
        assert tokenizer.decode(labels[labels != -100]) == f"{sample.answer}<|im_end|>"
        prompt = sample_ids(tokenizer, sample, with_system=False)
        assert ids[: len(prompt)].tolist() == prompt and (labels[: len(prompt)] == -100).all()
        assert ids[mask.bool()].tolist() == prompt + answer_ids(tokenizer, sample)
        assert (labels[~mask.bool()] == -100).all()


def test_code_that_is_continued_has_no_end(built):
    sample = Sample(("def f(): ...\n",), (0,), "", "f()\n", context="x = ")
    rows = rows_of(built, [sample])
    assert built[1].tokenizer.decode(rows["input_ids"][0]) == "x = f()\n"
    assert built[1].tokenizer.decode(rows["labels"][0][-4:]) == "f()\n"


@pytest.mark.parametrize(("reads", "there"), [("memory", False), ("text", True), ("none", False)])
def test_reads(built, reads, there):
    tokenizer = built[1].tokenizer
    text = tokenizer.decode(Rows(tokenizer, reads, True)(SAMPLES)["input_ids"][0])
    assert all((chunk in text) is there for chunk in SAMPLES[0].texts) and "You are a helpful" in text


def test_the_loss_is_the_sum_of_its_terms_each_with_its_coefficient(built, tmp_path):
    teacher = Teacher(
        load(find(built[1].folder.name), dtype=torch.float32), tmp_path / "t.db", top_k=8, temperature=1.0
    )
    coefficients = {"answer": 0.5, "kl": 2.0, "citation": 3.0, "sparsity": 4.0}
    found = {}
    for switched_on in [set(), *({name} for name in coefficients), set(coefficients)]:
        losses = {f"{name}_coefficient": coefficients[name] if name in switched_on else 0.0 for name in coefficients}
        out = step_of(built, teacher if "kl" in switched_on else None, **losses).eval()(**rows_of(built))
        terms = {name: value.item() for name, value in out.items() if name not in ("loss", "nll", "tokens")}
        assert set(terms) == switched_on | {"answer"}
        assert out["loss"].item() == pytest.approx(sum(terms.values()), rel=1e-5)
        assert (terms["answer"] != 0.0) is ("answer" in switched_on)
        found[frozenset(switched_on)] = terms
    every = found[frozenset(coefficients)]
    for name in coefficients:
        assert found[frozenset([name])][name] == pytest.approx(every[name], rel=1e-4) and every[name] > 0
    plain = step_of(built).eval()(**rows_of(built))
    assert plain["answer"].item() == pytest.approx(every["answer"] / 0.5, rel=1e-5)
    assert plain["nll"].item() / plain["tokens"].item() == pytest.approx(plain["answer"].item(), rel=1e-5)


def test_the_memory_is_read_and_only_what_is_trained_gets_a_gradient(built):
    module, _ = built
    step = step_of(built, citation_coefficient=1.0)
    module.zero_grad()
    step(**rows_of(built))["loss"].backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad is not None) is (name in module.trainable()), name
    assert module.adapter.blocks["3"].bias.grad.abs().sum() > 0
    other = [Sample(("# nothing\n",), (0,), s.question, s.answer, s.answer_prefix) for s in SAMPLES]
    with torch.no_grad():
        assert step.eval()(**rows_of(built))["answer"] != step(**rows_of(built, other))["answer"]


def test_masks_of_chunk_tokens_and_gold_tokens(built):
    module, base = built
    maker = MemoryMaker(module, base, 1 << 30)
    samples = [SAMPLES[0], Sample(("# one\n", "# two and more\n"), (1,), "?", "x"), Sample(("a",), (), "?", "x")]
    batch = maker(samples)
    assert batch.memory.keys[1].shape[:3] == (3, 2, batch.memory.tokens)
    lengths = [[len(text) for text in sample.texts] for sample in samples]  # a token a byte
    sink = batch.memory.tokens - sum(lengths[0])
    assert batch.chunks.sum(dim=1).tolist() == [sum(own) for own in lengths]
    assert batch.gold.sum(dim=1).tolist() == [lengths[0][SAMPLES[0].gold[0]], lengths[1][1], 0]
    assert batch.chunks[0].tolist() == [False] * sink + [True] * sum(lengths[0])
    assert batch.gold[1].nonzero()[0].item() == batch.memory.tokens - lengths[1][1]
    assert (batch.memory.mask.sum(dim=1) - batch.chunks.sum(dim=1)).tolist() == [sink] * 3 and SINK == "sink"


def test_latents_are_kept_and_do_not_depend_on_their_batch(built):
    text, longer = "def f(): pass\n", "something longer than the first\n"
    alone = MemoryMaker(*built, 1 << 30)
    (latent,) = alone.cache.get([text])
    assert alone.cache.get([text])[0] is latent and alone.cache.bytes == latent.nbytes
    small = MemoryMaker(*built, latent.nbytes)
    again, _ = small.cache.get([text, longer])
    assert torch.equal(again, latent) and again is not latent and small.cache.bytes <= latent.nbytes


@pytest.mark.parametrize("strategy", ["sequence", "token", "rolling"])
def test_attention_is_recorded_beside_chapters_that_each_token_chooses(model_folder, strategy):
    """The last tokens alone have the weights that they have among all."""
    chapters = {"use_chapters": True, "num_chapters": 4, "top_k_chapters": 2, "routing_strategy_train": strategy}
    config = MemoryConfig(memory_form="joint", num_memory_tokens=16, **chapters)
    model = ModelConfig(base_model_name=str(model_folder))
    module, base = build_memory_decoder(model, config, pull=find, dtype=torch.float32)
    for name, parameter in module.named_parameters():
        if name.endswith("bank_gate"):
            parameter.data.fill_(1.0)
    rows, memory = rows_of((module, base)), MemoryMaker(module, base, 1 << 30)(SAMPLES).memory
    weights = []
    for last in (None, 3):
        record = AttentionRecord(range(6), keep=True, every_token=True, last=last)
        samples = {name: rows[name] for name in ("input_ids", "attention_mask", "labels")}
        module.train()(**samples, memory=memory, record=record)
        weights.append(record.memory_attention_weights)
    for layer, every in weights[0].items():
        assert weights[1][layer].shape[2] == 3
        torch.testing.assert_close(weights[1][layer], every[:, :, -3:], atol=1e-6, rtol=1e-4)
    out = step_of((module, base), citation_coefficient=0.1).train()(**rows)
    assert out["citation"] > 0


def test_a_teacher_is_asked_once(built, tmp_path):
    decoder = load(find(built[1].folder.name), dtype=torch.float32)
    calls = []
    decoder.model.register_forward_hook(lambda *_: calls.append(1))
    options = {"top_k": 5, "temperature": 2.0}
    teacher = Teacher(decoder, tmp_path / "deep/t.db", **options)
    ids, log_probs = teacher(SAMPLES)
    tokens = sum(len(answer_ids(decoder.tokenizer, sample)) for sample in SAMPLES)
    assert ids.shape == log_probs.shape == (tokens, 5) and len(calls) == 3
    again = Teacher(decoder, tmp_path / "deep/t.db", **options)(SAMPLES)
    assert torch.equal(again[0], ids) and torch.equal(again[1], log_probs) and len(calls) == 3
    Teacher(decoder, tmp_path / "deep/t.db", top_k=5, temperature=1.0)(SAMPLES[:1])
    assert len(calls) == 4
    sample = SAMPLES[0]
    prompt = sample_ids(decoder.tokenizer, sample, chunks=[sample.texts[sample.gold[0]]])
    answer = answer_ids(decoder.tokenizer, sample)
    with torch.no_grad():
        logits = decoder.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    every = torch.log_softmax(logits / 2.0, -1)
    assert torch.allclose(every.topk(5).values, log_probs[: len(answer)], atol=1e-5)
    assert torch.allclose(every.gather(-1, ids[: len(answer)]), log_probs[: len(answer)], atol=1e-5)


def test_padding_is_masked_and_not_learned():
    rows = padded_rows([([1, 2, 3], [-100, 2, 3]), ([4], [-100])])
    assert rows["input_ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert rows["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert rows["labels"].tolist() == [[-100, 2, 3], [-100, -100, -100]]
