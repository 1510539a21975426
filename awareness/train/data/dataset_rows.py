"""Rows of tokens from a Hugging Face data set: documents to continue, or chats whose assistant turns are learned.

The split is tokenized once, into a file in the cache of `datasets`; name a part of a large one, `train[:1%]`. Texts
never become special tokens (model/prompts.py); only the chat template may write those.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xxhash
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from awareness.config.training import TrainingConfig
from awareness.errors import UsageError
from awareness.model.prompts import encode
from awareness.train.data.dataset_split import SPLIT_HINT, open_split
from awareness.types import Progress, digest, silent

if TYPE_CHECKING:
    from datasets import Dataset

IGNORED = -100
"""Label of a token that is not learned, as transformers has it."""
ROLES = ("system", "developer", "user", "assistant", "tool")
FORMS = (("messages",), ("prompt", "completion"), ("instruction", "output"), ("question", "answer"))
"""Columns that hold a chat: all turns, or the user's words and the answer. `instruction` may have an `input`."""
VERSION = 1  # of the cached tokens; raise it when the same text gives other rows
_MARK = "\u241e{}\u241e"  # placeholder of a turn's words while the chat template is rendered
_MARKED = re.compile("\u241e(\\d+)\u241e")
_MODE_HINT = "--set training.training_mode=pretraining"
_Batch = Mapping[str, Sequence[Any]]
_Rows = Callable[[_Batch, Sequence[int]], dict[str, list[list[int]]]]


@dataclass(frozen=True)
class TextRow:
    """labels: one for each id, the id itself where it is learned, else `IGNORED`. The model shifts them."""

    ids: list[int]
    labels: list[int]


class TextStream:
    """`length` rows of a split, over as many epochs as that takes.

    Row i depends on (data, seed, i) alone, so a run can resume at any row. Each epoch has its own order and holds every
    document once. rows: of one epoch.
    """

    def __init__(
        self,
        config: TrainingConfig,
        tokenizer: PreTrainedTokenizerFast,
        *,
        length: int,
        split: str,
        progress: Progress = silent,
    ) -> None:
        """Raises UsageError, or ModelNotAvailable if the data set cannot be fetched."""
        progress("reading the data set", 0, None)
        self._data = _tokenized(open_split(config, split), config, tokenizer, progress).with_format("numpy")
        self._length, self._seed, self._max_length = length, config.seed, config.max_length
        self._sizes: np.ndarray | None = None  # tokens of each document, where documents are packed
        self.rows = len(self._data)
        if config.training_mode == "pretraining":
            import pyarrow.compute

            self._sizes = pyarrow.compute.list_value_length(self._data.data.column("ids")).to_numpy()
            # A last row of one token predicts nothing.
            self.rows = max(0, -(-(int(self._sizes.sum()) - 1) // config.max_length))
        if not self.rows:
            raise UsageError(f"nothing to learn in split '{split}' of {config.dataset_name}", hint=SPLIT_HINT)
        self._epoch = self._order(0)

    def __len__(self) -> int:
        return self._length

    def digest(self) -> str:
        """Of the tokens of all documents, in hex. It does not depend on how they are stored in parts."""
        lengths, tokens = xxhash.xxh3_128(), xxhash.xxh3_128()
        for name in sorted(self._data.column_names):
            for part in self._data.data.column(name).chunks:
                lengths.update(part.value_lengths().to_numpy())
                tokens.update(part.flatten().to_numpy())
        return lengths.hexdigest() + tokens.hexdigest()

    def __getitem__(self, i: int) -> TextRow:
        if not 0 <= i < self._length:
            raise IndexError(f"row {i} of {self._length}")
        epoch, row = divmod(i, self.rows)
        if self._epoch[0] != epoch:
            self._epoch = self._order(epoch)
        _, order, ends = self._epoch
        if self._sizes is None:
            tokens = self._data[int(order[row])]
            return TextRow(tokens["ids"].tolist(), tokens["labels"].tolist())
        ids = self._packed(order, ends, row * self._max_length)
        return TextRow(ids, list(ids))

    def _order(self, epoch: int) -> tuple[int, np.ndarray, np.ndarray]:
        """(epoch, documents in its order, number of tokens up to the end of each; empty if they are not packed)."""
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._data))
        return epoch, order, np.cumsum(self._sizes[order], dtype=np.int64) if self._sizes is not None else order[:0]

    def _packed(self, order: np.ndarray, ends: np.ndarray, start: int) -> list[int]:
        """max_length tokens, or as many as are left, from token `start` of all documents joined."""
        stop = min(start + self._max_length, int(ends[-1]))
        ids: list[int] = []
        place = int(np.searchsorted(ends, start, side="right"))
        while start < stop:
            document = self._data[int(order[place])]["ids"]
            first = start - (int(ends[place]) - len(document))
            ids += document[first : first + stop - start].tolist()
            start, place = int(ends[place]), place + 1
        return ids


def _tokenized(
    split: Dataset, config: TrainingConfig, tokenizer: PreTrainedTokenizerFast, progress: Progress
) -> Dataset:
    """Columns `ids` and, for chats, `labels`, without rows that have nothing to learn."""
    import datasets

    packs = config.training_mode == "pretraining"
    rows_of = (_documents if packs else _chats)(split, config, tokenizer)

    def rows(batch: _Batch, places: Sequence[int]) -> dict[str, list[list[int]]]:
        progress("tokenizing", places[-1] + 1, len(split))
        return rows_of(batch, places)

    ids = datasets.List(datasets.Value("int32"))
    made_by = (tokenizer.backend_tokenizer.to_str(), str(tokenizer.chat_template), str(tokenizer.eos_token_id))
    settings = (str(VERSION), config.training_mode, config.text_field, "" if packs else str(config.max_length))
    fingerprint = digest(split._fingerprint, *made_by, *settings)[:32]
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "awareness"
    folder.mkdir(parents=True, exist_ok=True)
    return split.map(
        rows,
        with_indices=True,
        batched=True,
        remove_columns=split.column_names,
        features=datasets.Features({"ids": ids} if packs else {"ids": ids, "labels": ids}),
        cache_file_name=str(folder / f"{fingerprint}.arrow"),
        load_from_cache_file=True,
        new_fingerprint=fingerprint,
    )


def _documents(split: Dataset, config: TrainingConfig, tokenizer: PreTrainedTokenizerFast) -> _Rows:
    """Texts of the text field -> ids, each followed by the end-of-text token."""
    field, columns = config.text_field, split.column_names
    if field not in columns:
        message = f"training.text_field: {config.dataset_name} has no column '{field}', only {', '.join(columns)}"
        raise UsageError(message, hint=f"--set training.text_field={columns[0]}")
    # The eos_token of a chat model ends a turn; texts end with the token that its base model was trained with.
    end = tokenizer.get_added_vocab().get("<|endoftext|>", tokenizer.eos_token_id)
    if end is None:
        raise UsageError("the tokenizer has no end-of-text token", hint="--set model=…, with one that has")

    def rows(batch: _Batch, places: Sequence[int]) -> dict[str, list[list[int]]]:
        for text, place in zip(batch[field], places, strict=True):
            if text is not None and not isinstance(text, str):
                message = f"row {place} of {config.dataset_name}: {field} is not a text but {text!r:.60}"
                raise UsageError(message, hint="--set training.text_field=COLUMN, a column of texts")
        return {"ids": [[*encode(tokenizer, text), end] for text in batch[field] if text]}

    return rows


def _chats(split: Dataset, config: TrainingConfig, tokenizer: PreTrainedTokenizerFast) -> _Rows:
    """Chats -> ids and labels, cut at max_length. The assistant's words and the ends of its turns are learned."""
    columns = split.column_names
    form = next((form for form in FORMS if {*form} <= {*columns}), None)
    if form is None:
        forms = ", or ".join(" and ".join(form) for form in FORMS)
        message = f"{config.dataset_name} has columns {', '.join(columns)}, and none of {forms}"
        raise UsageError(f"{message}; text_field {config.text_field} is for pretraining", hint=_MODE_HINT)
    if not tokenizer.chat_template:
        raise UsageError("the model's tokenizer has no chat template", hint=_MODE_HINT)
    template = ChatTemplate(tokenizer)
    read = [*form, *({"input"} & {*columns} if "instruction" in form else ())]

    def rows(batch: _Batch, places: Sequence[int]) -> dict[str, list[list[int]]]:
        made: dict[str, list[list[int]]] = {"ids": [], "labels": []}
        for place, *values in zip(places, *(batch[column] for column in read), strict=True):
            try:
                turns = _turns(values)
                ids, labels = template.render(turns) if turns else ([], [])
            except (ValueError, TemplateError) as error:
                message = f"row {place} of {config.dataset_name}: {error}"
                raise UsageError(message, hint="repair that row, or leave it out") from error
            ids, labels = ids[: config.max_length], labels[: config.max_length]
            if any(label != IGNORED for label in labels[1:]):  # nothing predicts the first token
                made["ids"].append(ids)
                made["labels"].append(labels)
        return made

    return rows


def _turns(values: Sequence[Any]) -> list[tuple[str, str]]:
    """[messages], or [the user's words, the answer, optionally the user's input] -> (role, content) of each turn.

    Raises ValueError for values that are not a chat.
    """
    if len(values) == 1:
        messages = values[0] or []
        if not all(isinstance(message, Mapping) for message in messages):
            raise ValueError(f"messages is not a list of role and content but {messages!r:.60}")
        turns = [(message.get("role"), message.get("content")) for message in messages]
    else:
        request, answer, extra = (*values, None)[:3]
        turns = [("user", f"{request}\n\n{extra}" if extra else request), ("assistant", answer)]
    for role, content in turns:
        if role not in ROLES:
            raise ValueError(f"role {role!r:.40} is not one of {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise ValueError(f"the {role}'s content is not a text but {content!r:.60}")
    return turns


class ChatTemplate:
    """Renders the tokenizer's chat template around the words of a chat, which are encoded separately."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._frames: dict[tuple[str, ...], tuple[list[int], list[tuple[int, list[int]]]]] = {}

    def render(self, turns: Sequence[tuple[str, str]]) -> tuple[list[int], list[int]]:
        """(role, content) of each turn -> (ids, labels). A turn ends with the first special token after its words.

        Raises TemplateError for an order of roles that the template refuses.
        """
        roles = tuple(role for role, _ in turns)
        if roles not in self._frames:
            self._frames[roles] = self._frame(roles)
        before, parts = self._frames[roles]
        ids, labels = list(before), [IGNORED] * len(before)
        for number, after in parts:
            role, content = turns[number]
            words = encode(self._tokenizer, content)
            ids += words + after
            end = next((n for n, i in enumerate(after, 1) if i in self._special), 0)
            learned = words + after[:end] if role == "assistant" else []
            labels += learned + [IGNORED] * (len(words) + len(after) - len(learned))
        return ids, labels

    def _frame(self, roles: tuple[str, ...]) -> tuple[list[int], list[tuple[int, list[int]]]]:
        """(ids before the first turn's words, [(number of a turn, ids after its words)])."""
        marked = [{"role": role, "content": _MARK.format(i)} for i, role in enumerate(roles)]
        text = cast(str, self._tokenizer.apply_chat_template(marked, tokenize=False))
        pieces = _MARKED.split(text)
        before, *after = [self._tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in pieces[::2]]
        return before, [(int(number), ids) for number, ids in zip(pieces[1::2], after, strict=True)]
