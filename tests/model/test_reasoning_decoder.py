"""The public decoder: the base model without a memory, the reading of the command line with one."""

from __future__ import annotations

import pytest
import torch

from awareness.config.decoder import ModelConfig
from awareness.errors import UsageError
from awareness.model import reasoning_decoder
from awareness.model.assemble import assemble
from awareness.model.attention_record import AttentionRecord
from awareness.model.checkpoint import load_for_use, save_checkpoint
from awareness.model.context_encoder import ContextEncoder
from awareness.model.fusion import attached
from awareness.model.generate import generate
from awareness.model.latent_tensor import join_documents
from awareness.model.memory_decoder import build_memory_decoder
from awareness.model.model_files import find
from awareness.model.presets import ReadingSettings
from awareness.model.prompts import question_ids
from awareness.model.quantisation import to_latent
from awareness.model.reasoning_decoder import ReasoningDecoder
from awareness.types import SINK, Memory, Sampling
from tests.conftest import tiny_model, tiny_tokenizer
from tests.model.test_forms import config_of

IDS = torch.tensor([[40, 41, 42, 43, 44, 45], [50, 51, 52, 53, 54, 55]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
NEW = {"max_new_tokens": 5, "min_new_tokens": 5}


@pytest.fixture(scope="module")
def encoder(model_folder):
    return ContextEncoder(str(model_folder), dtype=torch.float32, max_tokens=30)


@pytest.fixture(scope="module")
def decoder(encoder):
    return ReasoningDecoder(encoder)


@pytest.fixture(scope="module")
def memory(encoder):
    keys, values = encoder.encode_document("def f(x):\n    return x\n" * 2, name="f.py")
    assert len(keys.spans) == 2
    return {"memory_key": keys, "memory_value": values}


@pytest.fixture(scope="module")
def base(model_folder):
    """The model as transformers loads it."""
    return tiny_model("qwen3").from_pretrained(model_folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


class TestNothingToRead:
    def memories(self, encoder):
        keys, values = encoder.encode_document("")
        yield {}
        yield {"memory_key": keys, "memory_value": values}
        yield {"memory_key": torch.empty(0, 0, 0, 0), "memory_value": torch.empty(0, 0, 0, 0)}

    def test_is_the_base_model_exactly(self, encoder, decoder, base):
        with torch.no_grad():
            want = base(IDS).logits
            positions = (MASK.cumsum(1) - 1).clamp(min=0)
            padded = base(IDS, attention_mask=MASK, position_ids=positions).logits
            for nothing in self.memories(encoder):
                out = decoder(input_ids=IDS, **nothing)
                assert torch.equal(out.logits, want)
                assert out.memory_attention_weights == {} and out.documents == () and out.document_attention is None
                assert torch.equal(decoder(input_ids=IDS, attention_mask=MASK, **nothing).logits, padded)

    def test_generates_what_the_base_model_generates(self, encoder, decoder, base):
        want = base.generate(IDS, attention_mask=MASK, do_sample=False, **NEW)
        for nothing in self.memories(encoder):
            assert torch.equal(decoder.generate(input_ids=IDS, attention_mask=MASK, **nothing, **NEW), want)


class TestReading:
    def test_the_memory_is_that_of_the_command_line_bit_for_bit(self, encoder, decoder, memory, monkeypatch):
        pieces = memory["memory_key"].spans
        latents = []
        for span in pieces:
            sides = [memory[name][:, :, span.start : span.stop] for name in ("memory_key", "memory_value")]
            latents.append(to_latent(torch.stack(sides), encoder.spec))
        for sharpness in (1.0, 1.2):
            monkeypatch.setattr(reasoning_decoder, "settings_of", lambda name, form, s=sharpness: ReadingSettings(s))
            want = assemble(encoder.model, encoder.spec, encoder.sink, latents, sharpness=sharpness)
            got = decoder.memory(*memory.values())
            assert got.spans == want.spans
            assert all(torch.equal(got.keys[i], want.keys[i]) for i in want.keys)
            assert all(torch.equal(got.values[i], want.values[i]) for i in want.values)
            with torch.no_grad(), attached(encoder.model, want):
                logits = encoder.model(IDS).logits
            with torch.no_grad():
                assert torch.equal(decoder(IDS, output_memory_attention=False, **memory).logits, logits)

    def test_the_model_is_shared_unless_it_is_loaded_otherwise(self, encoder, decoder, model_folder):
        assert decoder.encoder is encoder
        other = ReasoningDecoder(encoder, dtype=torch.bfloat16, device="cpu")
        assert other.encoder.model is not encoder.model
        assert (other.dtype, other.device.type, other.spec) == (torch.bfloat16, "cpu", encoder.spec)
        assert ReasoningDecoder(str(model_folder)).spec == encoder.spec

    @torch.no_grad()
    def test_padding_on_the_left_changes_nothing(self, decoder, memory):
        both = decoder(input_ids=IDS, attention_mask=MASK, **memory)
        alone = decoder(input_ids=IDS[:1, 2:], **memory)
        assert torch.allclose(both.logits[0, 2:], alone.logits[0], atol=1e-4)
        assert torch.allclose(both.document_attention[0], alone.document_attention[0], atol=1e-4)
        tokens = decoder.generate(input_ids=IDS, attention_mask=MASK, **memory, **NEW)
        assert tokens.shape == (2, 11)
        assert torch.equal(tokens[0, 6:], decoder.generate(input_ids=IDS[:1, 2:], **memory, **NEW)[0, 4:])
        assert torch.equal(tokens[1], decoder.generate(input_ids=IDS[1:], **memory, **NEW)[0])

    @torch.no_grad()
    def test_generate_continues_as_forward_passes_do(self, decoder, memory):
        ids = IDS
        for _ in range(5):
            ids = torch.cat([ids, decoder(ids, **memory).logits[:, -1:].argmax(-1)], dim=1)
        assert torch.equal(decoder.generate(IDS, **memory, **NEW), ids)

    @torch.no_grad()
    def test_a_cache_goes_on(self, decoder, memory):
        whole = decoder(IDS, attention_mask=MASK, **memory).logits
        first = decoder(IDS[:, :4], attention_mask=MASK[:, :4], use_cache=True, **memory)
        rest = decoder(IDS[:, 4:], attention_mask=MASK, past_key_values=first.cache, **memory)
        assert torch.allclose(rest.logits, whole[:, 4:], atol=1e-4)

    def test_labels_give_a_loss_and_the_memory_a_gradient(self, decoder, memory):
        keys, values = (side.float().requires_grad_() for side in memory.values())
        out = decoder(IDS, memory_key=keys, memory_value=values, spec=decoder.spec, labels=IDS)
        out.loss.backward()
        assert keys.grad.abs().sum() > 0 and values.grad.abs().sum() > 0


class TestAttention:
    @torch.no_grad()
    def test_weights_are_of_the_tokens_of_the_memory(self, decoder, encoder, memory):
        out = decoder(IDS, attention_mask=MASK, **memory)
        tokens = memory["memory_key"].shape[2]
        assert list(out.memory_attention_weights) == list(encoder.spec.layers)
        record = AttentionRecord(encoder.spec.layers, keep=True, every_token=True)
        with attached(encoder.model, decoder.memory(*memory.values()), record=record):
            decoder.encoder.model(IDS, attention_mask=MASK, position_ids=(MASK.cumsum(1) - 1).clamp(min=0))
        for layer, weights in out.memory_attention_weights.items():
            assert weights.shape == (2, 6, 6, tokens) and weights.dtype == torch.float32
            assert torch.equal(weights, record.memory_attention_weights[layer][..., -tokens:])  # without the sink
            assert (weights >= 0).all() and (weights.sum(-1) < 1).all()

    @torch.no_grad()
    def test_documents_share_the_attention(self, decoder, encoder):
        """Two documents, one of them in two pieces: the shares are the sums of their tokens' weights."""
        both = [encoder.encode_document(text, name=name) for text, name in (("a = 1\n" * 9, "a.py"), ("b\n", "b.py"))]
        keys, values = join_documents(both)
        assert [(span.name, span.stop) for span in keys.spans] == [("a.py", 30), ("a.py", 54), ("b.py", 56)]
        assert torch.equal(values, torch.cat([own for _, own in both], dim=2))
        out = decoder(IDS, attention_mask=MASK, memory_key=keys, memory_value=values)
        assert out.documents == ("a.py", "b.py")
        mass = torch.zeros(2, 56)
        for layer in (2, 3, 4):  # 0.4 to 0.8 of six layers
            for row, start in ((0, 2), (1, 0)):  # padding does not count
                mass[row] += out.memory_attention_weights[layer][row, :, start:].sum(dim=(0, 1))
        want = torch.stack([mass[:, :54].sum(1), mass[:, 54:].sum(1)], dim=1)
        assert torch.allclose(out.document_attention, want / want.sum(1, keepdim=True), atol=1e-6)
        assert torch.allclose(out.document_attention.sum(1), torch.ones(2))

    @torch.no_grad()
    def test_a_question_is_asked_in_the_words_of_the_command_line(self, decoder, encoder, memory, monkeypatch):
        settings = ReadingSettings(repetition_penalty=1.3, brief=" Briefly.", long=" At length.")
        monkeypatch.setattr(reasoning_decoder, "settings_of", lambda name, form: settings)
        pieces: list[str] = []
        answer = decoder.ask("What is f?", *memory.values(), max_new_tokens=6, on_text=pieces.append)
        assert "".join(pieces) == answer.text
        assert answer.attention == {"f.py": pytest.approx(1.0)}
        ids = question_ids(encoder.tokenizer, "What is f? Briefly.", with_system=False)
        made = decoder.memory(*memory.values())
        want = generate(encoder.decoder, ids, made, max_new_tokens=6, repetition_penalty=1.3)
        assert (answer.text, answer.tokens) == (want.text, want.tokens)
        without = decoder.ask("What is f?", is_long=True, max_new_tokens=3, sampling=Sampling(temperature=1.0, seed=1))
        ids = question_ids(encoder.tokenizer, "What is f? At length.")
        options = {"max_new_tokens": 3, "repetition_penalty": 1.3, "sampling": Sampling(temperature=1.0, seed=1)}
        assert without.text == generate(encoder.decoder, ids, **options).text
        assert without.attention == {}


class TestRefusals:
    def test_a_memory_of_another_model(self, decoder, other_folder):
        encoder = ContextEncoder(str(other_folder), dtype=torch.float32)
        keys, values = encoder.encode_document("x = 1\n")
        with pytest.raises(
            UsageError, match=r"made by .*tiny-llama \(folder-.*, which .*tiny-qwen3 \(folder-.* cannot"
        ):
            decoder(IDS, memory_key=keys, memory_value=values)
        with pytest.raises(UsageError, match="tiny-llama"):
            decoder.generate(IDS, memory_key=keys, memory_value=values, max_new_tokens=1)
        with pytest.raises(UsageError, match="tiny-llama"):
            decoder.ask("x?", keys, values)

    def test_documents_of_two_models(self, encoder, memory, other_folder):
        other = ContextEncoder(str(other_folder), dtype=torch.float32).encode_document("x = 1\n", name="x.py")
        with pytest.raises(UsageError, match=r"'x.py' was made by .*tiny-llama .*, which .*tiny-qwen3 "):
            join_documents([tuple(memory.values()), other])
        with pytest.raises(UsageError, match="no documents"):
            join_documents([])

    def test_a_memory_by_another_encoder_of_the_same_model(self, decoder, encoder, memory):
        spec = type(encoder.spec)(**{**vars(encoder.spec), "encoder": "self+soft:1"})
        keys, values = (side.clone() for side in memory.values())
        with pytest.raises(UsageError, match=r"other settings than .* encoder is self\+soft:1, not self"):
            decoder(IDS, memory_key=keys, memory_value=values, spec=spec)

    def test_plain_tensors_need_a_spec(self, decoder, memory):
        keys, values = (side.clone() for side in memory.values())
        assert type(keys) is torch.Tensor
        with pytest.raises(UsageError, match="do not say which model made them"):
            decoder(IDS, memory_key=keys, memory_value=values)
        out = decoder(IDS, memory_key=keys, memory_value=values, spec=decoder.spec)
        assert out.documents == ("document",)

    def test_shapes_that_do_not_fit(self, decoder, memory):
        keys, values = memory.values()
        spec = decoder.spec
        for wrong, match in (
            ((keys[0], values[0]), r"each \[layers, kv_heads, tokens, head_dim\]; they are \[2, 46, 8\]"),
            ((keys[:, :, 1:], values), r"they are \[5, 2, 45, 8\] in bfloat16 and \[5, 2, 46, 8\]"),
            ((keys.float(), values), "in float32 and"),
            ((keys[1:], values[1:]), r"are \[4, 2, 46, 8\]; .* needs \[5, 2, 46, 8\]"),
            ((keys[:, :1], values[:, :1]), r"are \[5, 1, 46, 8\]"),
        ):
            with pytest.raises(UsageError, match=match):
                decoder(IDS, memory_key=wrong[0], memory_value=wrong[1], spec=spec)
        with pytest.raises(UsageError, match="belong together"):
            decoder(IDS, memory_key=keys)
        with pytest.raises(UsageError, match=r"input_ids must be token ids \[B, T\]; they are \[6\]"):
            decoder(IDS[0], **memory)
        with pytest.raises(UsageError, match=r"attention_mask is \[2, 5\]; input_ids are \[2, 6\]"):
            decoder(IDS, MASK[:, 1:], **memory)

    def test_keys_and_values_of_different_documents(self, decoder, encoder, memory):
        _, values = encoder.encode_document("def f(x):\n    return x\n" * 2, name="g.py")
        with pytest.raises(UsageError, match="of different documents"):
            decoder(IDS, memory_key=memory["memory_key"], memory_value=values)

    def test_more_tokens_than_positions(self, decoder, encoder):
        keys, values = encoder.encode_document("x = 1\n" * 70)
        with pytest.raises(UsageError, match=r"do not fit: .* has 4096 positions"):
            decoder.generate(IDS, memory_key=keys, memory_value=values, max_new_tokens=4000)


@pytest.mark.parametrize("sharing", ["per_layer", "shared"])
@pytest.mark.parametrize("form", ["joint", "tanh A"])
class TestAdapters:
    def save(self, model_folder, form, sharing, tmp_path):
        model = ModelConfig(base_model_name=str(model_folder))
        config = config_of(form, "none", latent_sharing=sharing)
        torch.manual_seed(0)
        module, base = build_memory_decoder(model, config, pull=find, dtype=torch.float32)
        with torch.no_grad():
            for parameter in module.trainable().values():
                parameter += 0.3 * torch.randn_like(parameter)
        save_checkpoint(tmp_path / "run", module, base.folder, model)
        return tmp_path / "run"

    @torch.no_grad()
    def test_it_reads_as_it_was_trained(self, encoder, decoder, memory, model_folder, form, sharing, tmp_path, base):
        folder = self.save(model_folder, form, sharing, tmp_path)
        own = ReasoningDecoder(encoder, adapter=folder)
        got = own(IDS, output_memory_attention=False, **memory).logits
        module, trained_base = load_for_use(folder, pull=find)
        kept = module.encoder(trained_base)
        latents = list(kept.encode(encoder.pieces("def f(x):\n    return x\n" * 2)))
        want = assemble(module.decoder, kept.spec, kept.sink, latents, reads=module.adapter.sets)
        assert torch.equal(module(IDS, memory=want).logits, got)
        assert not torch.allclose(decoder(IDS, **memory).logits, got)
        assert torch.equal(own(IDS).logits, base(IDS).logits)
        weights = own(IDS, **memory).memory_attention_weights
        assert weights.keys() == set(module.adapter.layers)
        assert own.ask("What is f?", *memory.values(), max_new_tokens=2).attention["f.py"] == pytest.approx(1.0)


def test_the_memory_is_one_that_attached_takes(decoder, encoder, memory):
    made = decoder.memory(*memory.values())
    assert isinstance(made, Memory)
    assert [span.name for span in made.spans] == [SINK, "0", "1"]
    with torch.no_grad():
        want = decoder(IDS, output_memory_attention=False, **memory).logits
        with attached(encoder.model, made):
            assert torch.equal(encoder.model(IDS).logits, want)
    keys, values = encoder.encode_document("")
    assert decoder.memory(keys, values) is None
