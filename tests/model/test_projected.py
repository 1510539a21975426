"""The projected encoder: bidirectional, in windows for long texts; only its heads are trained."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import BertConfig, BertModel

from awareness.errors import UsageError
from awareness.model.assemble import assemble
from awareness.model.encoder import SelfEncoder
from awareness.model.fusion import attached, fuse
from awareness.model.model_files import ModelFolder
from awareness.model.projected import ProjectedEncoder
from awareness.model.quantisation import to_tensor
from awareness.model.text_embedder import TextEmbedder
from awareness.types import KVEncoder
from tests.conftest import tiny_model
from tests.model.test_text_embedder import SIZES, word_tokenizer

LAYERS = (1, 3, 4)
LIMIT = 24  # tokens that the tiny BERT reads, with its two special ones
TEXTS = ["x = 1\n", "def login(self):\n    return 7\n", "y"]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory) -> TextEmbedder:
    folder = tmp_path_factory.mktemp("models") / "bert"
    torch.manual_seed(0)
    config = BertConfig(vocab_size=120, max_position_embeddings=LIMIT, initializer_range=0.3, **SIZES)
    BertModel(config).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return TextEmbedder(ModelFolder("tiny bert", folder, "print of bert"), dtype=torch.float32)


@pytest.fixture(params=["decoder", "embedder"])
def backbone(request, embedder) -> TextEmbedder | None:
    """What `embedder=` is given: None is the decoder itself."""
    return embedder if request.param == "embedder" else None


def encoder_of(model, tokenizer, embedder=None, **options) -> ProjectedEncoder:
    torch.manual_seed(3)
    options = {"layers": LAYERS, "fingerprint": "test", **options}
    return ProjectedEncoder(fuse(model), tokenizer, embedder=embedder, **options)


def latents(encoder, texts=TEXTS) -> list[bytes]:
    return [bytes(latent.data) for latent in encoder.encode(texts)]


def keys_values(encoder, *texts) -> list[torch.Tensor]:
    with torch.no_grad():
        return encoder.keys_values(texts)


def moved(one, other) -> list[bool]:
    """Which tokens' keys (of any set) are not the same."""
    return [bool(by > 1e-3) for by in (one[0] - other[0]).abs().amax(dim=(0, 1, 3))]


def test_latents_have_the_geometry_of_the_decoder(model, tokenizer, backbone):
    encoder = encoder_of(model, tokenizer, backbone)
    checked: KVEncoder = encoder
    assert (checked.spec.layers, checked.spec.num_kv_heads, checked.spec.head_dim) == (LAYERS, 2, 8)
    assert (checked.spec.model, checked.spec.encoder[:10], len(checked.spec.encoder)) == ("test", "projected:", 26)
    assert checked.sink.tokens == 0
    assert to_tensor(checked.sink, checked.spec.raw).shape == checked.spec.shape(0)
    for text, latent, kv in zip(TEXTS, checked.encode(TEXTS), keys_values(encoder, *TEXTS), strict=True):
        assert latent.tokens == len(text)  # a byte is a token, and special tokens are left out
        assert kv.shape == checked.spec.shape(len(text))
        # without gradients, and with: other kernels, so that one may round a bfloat16 up and the other down
        torch.testing.assert_close(to_tensor(latent, checked.spec), kv.bfloat16(), atol=1e-3, rtol=2**-7)
    memory = assemble(model, checked.spec, checked.sink, list(checked.encode(TEXTS)))
    prompt = torch.tensor([[40, 41, 42]])
    with torch.no_grad():
        base = model(prompt).logits
        with attached(model, memory):
            assert (model(prompt).logits - base).abs().max() > 1e-3


def test_copied_heads_give_the_keys_and_values_of_the_decoder_itself(model, tokenizer):
    """A single token sees the same through either mask, and no mask reaches what the first layer reads."""
    encoder = encoder_of(model, tokenizer, layers=range(6))
    own = SelfEncoder(model, tokenizer, fingerprint="test", sink=[], layers=range(6))
    (one,), (want,) = keys_values(encoder, "x"), keys_values(own, "x")
    assert torch.allclose(one, want, atol=1e-5)
    (text,), (want,) = keys_values(encoder, TEXTS[1]), keys_values(own, TEXTS[1])
    assert torch.allclose(text[:, 0], want[:, 0], atol=1e-5)
    assert not torch.allclose(text[:, 1], want[:, 1], atol=1e-2)


def test_keys_and_values_are_made_of_the_states_of_the_texts_own_tokens(tokenizer, embedder):
    encoder = encoder_of(tiny_model("qwen2"), tokenizer, embedder)
    ids = embedder.tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = embedder.model(ids).last_hidden_state[0, 1:-1]  # without [CLS] and [SEP]
    (got,) = keys_values(encoder, TEXTS[0])
    for side, heads in enumerate((encoder.key_heads, encoder.value_heads)):
        for i, head in enumerate(heads):
            want = (states @ head.weight.T).view(len(TEXTS[0]), 2, 8).transpose(0, 1)
            assert torch.allclose(got[side, i], want, atol=1e-5)


def test_layers_above_the_last_set_are_not_run(tokenizer):
    model = tiny_model("llama")
    encoder = encoder_of(model, tokenizer)
    model.model.layers[LAYERS[-1]].self_attn.register_forward_hook(lambda *_: pytest.fail("it was run"))
    assert len(latents(encoder)) == len(TEXTS)


def test_random_heads_have_std_and_no_bias(model, tokenizer, embedder):
    for encoder in (
        encoder_of(model, tokenizer, init="zero", std=0.5),
        encoder_of(model, tokenizer, embedder, init="copy", std=0.5),
    ):
        weights = torch.cat([p.detach().flatten() for p in encoder.parameters()])
        assert weights.std().item() == pytest.approx(0.5, rel=0.05)
        assert weights.mean().abs() < 0.03
        assert {name.rpartition(".")[2] for name, _ in encoder.named_parameters()} == {"weight"}


def test_projected_is_bidirectional_and_self_is_causal(model, tokenizer, backbone):
    encoder = encoder_of(model, tokenizer, backbone)
    one, other = keys_values(encoder, "abcdef", "abcdeX")
    assert moved(one, other) == [True] * 6
    own = SelfEncoder(model, tokenizer, fingerprint="test", layers=LAYERS)
    one, other = keys_values(own, "abcdef", "abcdeX")
    assert moved(one, other) == [False] * 5 + [True]


def test_padding_changes_nothing(model, tokenizer, backbone):
    encoder = encoder_of(model, tokenizer, backbone, batch_tokens=4096)
    for text, together in zip(TEXTS, keys_values(encoder, *TEXTS), strict=True):
        assert torch.allclose(together, keys_values(encoder, text)[0], atol=1e-5)


@pytest.mark.parametrize("texts", [[""], ["", "abc"]])
def test_an_empty_text_is_no_tokens_and_no_nan(tokenizer, backbone, texts):
    encoder = encoder_of(tiny_model("llama"), tokenizer, backbone)
    assert [latent.tokens for latent in encoder.encode(texts)] == [len(text) for text in texts]
    sum(kv.sum() for kv in encoder.keys_values(texts)).backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("limit", [LIMIT, 12])
def test_long_text_is_read_in_windows(tokenizer, embedder, monkeypatch, limit):
    """As long as the model can read, or as long as its tokenizer says that it should."""
    monkeypatch.setattr(embedder.tokenizer, "model_max_length", 1 << 40 if limit == LIMIT else limit)
    encoder = encoder_of(tiny_model("qwen3"), tokenizer, embedder)
    window = limit - 2  # [CLS] and [SEP]
    text = "".join(chr(40 + i % 60) for i in range(2 * window + 5))
    parts = [text[:window], text[window : 2 * window], text[2 * window :]]
    whole, *apart = keys_values(encoder, text, *parts)
    assert whole.shape[3] == len(text)
    assert torch.allclose(whole, torch.cat(apart, dim=3), atol=1e-5)
    assert [latent.tokens for latent in encoder.encode(["a", text, "bc"])] == [1, len(text), 2]


def test_the_decoder_reads_windows_of_its_own_length(tokenizer):
    model = tiny_model("llama")
    model.config.max_position_embeddings = 16
    encoder = encoder_of(model, tokenizer)
    whole, *apart = keys_values(encoder, "abcdefghijklmnopqrs", "abcdefghijklmnop", "qrs")
    assert torch.allclose(whole, torch.cat(apart, dim=3), atol=1e-5)


def test_batches_of_windows_stay_within_the_limit(tokenizer, embedder):
    encoder = encoder_of(tiny_model("llama"), tokenizer, embedder, batch_tokens=60)
    sizes = []
    handle = embedder.model.register_forward_pre_hook(
        lambda m, args, options: sizes.append(tuple(options["input_ids"].shape)), with_kwargs=True
    )
    found = list(encoder.encode(["a", "b" * 66, "c", "d" * 10]))
    handle.remove()
    assert [latent.tokens for latent in found] == [1, 66, 1, 10]
    assert sizes == [(2, 24), (2, 24), (2, 12)]


def test_special_tokens_in_a_text_are_text(tokenizer, embedder):
    encoder = encoder_of(tiny_model("llama"), tokenizer, embedder)
    assert [latent.tokens for latent in encoder.encode(["a[SEP]b"])] == [7]


def test_only_heads_learn_and_then_latents_and_their_name_change(model, tokenizer, backbone):
    """Also where the decoder itself is being trained: it is read as it is."""
    assert all(p.requires_grad for p in model.parameters())
    encoder = encoder_of(model, tokenizer, backbone)
    kinds = ["weight", "bias"] if backbone is None and type(model).__name__ == "Qwen2ForCausalLM" else ["weight"]
    names = [f"{side}_heads.{i}.{kind}" for side in ("key", "value") for i in range(3) for kind in kinds]
    assert [name for name, p in encoder.named_parameters() if p.requires_grad] == names
    assert list(encoder.state_dict()) == names
    spec, before = encoder.spec, latents(encoder)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.1, fused=True)  # changes tensors without a trace
    target = torch.linspace(-1, 1, 8)  # a loss that the scale of a normed key is not all of
    sum((kv * target).sum(-1).square().mean() for kv in encoder.keys_values(TEXTS)).backward()
    assert all(p.grad.abs().sum() > 0 for p in encoder.parameters())
    others = [*model.parameters(), *(backbone.model.parameters() if backbone else ())]
    assert all(p.grad is None for p in [*others, *(p for norm in encoder._key_norms for p in norm.parameters())])
    optimizer.step()
    assert all(a != b for a, b in zip(before, latents(encoder), strict=True))
    assert encoder.spec.encoder != spec.encoder
    assert encoder.spec.latent_key("chunk") != spec.latent_key("chunk")


def test_heads_are_copies(model, tokenizer):
    encoder = encoder_of(model, tokenizer)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for p in [*encoder.parameters(), *(p for norm in encoder._key_norms for p in norm.parameters())]:
            p += 1
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_saved_and_loaded_they_give_the_same_bytes(model, tokenizer, backbone, tmp_path):
    encoder = encoder_of(model, tokenizer, backbone, init="zero")
    torch.save(encoder.state_dict(), tmp_path / "heads.pt")
    torch.manual_seed(4)
    other = ProjectedEncoder(model, tokenizer, fingerprint="test", layers=LAYERS, embedder=backbone, init="zero")
    assert other.spec != encoder.spec
    other.load_state_dict(torch.load(tmp_path / "heads.pt"))
    assert other.spec == encoder.spec
    assert latents(other) == latents(encoder)


def test_the_spec_names_the_backbone(tokenizer, embedder):
    model = tiny_model("llama")
    names = [encoder_of(model, tokenizer, other, init="zero").spec.encoder for other in (None, embedder)]
    same_size = copy.copy(embedder)
    same_size.folder = ModelFolder("another", embedder.folder.path, "another print")
    names.append(encoder_of(model, tokenizer, same_size, init="zero").spec.encoder)
    assert len(set(names)) == 3


def test_it_works_in_the_dtype_of_the_decoder(tokenizer, backbone):
    encoder = encoder_of(tiny_model("qwen3").bfloat16(), tokenizer, backbone)
    assert {kv.dtype for kv in encoder.keys_values(TEXTS)} == {torch.bfloat16}
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


def test_storing_as_keeps_the_heads(tokenizer):
    encoder = encoder_of(tiny_model("llama"), tokenizer)
    other = encoder.storing_as("int8")
    assert other.spec.raw == encoder.spec
    assert [p.data_ptr() for p in other.parameters()] == [p.data_ptr() for p in encoder.parameters()]
    assert len(next(other.encode(TEXTS)).data) == other.spec.latent_bytes(len(TEXTS[0]))


def test_a_causal_embedding_model_is_refused(tokenizer, model_folder):
    causal = TextEmbedder(ModelFolder("tiny qwen", model_folder, "print"), dtype=torch.float32)
    with pytest.raises(UsageError, match="tiny qwen reads one way only") as raised:
        encoder_of(tiny_model("llama"), tokenizer, causal)
    assert "encoder_model" in raised.value.hint
