"""Training of the head for hidden states, on pairs that a tiny decoder can tell apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from awareness.errors import UsageError
from awareness.model.fusion import fuse
from awareness.model.hidden import HiddenStateEmbedder
from awareness.model.load import Decoder
from awareness.model.sources import ModelFolder
from awareness.train.data.pairs import Pair
from awareness.train.routers.hidden import StatePairs, States, _batches, mean_reciprocal_rank, train_head, train_hidden
from awareness.types import Chunk
from tests.conftest import tiny_model, tiny_tokenizer


def test_states_of_texts_come_back_padded():
    rows = [torch.full((n, 3), float(n)) for n in (2, 1, 4)]
    states, mask = States.of(rows).take(np.array([2, 0]))
    assert states.shape == (2, 4, 3)
    assert mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert states[1][mask[1]].tolist() == [[2.0] * 3] * 2


def made_up_pairs(packages: int = 12, each: int = 40) -> StatePairs:
    """The same random direction is in what is said and in the code, among other tokens, and turned."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.randn(16, 16, generator=generator)
    said, code = [], []
    for _ in range(packages * each):
        meaning = 3 * torch.randn(16, generator=generator)
        said.append(torch.stack([meaning, torch.zeros(16)]))
        code.append(torch.cat([torch.randn(3, 16, generator=generator) * 0.1, (meaning @ turn)[None]]))
    return StatePairs(States.of(said), States.of(code), np.repeat(np.arange(packages), each))


def test_a_head_learns_what_pairs_share():
    pairs, lines = made_up_pairs(), []
    options = {"dim": 16, "epochs": 12, "batch_size": 40, "learning_rate": 1e-2}
    head, before, mrr = train_head(pairs, {0, 1}, log=lines.append, **options)
    assert mrr > 2 * before > 0
    assert mean_reciprocal_rank(head, pairs, {0, 1}) == pytest.approx(mrr)
    assert mean_reciprocal_rank(head, pairs, set()) == 0
    assert len(lines) == 13


def test_training_is_the_same_again():
    first, second = (train_head(made_up_pairs(2, 8), set(), epochs=2, seed=1)[0].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_half_a_batch_is_of_one_package():
    groups = [np.arange(100), np.arange(100, 180), np.arange(180, 190)]
    batches = _batches(groups, 64, np.random.default_rng(0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(190))
    assert all(len(batch) <= 64 for batch in batches)
    assert all(np.unique(np.searchsorted([100, 180], batch, "right")).size <= 3 for batch in batches)


def test_nothing_to_learn_from():
    with pytest.raises(UsageError, match="no pair to learn from"):
        train_head(made_up_pairs(2, 4), {0, 1})


def test_from_pairs_to_an_embedder(tmp_path):
    decoder = Decoder(fuse(tiny_model("llama")), tiny_tokenizer(), ModelFolder("tiny", tmp_path, "print"))
    packages = [[Pair(f"says {n} {p}", Chunk("a.py", 1, 1, f"f{n}", f"x = {n}")) for n in range(6)] for p in range(3)]
    embedder, _, mrr = train_hidden(decoder, packages, layer=3, held_out=1, dim=8, epochs=2)
    assert isinstance(embedder, HiddenStateEmbedder)
    assert embedder.question("says 1").shape == (8,)
    assert 0 < mrr <= 1
