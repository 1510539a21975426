"""`LatentMemoryStore`: encoded documents on disk, by id. Part of the public Python API.

It is an index's store (`index/store`), so documents get its shards, checksums, lock and crash safety. A document is
kept as a file of one chunk: its path is the id, its text is a JSON line with the metadata, the lengths of the pieces,
the MemorySpec and the digest of the latents.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awareness.errors import IndexCorrupt, UsageError
from awareness.index.chunks.chunking import chunk_file
from awareness.index.files.patterns import build_scope
from awareness.index.store.check import Report
from awareness.index.store.check import check as check_store
from awareness.index.store.garbage import collect_garbage
from awareness.index.store.layout import IndexLayout
from awareness.index.store.lock import writing
from awareness.index.store.shards import SHARD_BYTES
from awareness.index.store.store import IndexedFile, Store
from awareness.model.context_encoder import ContextEncoder
from awareness.model.encoder import with_quant
from awareness.model.latent_tensor import LatentPair, LatentTensor, check_model, check_pair, join_pieces
from awareness.model.quantisation import to_latent, to_tensor
from awareness.model.token_offsets import token_starts
from awareness.types import ENCODING_VERSION, QUANTS, Chunk, Latent, MemorySpec, Progress, digest, silent

MEMORY_FOLDER = "memory"
"""Where a checkpoint folder keeps its memory."""
_SNAPSHOT = _CHUNKING = "documents"
_AT_ONCE = 64  # documents
_LOST = "remove the document, or encode it and add it again"


@dataclass(frozen=True, eq=False)
class Document:
    """A document, without its latents.

    pieces: the tokens of each piece that was encoded apart. metadata: as it was given. model, spec: what made the
    latents; `spec.quant` says how they are stored. chunk: how the document stands in the store.
    """

    id: str
    pieces: tuple[int, ...]
    metadata: dict[str, Any]
    model: str
    spec: MemorySpec
    chunk: Chunk = field(repr=False)

    @property
    def digest(self) -> str:
        """Of its id, its metadata and its latents."""
        return self.chunk.digest

    @property
    def tokens(self) -> int:
        return sum(self.pieces)

    @property
    def nbytes(self) -> int:
        """Bytes of its latents on disk."""
        return self.spec.latent_bytes(self.tokens)


class LatentMemoryStore:
    """Keys and values of documents in a folder. The first document that is added makes the folder.

    Every change is written at once, as a whole or not at all. One process writes at a time; another one gets
    IndexLocked. Readers never wait. All methods may be called from several threads. All documents of a store were made
    by one model with one encoder and are stored in one format (`quant`). Methods raise UsageError for wrong arguments
    and for a memory of another model, IndexCorrupt for damaged files, and StorageFailed if the disk fails.
    """

    def __init__(self, folder: str | Path, *, quant: str | None = None) -> None:
        """quant: how numbers are stored: `none` (as they are, the default), `int8`, `int4`, `int2`, `fp8` or
        `pca` (which needs tables for the model: `awareness models calibrate`). Raises UsageError if the documents that
        are there are stored in another way."""
        path = Path(folder).expanduser()
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; a store is a folder")
        if quant not in (None, *QUANTS):
            raise UsageError(f"quant is '{quant}'; it can be {', '.join(QUANTS)}")
        self.layout = IndexLayout(path.absolute())
        self._lock = threading.Lock()
        stored = next(iter(self.documents()), None)
        self.quant = quant or (stored.spec.quant if stored else "none")
        if stored is not None and stored.spec.quant != self.quant:
            raise UsageError(
                f"the documents in {path} are stored as {stored.spec.quant}, not as {self.quant}",
                hint="another folder, or no quant=",
            )

    def __repr__(self) -> str:
        return f"LatentMemoryStore({str(self.layout.root)!r}, quant={self.quant!r})"

    def __len__(self) -> int:
        return len(self.documents())

    def __contains__(self, document_id: str) -> bool:
        return any(document.id == document_id for document in self.documents())

    # --- reading -------------------------------------------------------------------------------------------------

    def documents(self, scope: str | Sequence[str] | None = None) -> list[Document]:
        """The documents in scope, sorted by id. scope: one or several patterns as in `.gitignore`, for ids
        ('src/**/*.py'). The last pattern that matches decides; a leading `!` excludes."""
        in_scope = (
            (lambda _: True) if scope is None else build_scope([scope] if isinstance(scope, str) else list(scope))
        )
        return [document for document in self._table().values() if in_scope(document.id)]

    def get_document(self, document_id: str) -> Document:
        """Raises UsageError if there is none of this id."""
        return self._known([document_id])[0]

    def retrieve(self, document_ids: Sequence[str]) -> tuple[LatentTensor, LatentTensor]:
        """Keys and values of these documents in this order, each [layers, kv_heads, tokens, head_dim] in `spec.dtype`,
        on the CPU. The tensors know where each document begins (`spans`). The last one stands next to the prompt.

        Raises UsageError for an unknown id, or one that is given twice.
        """
        ids = [document_ids] if isinstance(document_ids, str) else list(document_ids)
        if twice := [name for i, name in enumerate(ids) if name in ids[:i]]:
            raise UsageError(f"document '{twice[0]}' is asked for twice")
        return self._read(lambda: self._known(ids))

    def retrieve_by_scope(self, scope: str | Sequence[str]) -> tuple[LatentTensor, LatentTensor]:
        """As `retrieve`, for all documents in scope (see `documents`), sorted by id. If there are none, the tensors
        have 0 tokens, and a decoder that gets them is its base model."""
        return self._read(lambda: self.documents(scope))

    def check(self) -> Report:
        """Reads everything and compares it with its checksums. The report's `problems` lists what is damaged."""
        return check_store(self.layout, read_data=True) if self.layout.exists else Report()

    # --- writing -------------------------------------------------------------------------------------------------

    def add_document(
        self,
        document_id: str,
        keys: Tensor,
        values: Tensor,
        *,
        metadata: Mapping[str, Any] | None = None,
        spec: MemorySpec | None = None,
        encoder: ContextEncoder | None = None,
    ) -> None:
        """Keeps a document; one of the same id is replaced.

        keys, values: [layers, kv_heads, tokens, head_dim], as `encode_document` returns them; they are stored in
        `spec.dtype`. metadata: anything that JSON can hold. spec or encoder: how plain tensors were made. Raises
        UsageError, among others if the documents that are there were made by another model.
        """
        self.add_documents({document_id: (keys, values)}, {document_id: metadata or {}}, spec=spec, encoder=encoder)

    def add_documents(
        self,
        documents: Mapping[str, tuple[Tensor, Tensor]],
        metadata: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        spec: MemorySpec | None = None,
        encoder: ContextEncoder | None = None,
    ) -> None:
        """As `add_document`, many documents (id -> keys and values, and metadata by id) in few files and one commit."""
        if encoder is not None:
            spec = encoder.spec
        name = None if encoder is None else encoder.name
        if unknown := (metadata or {}).keys() - documents.keys():
            raise UsageError(f"metadata of '{min(unknown)}', which is not among the documents")
        prepared: dict[Document, Latent] = {}
        for document_id, (keys, values) in documents.items():
            given = check_pair(keys, values, spec, name)
            document, latent = _prepare(document_id, given, (metadata or {}).get(document_id, {}), self.quant)
            prepared[document] = latent
        with self._changing() as (store, table):
            kept = [document for document in table.values() if document.id not in documents]
            everything = [*kept, *prepared]
            for document in everything:
                self._must_fit(document, everything[0])
            for batch in _batches(prepared):
                missing = set(store.latents.missing(batch[0].spec, [document.digest for document in batch]))
                latents = {document.digest: prepared[document] for document in batch if document.digest in missing}
                if latents:
                    store.latents.write(batch[0].spec, latents, eager=True)
            _write(store, everything)

    def add_text(
        self, document_id: str, text: str, encoder: ContextEncoder, *, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Cuts a file at its syntax as `awareness index` does, with the same header for each chunk, encodes the chunks
        and keeps them as one document. document_id: the path of the file; it decides the language, and the header of
        each chunk names it."""
        chunks = chunk_file(document_id, text, token_starts(encoder.folder.path), max_tokens=encoder.max_tokens)
        keys, values = encoder.encode_document([chunk.encoded_text for chunk in chunks], name=document_id)
        self.add_document(document_id, keys, values, metadata=metadata)

    def add_chunks(
        self,
        documents: Mapping[str, Sequence[Chunk]],
        encoder: ContextEncoder,
        *,
        metadata: Mapping[str, Mapping[str, Any]] | None = None,
        progress: Progress = silent,
    ) -> None:
        """Encodes chunks that are cut already and keeps them. documents: id -> its chunks, in order. metadata: by id.
        Many documents are written at once; a failure may leave those that came first."""
        ids = list(documents)
        for start in range(0, len(ids), _AT_ONCE):
            batch = ids[start : start + _AT_ONCE]
            progress("encoding memory", start, len(ids))
            pairs = {
                name: encoder.encode_document([chunk.encoded_text for chunk in documents[name]], name=name)
                for name in batch
            }
            own = {name: (metadata or {}).get(name, {}) for name in batch}
            self.add_documents(pairs, own, encoder=encoder)
        progress("encoding memory", len(ids), len(ids))

    def remove_document(self, document_id: str) -> None:
        """Removes a document; `compact` then frees its space on disk. Raises UsageError if there is none of this id."""
        self._known([document_id])
        with self._changing() as (store, table):
            _write(store, [document for document in table.values() if document.id != document_id])

    def compact(self) -> int:
        """Deletes the latents of documents that were removed or replaced, and joins small files. Returns the bytes that
        became free. Raises UsageError if another version of awareness encoded a document, whose latents would be
        lost."""
        if not self.layout.exists:
            return 0
        with self._changing() as (store, table):
            if old := [document for document in table.values() if document.spec.version != ENCODING_VERSION]:
                raise UsageError(
                    f"document '{old[0].id}' was encoded by version {old[0].spec.version}, this program reads"
                    f" {ENCODING_VERSION}",
                    hint=_LOST,
                )
            return collect_garbage(store, quant=self.quant).bytes

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def save(self, checkpoint: str | Path) -> Path:
        """Writes a copy of all documents into the folder `memory` of a checkpoint folder, which is made if it is
        missing; a memory that is there already is replaced, as a whole or not at all. Returns the copy's folder."""
        from awareness.model.checkpoint import written_aside

        target = Path(checkpoint).expanduser().absolute() / MEMORY_FOLDER
        if target.resolve() == self.layout.root.resolve():
            return target
        with written_aside(target) as partial:
            copy = IndexLayout(partial)
            documents = self.documents()
            with writing(copy), Store.create(copy) as store:
                for batch in _batches(documents):
                    store.latents.write(batch[0].spec, self._latents(batch), eager=True)
                _write(store, documents)
        return target

    @classmethod
    def load(cls, checkpoint: str | Path) -> LatentMemoryStore:
        """The store that `save` wrote into this checkpoint folder, opened where it lies: later changes go into the
        checkpoint. Raises UsageError if there is none."""
        folder = Path(checkpoint).expanduser() / MEMORY_FOLDER
        if not IndexLayout(folder).exists:
            raise UsageError(f"{checkpoint} has no memory in it", hint="LatentMemoryStore(...).save(checkpoint)")
        return cls(folder)

    # --- inside --------------------------------------------------------------------------------------------------

    def _table(self) -> dict[str, Document]:
        """id -> document, by id."""
        if not self.layout.exists:
            return {}
        with self._failures(), Store.open(self.layout) as store:
            return _table_of(store)

    def _known(self, ids: Sequence[str]) -> list[Document]:
        table = self._table()
        if unknown := [name for name in ids if name not in table]:
            raise UsageError(
                f"there is no document '{unknown[0]}' in {self.layout.root}",
                hint="documents() lists those that are there",
            )
        return [table[name] for name in ids]

    def _read(self, choose: Callable[[], list[Document]]) -> tuple[LatentTensor, LatentTensor]:
        """choose: looks up the documents to read. Another process may replace them before their latents are read; then
        it is called again."""
        documents = choose()
        while True:
            try:
                latents = self._latents(documents) if documents else {}
                break
            except IndexCorrupt:
                before, documents = documents, choose()
                if [document.digest for document in documents] == [document.digest for document in before]:
                    raise
        known = next(iter(documents or self._table().values()), None)
        spec, model = (MemorySpec("", (), 0, 0), "") if known is None else (known.spec, known.model)
        pieces: list[Tensor] = []
        names: list[str] = []
        for document in documents:
            pieces += to_tensor(latents[document.digest], spec).split(list(document.pieces), dim=3)
            names += [document.id] * len(document.pieces)
        return join_pieces(pieces, names, spec, model).keys_values

    def _latents(self, documents: Sequence[Document]) -> dict[str, Latent]:
        """Digest -> latents. Raises IndexCorrupt."""
        with self._failures(), Store.open(self.layout) as store:
            found = store.latents.read(documents[0].spec, [document.digest for document in documents])
        if lost := [document.id for document in documents if document.digest not in found]:
            raise IndexCorrupt(f"the latents of document '{lost[0]}' are no longer in {self.layout.root}", hint=_LOST)
        return found

    def _must_fit(self, document: Document, first: Document) -> None:
        """Raises UsageError unless the document can be read together with the first one of the store."""
        check_model(document.spec, document.model, first.spec, first.model, f"document '{document.id}'")
        if document.spec.quant != first.spec.quant:
            raise UsageError(
                f"the documents in {self.layout.root} are stored as {first.spec.quant}, not as {document.spec.quant}",
                hint="open the store again",
            )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[Store, dict[str, Document]]]:
        """Yields the store, which is made if there is none, and its documents. There is no other writer meanwhile."""
        with self._lock, self._failures(), writing(self.layout), Store.create(self.layout) as store:
            yield store, _table_of(store)

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Replaces the hint of IndexCorrupt: `awareness repair` cannot encode documents again, as it has no texts."""
        try:
            yield
        except IndexCorrupt as error:
            raise IndexCorrupt(error.message, hint=_LOST) from error


def _prepare(document_id: str, given: LatentPair, metadata: Mapping[str, Any], quant: str) -> tuple[Document, Latent]:
    """A document that is not in the store yet, with its latents. Raises UsageError."""
    if not document_id:
        raise UsageError("a document needs an id that is not empty", hint="its path, such as src/main.py")
    spec = with_quant(given.spec, quant)
    latent = to_latent(given.tensor.detach().to("cpu", getattr(torch, spec.dtype)), spec)
    content = {
        "latents": digest(bytes(latent.data)),
        "metadata": dict(metadata),
        "model": given.model,
        "pieces": [span.stop - span.start for span in given.spans],
        "spec": json.loads(spec.to_json()),
    }
    try:
        document_id.encode("utf-8", "surrogateescape")
        chunk = Chunk(document_id, 1, 1, "", json.dumps(content, sort_keys=True))
    except UnicodeEncodeError:
        raise UsageError(f"the document id {document_id!a} is not a text that a file name can hold") from None
    except (TypeError, ValueError) as error:
        raise UsageError(f"the metadata of document '{document_id}' is not JSON: {error}") from None
    return _document(chunk), latent


def _document(chunk: Chunk) -> Document:
    """Raises KeyError, TypeError or ValueError for a chunk that is not one of a document."""
    content = json.loads(chunk.text)
    spec = MemorySpec.from_json(json.dumps(content["spec"]))
    return Document(chunk.path, tuple(content["pieces"]), content["metadata"], content["model"], spec, chunk)


def _table_of(store: Store) -> dict[str, Document]:
    """id -> document, by id. Raises IndexCorrupt."""
    with store.reading():
        snapshot = store.snapshot(_SNAPSHOT)
        chunks = [] if snapshot is None else list(store.chunks(snapshot.id))
    table: dict[str, Document] = {}
    for stored in chunks:
        try:
            table[stored.chunk.path] = _document(stored.chunk)
        except (KeyError, TypeError, ValueError) as error:
            raise IndexCorrupt(
                f"document '{stored.chunk.path}' in {store.layout.root} cannot be read: {error}"
            ) from error
        if stored.chunk.digest != stored.digest:
            raise IndexCorrupt(f"document '{stored.chunk.path}' in {store.layout.root} is not what was written")
    return table


def _write(store: Store, documents: Sequence[Document]) -> None:
    """Makes these the documents of the store, in one commit."""
    files = [IndexedFile(document.id, document.digest, [(document.chunk, document.tokens)]) for document in documents]
    model = documents[0].model if documents else ""
    store.write_snapshot(_SNAPSHOT, files, chunking=_CHUNKING, model=model, rev=None)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents for one shard each."""
    batch: list[Document] = []
    for document in documents:
        if batch and sum(other.nbytes for other in batch) + document.nbytes > SHARD_BYTES:
            yield batch
            batch = []
        batch.append(document)
    if batch:
        yield batch
