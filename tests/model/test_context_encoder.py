"""The public encoder: the numbers of the command line, as tensors that know which model made them."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.errors import UsageError
from awareness.model.checkpoint import save_checkpoint
from awareness.model.context_encoder import ContextEncoder
from awareness.model.encoder import SelfEncoder
from awareness.model.latent_tensor import LatentTensor, check_pair
from awareness.model.load import load
from awareness.model.memory_decoder import build_memory_decoder
from awareness.model.model_files import find
from awareness.model.quantisation import to_latent
from awareness.model.reasoning_decoder import ReasoningDecoder
from tests.conftest import tiny_model, tiny_tokenizer

TEXT = "def area(radius):\n    return 3 * radius ** 2\n"


@pytest.fixture(scope="module")
def encoder(model_folder):
    return ContextEncoder(str(model_folder), dtype=torch.float32, max_tokens=40)


@pytest.fixture(scope="module")
def adapter(model_folder, tmp_path_factory):
    """A checkpoint with two soft tokens before and one after each piece."""
    config = MemoryConfig(num_header_tokens=2, num_trailer_tokens=1)
    model = ModelConfig(base_model_name=str(model_folder))
    module, base = build_memory_decoder(model, config, pull=find, dtype=torch.float32)
    folder = tmp_path_factory.mktemp("trained") / "run"
    save_checkpoint(folder, module, base.folder, model)
    return folder


def test_keys_and_values_have_the_documented_shape(encoder):
    keys, values = encoder.encode_document("x = 1\n", name="a.py")
    assert keys.shape == values.shape == (5, 2, 6, 8)  # layers, kv_heads, tokens, head_dim
    assert keys.dtype == values.dtype == torch.bfloat16 and keys.device.type == "cpu"
    assert keys.spec == values.spec == encoder.spec
    assert [(span.name, span.start, span.stop) for span in keys.spans] == [("a.py", 0, 6)]


def test_they_are_the_latents_of_the_command_line_bit_for_bit(encoder, model_folder):
    decoder = load(find(str(model_folder)), dtype=torch.float32)
    for quant in ("none", "int8", "int4"):
        own = SelfEncoder(decoder.model, decoder.tokenizer, fingerprint=decoder.folder.fingerprint, quant=quant)
        text = TEXT[:40]
        (latent,) = own.encode([text])
        pair = check_pair(*encoder.encode_document(text))
        assert pair.spec == own.spec.raw
        assert bytes(to_latent(pair.tensor, own.spec).data) == bytes(latent.data)
    assert bytes(own.sink.data) == bytes(encoder.sink.data)


def test_a_long_document_is_cut_at_line_ends_and_nothing_is_left_out(encoder):
    text = TEXT * 3 + "z" * 100 + "\nend"
    pieces = encoder.pieces(text)
    assert "".join(pieces) == text
    assert [len(piece) for piece in pieces] == [18, 27, 18, 27, 18, 27, 40, 40, 24]
    keys, _ = encoder.encode_document(text, name="long.py")
    assert [span.stop - span.start for span in keys.spans] == [len(piece) for piece in pieces]
    assert {span.name for span in keys.spans} == {"long.py"}
    alone, _ = encoder.encode_document(pieces[1])
    assert torch.allclose(keys[:, :, 18:45].float(), alone.float(), atol=0.05)  # it does not see the other pieces
    again, _ = encoder.encode_document(pieces)
    assert torch.equal(again, keys)


@given(text=st.text(st.characters(codec="utf-8"), max_size=200), size=st.integers(4, 30))
@settings(max_examples=50, deadline=None)
def test_pieces_join_to_the_text_and_none_is_too_long(encoder, text, size):
    other = copy.copy(encoder)
    other.max_tokens = size  # a character has at most four tokens, one a byte
    pieces = other.pieces(text)
    assert "".join(pieces) == text
    assert all(0 < len(encoder.tokenizer.encode(piece)) <= size for piece in pieces)


def test_an_empty_document_has_no_tokens(encoder):
    keys, values = encoder.encode_document("")
    assert keys.shape == values.shape == (5, 2, 0, 8)
    assert keys.spans == ()


def test_the_result_of_an_operation_is_a_plain_tensor(encoder):
    keys, _ = encoder.encode_document(TEXT)
    for result in (keys[0], keys + 1, keys.float(), torch.cat([keys, keys], dim=2), keys.detach(), keys.sum()):
        assert type(result) is torch.Tensor
    for other in (copy.deepcopy(keys), pickle.loads(pickle.dumps(keys))):
        assert isinstance(other, LatentTensor) and torch.equal(other, keys)
        assert (other.spec, other.spans, other.model) == (keys.spec, keys.spans, keys.model)


def test_more_tokens_than_the_model_has_positions_for_are_refused(model_folder):
    with pytest.raises(UsageError, match=r"max_tokens is 5000; .* encodes 1 to 4"):
        ContextEncoder(str(model_folder), max_tokens=5000)
    with pytest.raises(UsageError, match="max_tokens is 0"):
        ContextEncoder(str(model_folder), max_tokens=0)


def test_an_unknown_model_is_refused():
    with pytest.raises(UsageError, match="'nosuch' is neither a preset"):
        ContextEncoder("nosuch")


def test_dtype_and_device(model_folder):
    encoder = ContextEncoder(str(model_folder), dtype=torch.bfloat16, device="cpu")
    assert (encoder.dtype, encoder.device.type) == (torch.bfloat16, "cpu")
    assert encoder.encode_document(TEXT)[0].isfinite().all()


def test_a_decoder_that_is_loaded_is_shared(model_folder):
    decoder = load(find(str(model_folder)))
    encoder = ContextEncoder(decoder)
    assert encoder.model is decoder.model and encoder.name == str(model_folder)


class TestAdapters:
    def test_its_encoder_is_used(self, adapter, encoder, model_folder):
        for own in (ContextEncoder(adapter=adapter), ContextEncoder(str(model_folder), adapter=adapter)):
            assert own.spec.encoder.startswith("self+soft:")
            keys, _ = own.encode_document("x = 1\n")
            assert keys.shape[2] == 2 + 6 + 1
            assert keys.spans[0].stop == 9

    def test_an_encoder_of_its_own_is_used(self, model_folder, encoder, tmp_path):
        model = ModelConfig(base_model_name=str(model_folder))
        module, base = build_memory_decoder(model, MemoryConfig(encoder="projected"), pull=find, dtype=torch.float32)
        save_checkpoint(tmp_path / "run", module, base.folder, model)
        own = ContextEncoder(adapter=tmp_path / "run", dtype=torch.float32)
        assert own.spec.encoder.startswith("projected:") and own.sink.tokens == 0
        text = "x = 1\n"
        keys, values = own.encode_document(text)
        (latent,) = module.encoder(base).encode([text])
        assert bytes(to_latent(check_pair(keys, values).tensor, own.spec).data) == bytes(latent.data)
        decoder = ReasoningDecoder(own)
        assert decoder(torch.tensor([[40, 41]]), memory_key=keys, memory_value=values).documents == ("document",)
        with pytest.raises(UsageError, match=r"encoder is self, not projected:.*, sink is"):
            decoder.memory(*encoder.encode_document(text))

    def test_one_of_another_model_is_refused(self, adapter, tmp_path):
        other = tmp_path / "other"
        tiny_model("llama").save_pretrained(other)
        tiny_tokenizer().save_pretrained(other)
        with pytest.raises(UsageError, match=r"was trained for .*tiny-qwen3 .* not for .*other"):
            ContextEncoder(str(other), adapter=adapter)

    def test_a_name_in_a_checkpoint_is_not_downloaded(self, adapter, tmp_path):
        copied = tmp_path / "run"
        copied.mkdir()
        for file in adapter.iterdir():
            (copied / file.name).write_bytes(file.read_bytes())
        config = (copied / "config.json").read_text()
        name = ContextEncoder(adapter=adapter).name
        (copied / "config.json").write_text(config.replace(name, "somebody/else"))
        with pytest.raises(UsageError, match="needs the model 'somebody/else'"):
            ContextEncoder(adapter=copied)
