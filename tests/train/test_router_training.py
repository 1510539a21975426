"""Training of term vectors: on code whose comments say in other words what it does."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from awareness.config.read import read_config
from awareness.config.routers import RouterConfig
from awareness.errors import UsageError
from awareness.index.search.term_vectors import SHIPPED, TermEmbedder
from awareness.train.router_training import Bags, info_nce, neighbours, train_router

MEANINGS = [("erase", "unlink"), ("paint", "canvas"), ("login", "password"), ("wait", "sleep"), ("count", "tally")]


@pytest.fixture
def folders(tmp_path):
    """Packages in which `erase` is said of code with `unlink`, and so on, among words that tell nothing."""
    rng = random.Random(0)
    for package in range(6):
        (tmp_path / f"p{package}").mkdir()
        for number in range(60):
            (said, done), other = rng.choice(MEANINGS), rng.choice("alpha beta gamma delta".split())
            lines = [f"def f{number}(a):", f'    """Please {said} the {other} thing now."""']
            lines += [f"    x = {done}(a)", f"    y = x + {number}", "    return keep(x, y)"]
            (tmp_path / f"p{package}" / f"m{number}.py").write_text("\n".join(lines))
    return tmp_path


def config(folders, **changes):
    return RouterConfig.model_validate(
        {
            "task": "router",
            "data": {"folders": [str(folders / "p*")], "held_out": 0.34, "names": 0.0},
            "model": {"start": "none", "dim": 16, "vocabulary": 200},
            "training": {"steps": 150, "batch_size": 32, "folders_per_batch": 2, "learning_rate": 0.02},
            "output": str(folders / "out" / "router.safetensors"),
        }
        | changes
    )


def cosine(embedder, a, b):
    x, y = embedder.query([a]), embedder.documents([{b: 1}])[0]
    code = np.frombuffer(y, dtype=np.int8).astype(float)
    return float(np.dot(x, code) / np.linalg.norm(code))


def test_it_learns_what_words_mean(folders):
    lines: list[str] = []
    done = train_router(config(folders), log=lines.append)
    assert done.held_out == 2 and done.folders == 6 and done.pairs > 200
    assert done.after > 1.5 * done.before
    embedder = TermEmbedder(folders / "out" / "router.safetensors")
    assert cosine(embedder, "eras", "unlink") > cosine(embedder, "eras", "canva") + 0.3
    assert len(lines) == 4
    terms = [embedder.term(row) for row in range(embedder.terms)]
    assert np.median([embedder.importance(term) for term in terms]) == pytest.approx(2.25, rel=0.02)


def test_training_continues_from_the_shipped_vectors(folders):
    settings = config(folders, model={"start": "shipped", "vocabulary": 40_000}, training={"steps": 1, "batch_size": 8})
    train_router(settings)
    trained, shipped = TermEmbedder(settings.output), TermEmbedder(SHIPPED)
    assert trained.dim == shipped.dim and trained.terms >= shipped.terms
    known = shipped.query(["delet", "file"])
    assert np.dot(trained.query(["delet", "file"]), known) > 0.99
    assert trained.fingerprint != shipped.fingerprint


def test_initial_vectors_from_an_embedding_model(folders):
    asked: list[str] = []

    def embed(words):
        asked.extend(words)
        return np.random.default_rng(0).normal(size=(len(words), 24)).astype(np.float32)

    train_router(config(folders, training={"steps": 1, "batch_size": 8}), embed_words=embed)
    assert "unlink" in asked


def test_too_few_pairs(tmp_path):
    (tmp_path / "p0").mkdir()
    with pytest.raises(UsageError, match="no comments about code"):
        train_router(config(tmp_path))


def test_take_bags():
    bags = Bags.of([[(5, 1), (6, 300)], [(7, 2)], [(8, 1), (9, 1)]])
    terms, counts, owners = bags.take(np.array([2, 0]))
    assert terms.tolist() == [8, 9, 5, 6]
    assert counts.tolist() == [1, 1, 1, 255]
    assert owners.tolist() == [0, 0, 1, 1]


def test_neighbours_follow_each_other():
    pairs = np.arange(100, 200)
    for seed in range(20):
        taken = neighbours(pairs, 40, 8, np.random.default_rng(seed))
        assert 30 <= len(taken) <= 40 and len(set(taken)) == len(taken)
        assert sum(np.diff(np.sort(taken)) == 1) >= 29  # five runs of eight, of which one may be short or turned
    assert sorted(neighbours(pairs, 200, 1, np.random.default_rng(0))) == list(pairs)
    assert sorted(neighbours(pairs[:3], 40, 8, np.random.default_rng(0))) == list(pairs[:3])


def test_every_pair_is_taken_as_often():
    generator = np.random.default_rng(0)
    taken = np.concatenate([neighbours(np.arange(50), 16, 8, generator) for _ in range(4000)])
    counts = np.bincount(taken, minlength=50)
    assert counts.min() > 0.9 * counts.mean() and counts.max() < 1.1 * counts.mean()


def test_pairs_of_one_chunk_are_no_negatives():
    rng = torch.Generator().manual_seed(0)
    queries, answers = (torch.nn.functional.normalize(torch.randn(3, 8, generator=rng), dim=-1) for _ in range(2))
    sharpness = torch.tensor(1.0)
    logits = queries @ answers.T * sharpness.exp()
    own = [logits[i, i] for i in range(3)]
    loss = info_nce(queries, answers, sharpness, np.array([4, 7, 4]))
    rows = [(0, [0, 1]), (1, [0, 1, 2]), (2, [1, 2])]
    forth = [torch.logsumexp(logits[i, others], 0) - own[i] for i, others in rows]
    back = [torch.logsumexp(logits[others, i], 0) - own[i] for i, others in rows]
    assert loss == pytest.approx((sum(forth) / 3 + sum(back) / 3).item() / 2, rel=1e-5)
    assert loss < info_nce(queries, answers, sharpness)


@pytest.mark.parametrize(
    ("text", "settings", "says"),
    [
        ("task: router\ndata: {folders: [a]}\ntrainin: {}", [], r"trainin: no such setting; did you mean training\?"),
        ("task: router\ndata: {folders: []}", [], "data.folders"),
        ("task: router\ndata: {folders: [a]}", ["training.steps=0"], r"training.steps.*got 0"),
        ("task: router", [], "data: is required"),
        ("task: sing", [], "task: there is no such task .got 'sing'.; known: router, memory"),
        ("- a", [], "has no settings"),
        ("a: [", [], "can't be read as YAML"),
        ("task: router\ndata: {folders: [a]}", ["steps"], "'steps' is not a setting"),
        ("task: router\ndata: {folders: [a]}", ["task.x=1"], "is not a section"),
        ("task: router\ndata: {folders: [a]}\noutput: x.bin", [], "output"),
        ("task: hidden_router\ndata: {folders: [a]}", [], "task: hidden_router was removed"),
    ],
)
def test_errors_name_the_place_in_the_file(tmp_path, text, settings, says):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_config(path, settings)


def test_the_shipped_config_is_read(request):
    path = request.config.rootpath / "configs" / "router.yaml"
    assert read_config(path, ["training.seed=3"]).training.seed == 3
