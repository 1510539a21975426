"""Train the term vectors of search (index/search/term_vectors.py) on pairs of a description and its code.

The loss is InfoNCE in both directions (van den Oord et al. 2018, arXiv 1807.03748). The other pairs of a batch are the
negatives; most of them come from the same few repositories, and some from the same file: those are the hard ones. Other
pairs of the same chunk are no negatives. Words of the description are dropped from the code at random, so that the
vectors learn meaning and not only equal words.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from awareness.config.routers import RouterConfig
from awareness.errors import UsageError
from awareness.index.search.routing_index import terms_of
from awareness.index.search.term_vectors import SHIPPED, TermEmbedder
from awareness.index.search.terms import query_terms, stem
from awareness.index.store.tensorfile import TensorInfo, write
from awareness.train.samples.pairs import chosen_pairs
from awareness.types import Progress, digest, silent

_MIN_CHUNKS = 8  # chunks a term must occur in to get a vector
_MIN_TERMS = (2, 5)  # of a description, of its code
_MAX_LENGTH = 32  # characters of a term
_EVAL_STEPS = 50  # steps between two evaluations
_EVAL_PAIRS = 300  # pairs of a held-out folder
_USUAL_IMPORTANCE = 2.25  # median of a term's weight in a question: evidence.py compares it with fixed numbers


@dataclass(frozen=True)
class TrainedRouter:
    """before, after: MRR of the code of a pair among that of its folder, mean over the held-out folders."""

    pairs: int
    folders: int
    held_out: int
    before: float
    after: float


@dataclass(frozen=True)
class Bags:
    """Bags of terms in one array: bag i is `terms[starts[i]:starts[i + 1]]`, with the count of each term."""

    terms: np.ndarray
    counts: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, bags: Sequence[Sequence[tuple[int, int]]]) -> Bags:
        flat = np.array([item for bag in bags for item in bag], dtype=np.int64).reshape(-1, 2)
        starts = np.concatenate([[0], np.cumsum([len(bag) for bag in bags])]).astype(np.int64)
        return cls(flat[:, 0].astype(np.int32), np.minimum(flat[:, 1], 255).astype(np.float32), starts)

    def take(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The bags of these indices: terms, counts, and for each term the position of its bag in `which`."""
        lengths = self.starts[which + 1] - self.starts[which]
        begins = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        at = np.repeat(self.starts[which] - begins, lengths) + np.arange(lengths.sum())
        return self.terms[at].astype(np.int64), self.counts[at], np.repeat(np.arange(len(which)), lengths)


@dataclass(frozen=True)
class Corpus:
    """Pairs as bags of terms, in the order of their files. folder, chunk: the number of each pair's. frequency: in how
    many bags a term occurs."""

    vocabulary: list[str]
    frequency: np.ndarray
    descriptions: Bags
    code: Bags
    folder: np.ndarray
    chunk: np.ndarray

    @property
    def pairs(self) -> int:
        return len(self.folder)


class TermVectors(nn.Module):
    """The trained module. vectors: [V, D]; query, document: [V], whose softplus are the weights of a term."""

    def __init__(self, vectors: torch.Tensor, query: torch.Tensor, document: torch.Tensor, temperature: float) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag.from_pretrained(vectors, freeze=False, mode="sum")
        self.query, self.document = nn.Parameter(query), nn.Parameter(document)
        self.sharpness = nn.Parameter(torch.tensor(math.log(1 / temperature)))

    def embed_descriptions(self, terms: np.ndarray, owners: np.ndarray, bags: int) -> torch.Tensor:
        """Unit vectors [bags, D] of descriptions."""
        return self._sum(terms, np.ones(len(terms), dtype=np.float32), owners, bags, self.query)

    def embed_code(self, terms: np.ndarray, counts: np.ndarray, owners: np.ndarray, bags: int) -> torch.Tensor:
        """Unit vectors [bags, D] of code."""
        return self._sum(terms, np.log1p(counts), owners, bags, self.document)

    def _sum(
        self, terms: np.ndarray, counts: np.ndarray, owners: np.ndarray, bags: int, weights: torch.Tensor
    ) -> torch.Tensor:
        offsets = torch.from_numpy(np.searchsorted(owners, np.arange(bags)))
        ids = torch.from_numpy(terms)
        weighted = torch.from_numpy(counts) * F.softplus(weights)[ids]
        return F.normalize(self.bag(ids, offsets, per_sample_weights=weighted), dim=-1)


def train_router(
    config: RouterConfig,
    *,
    embed_words: Callable[[Sequence[str]], np.ndarray] | None = None,
    progress: Progress = silent,
    log: Callable[[str], None] = lambda line: None,
) -> TrainedRouter:
    """Train a router and write it to `config.output`; with held-out folders the best one by their MRR.

    embed_words: words -> [n, D'], the initial vectors for `model.words_from`. Raises UsageError without enough pairs.
    """
    start = _start(config)
    corpus = collect(config, start, progress)
    generator = np.random.default_rng(config.training.seed)
    folders = generator.permutation(np.unique(corpus.folder))
    held_out = set(folders[: round(len(folders) * config.data.held_out)].tolist())
    groups = {f: np.flatnonzero(corpus.folder == f) for f in folders if f not in held_out}
    groups = {f: pairs for f, pairs in groups.items() if len(pairs) >= 2}
    if not groups:
        raise UsageError("no pair to learn from is left", hint="more data.folders, or a smaller data.held_out")
    measured = [np.flatnonzero(corpus.folder == f)[:_EVAL_PAIRS] for f in held_out]
    torch.manual_seed(config.training.seed)
    model = _new(config, corpus, start, embed_words)
    before = best = _mrr(model, corpus, measured)
    log(f"{corpus.pairs} pairs, {len(folders)} folders, {len(held_out)} held out, MRR {before:.4f}")
    kept = _state(model)
    for step, loss in enumerate(_steps(model, corpus, groups, config, generator), 1):
        progress("training", step, config.training.steps)
        if not math.isfinite(loss):
            raise UsageError(f"the loss is {loss} at step {step}", hint="a smaller training.learning_rate")
        if step % _EVAL_STEPS == 0 or step == config.training.steps:
            now = _mrr(model, corpus, measured)
            log(f"step {step}: loss {loss:.3f}, held-out MRR {now:.4f}")
            if now > best or not measured:
                best, kept = now, _state(model)
    model.load_state_dict(kept)
    _write(model, corpus, config.output)
    return TrainedRouter(corpus.pairs, len(folders), len(measured), before, best)


def collect(config: RouterConfig, start: TermEmbedder | None, progress: Progress = silent) -> Corpus:
    """Read the folders and choose the vocabulary: the terms of `start`, then the most frequent others."""
    frequency: Counter[str] = Counter()
    pairs: list[tuple[int, int, list[str], Counter[str]]] = []
    chunks: dict[tuple[int, str, int], int] = {}
    folders = 0
    for number, in_folder in enumerate(chosen_pairs(config.data, config.training.seed, progress)):
        folders += 1
        for pair in in_folder:
            words = list(dict.fromkeys(stem(word) for word in query_terms(pair.description)))
            counts, _ = terms_of(pair.chunk)
            frequency.update(counts.keys())
            frequency.update(words)
            place = (number, pair.chunk.path, pair.chunk.start_line)
            pairs.append((number, chunks.setdefault(place, len(chunks)), words, counts))
    known = [start.term(row) for row in range(start.terms)] if start else []
    room = max(len(known), config.model.vocabulary) - len(known)
    held = set(known)
    frequent = (t for t, n in frequency.most_common() if n >= _MIN_CHUNKS and t not in held and _has_meaning(t))
    vocabulary = known + [term for term, _ in zip(frequent, range(room), strict=False)]
    row = {term: at for at, term in enumerate(vocabulary)}
    description_bags, code_bags, of_folder, of_chunk = [], [], [], []
    for number, chunk, words, counts in pairs:
        query = [(row[term], 1) for term in words if term in row]
        answer = [(row[term], count) for term, count in counts.items() if term in row]
        if len(query) >= _MIN_TERMS[0] and len(answer) >= _MIN_TERMS[1]:
            description_bags.append(query)
            code_bags.append(answer)
            of_folder.append(number)
            of_chunk.append(chunk)
    if not of_folder:
        raise UsageError(f"no comments about code in {folders} folders", hint="data.folders: source code with comments")
    frequencies = np.array([frequency[term] for term in vocabulary], dtype=np.float32)
    bags = Bags.of(description_bags), Bags.of(code_bags)
    return Corpus(vocabulary, frequencies, *bags, np.array(of_folder), np.array(of_chunk))


def _has_meaning(term: str) -> bool:
    return not term.isdigit() and len(term) <= _MAX_LENGTH


def _start(config: RouterConfig) -> TermEmbedder | None:
    if config.model.start == "none":
        return None
    return TermEmbedder(SHIPPED if config.model.start == "shipped" else Path(config.model.start))


def _new(
    config: RouterConfig,
    corpus: Corpus,
    start: TermEmbedder | None,
    embed_words: Callable[[Sequence[str]], np.ndarray] | None,
) -> TermVectors:
    """The module before training: weights by rarity; vectors of `start`, of an embedding model, or random."""
    size, dim = len(corpus.vocabulary), start.dim if start else config.model.dim
    rarity = torch.from_numpy(np.log(2 * corpus.pairs / (corpus.frequency + 1)).astype(np.float32)) / 5
    vectors = torch.randn(size, dim) / math.sqrt(dim)
    query, document = rarity.clone(), rarity.clone()
    if start:
        known, weights = start.table()
        vectors[: start.terms] = torch.from_numpy(known)
        query[: start.terms], document[: start.terms] = (_unsoftplus(torch.from_numpy(w)) for w in weights)
    elif embed_words:
        vectors = _principal(torch.from_numpy(embed_words(corpus.vocabulary)), dim)
    return TermVectors(vectors, query, document, config.training.temperature)


def _principal(vectors: torch.Tensor, dim: int) -> torch.Tensor:
    """Project on the first `dim` principal components; rows have length 1."""
    centred = F.normalize(vectors.float(), dim=-1)
    centred = centred - centred.mean(0)
    _, _, directions = torch.linalg.svd(centred[:20_000], full_matrices=False)
    return F.normalize(centred @ directions[:dim].T, dim=-1).contiguous()


def _unsoftplus(weights: torch.Tensor) -> torch.Tensor:
    return torch.log(torch.expm1(weights.clamp(min=1e-4)))


def _steps(
    model: TermVectors,
    corpus: Corpus,
    groups: dict[int, np.ndarray],
    config: RouterConfig,
    generator: np.random.Generator,
) -> Iterator[float]:
    """Train, and yield the loss of each step."""
    training = config.training
    names = list(groups)
    likely = np.array([len(groups[name]) for name in names], dtype=float) ** 0.7
    likely /= likely.sum()
    share = max(2, training.batch_size // training.folders_per_batch)
    optimizer = torch.optim.Adam(
        [
            {"params": [model.bag.weight, model.query, model.document], "lr": training.learning_rate},
            {"params": [model.sharpness], "lr": 1e-2},
        ],
        fused=True,  # an eighth of the time of a step, which is mostly this
    )
    for step in range(training.steps):
        chosen = generator.choice(len(names), training.folders_per_batch, p=likely)
        parts = [neighbours(groups[names[i]], share, training.neighbours, generator) for i in chosen]
        pairs = np.unique(np.concatenate(parts))
        words, _, word_owner = corpus.descriptions.take(pairs)
        code, counts, code_owner = corpus.code.take(pairs)
        size = len(corpus.vocabulary)
        is_described = np.isin(code_owner * size + code, word_owner * size + words)
        kept = generator.random(len(code)) >= np.where(is_described, training.forget, 0.1)
        queries = model.embed_descriptions(words, word_owner, len(pairs))
        answers = model.embed_code(code[kept], counts[kept], code_owner[kept], len(pairs))
        loss = info_nce(queries, answers, model.sharpness, corpus.chunk[pairs])
        warm = min(1.0, (step + 1) / 50) * max(0.02, 1 - step / training.steps)
        optimizer.param_groups[0]["lr"] = training.learning_rate * warm
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def neighbours(pairs: np.ndarray, wanted: int, run: int, generator: np.random.Generator) -> np.ndarray:
    """About `wanted` of some pairs, in random runs of up to `run` that follow each other, so of few files."""
    turned = np.roll(pairs, generator.integers(len(pairs)))
    runs = math.ceil(len(pairs) / run)
    first = generator.choice(runs, min(max(1, wanted // run), runs), replace=False) * run
    at = (first[:, None] + np.arange(run)).ravel()
    return turned[at[at < len(pairs)]]


@torch.no_grad()
def _mrr(model: TermVectors, corpus: Corpus, measured: Sequence[np.ndarray]) -> float:
    """Mean reciprocal rank of a pair's code among the code of its folder; 0 without held-out folders."""
    ranks = []
    for pairs in measured:
        words, _, word_owner = corpus.descriptions.take(pairs)
        code, counts, code_owner = corpus.code.take(pairs)
        queries = model.embed_descriptions(words, word_owner, len(pairs))
        ranks.append(reciprocal_rank(queries, model.embed_code(code, counts, code_owner, len(pairs))))
    return sum(ranks) / len(ranks) if ranks else 0.0


@torch.no_grad()
def _write(model: TermVectors, corpus: Corpus, path: Path) -> None:
    """Write the file that `TermEmbedder` reads; its terms are sorted as bytes."""
    names = [term.encode("utf-8", "surrogatepass") for term in corpus.vocabulary]
    order = sorted(range(len(names)), key=names.__getitem__)
    vectors = model.bag.weight[order]
    scale = vectors.abs().amax(1).clamp(min=1e-9) / 127
    codes = torch.round(vectors / scale[:, None]).to(torch.int8)
    query = F.softplus(model.query)[order]
    query *= _USUAL_IMPORTANCE / (query * vectors.norm(dim=1)).median()  # no cosine changes
    tensors: dict[str, np.ndarray] = {
        "terms": np.frombuffer(b"".join(names[at] for at in order), dtype=np.uint8),
        "ends": np.cumsum([len(names[at]) for at in order]).astype(np.uint32),
        "vectors": codes.numpy().view(np.uint8),
        "query": (query * scale).numpy(),
        "document": (F.softplus(model.document)[order] * scale).numpy(),
    }
    kinds = {"uint8": "U8", "uint32": "U32", "float32": "F32"}
    infos = [TensorInfo(name, kinds[str(data.dtype)], data.shape) for name, data in tensors.items()]
    about = {"format": "awareness-router", "digest": digest(*(data.tobytes() for data in tensors.values()))[:32]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, infos, (data.tobytes() for data in tensors.values()), lambda checksums: about)


def info_nce(
    queries: torch.Tensor, answers: torch.Tensor, sharpness: torch.Tensor, chunks: np.ndarray | None = None
) -> torch.Tensor:
    """InfoNCE in both directions; the other rows are the negatives.

    queries, answers: unit vectors [B, D], row i of both is a pair. sharpness: log of 1 / temperature, learned; the
    factor is at most 100. chunks: [B], the number of each row's chunk; rows of one chunk are not compared.
    """
    logits = queries @ answers.T * sharpness.exp().clamp(max=100)
    if chunks is not None:
        alike = torch.from_numpy(chunks[:, None] == chunks[None, :]).fill_diagonal_(False)
        logits = logits.masked_fill(alike, -math.inf)
    own = torch.arange(len(queries))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def reciprocal_rank(queries: torch.Tensor, answers: torch.Tensor) -> float:
    """Mean reciprocal rank of each row's own answer among all answers; both [B, D]."""
    scores = queries @ answers.T
    ranks = (scores > scores.diag()[:, None]).sum(1) + 1
    return (1 / ranks.float()).mean().item()


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the tensors as they are now."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
