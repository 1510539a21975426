"""awareness: gives a language model a memory of a git repository.

This is the public Python API; docs/python-api.md shows it by example. Each name is imported from its module when it is
first used, so that `import awareness` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from awareness import errors as errors
    from awareness.config.decoder import ModelConfig as ModelConfig
    from awareness.config.memory import MemoryConfig as MemoryConfig
    from awareness.config.training import DataConfig as DataConfig
    from awareness.config.training import LossConfig as LossConfig
    from awareness.config.training import TrainConfig as TrainConfig
    from awareness.config.training import TrainingConfig as TrainingConfig
    from awareness.engine.document_store import Document as Document
    from awareness.engine.document_store import LatentMemoryStore as LatentMemoryStore
    from awareness.engine.earlier_turns import EarlierTurns as EarlierTurns
    from awareness.engine.engine import Engine as Engine
    from awareness.engine.model_pool import ModelPool as ModelPool
    from awareness.engine.talk import Talk as Talk
    from awareness.model.bank import MemoryBank as MemoryBank
    from awareness.model.context_encoder import ContextEncoder as ContextEncoder
    from awareness.model.fusion import attached as attached
    from awareness.model.latent_tensor import LatentTensor as LatentTensor
    from awareness.model.latent_tensor import join_documents as join_documents
    from awareness.model.reasoning_decoder import ReasoningDecoder as ReasoningDecoder
    from awareness.model.reasoning_decoder import ReasoningOutput as ReasoningOutput
    from awareness.types import Memory as Memory
    from awareness.types import MemorySpec as MemorySpec

__version__ = "0.1.0"

_MODULES = {
    "ContextEncoder": "awareness.model.context_encoder",
    "DataConfig": "awareness.config.training",
    "Document": "awareness.engine.document_store",
    "EarlierTurns": "awareness.engine.earlier_turns",
    "Engine": "awareness.engine.engine",
    "LatentMemoryStore": "awareness.engine.document_store",
    "LatentTensor": "awareness.model.latent_tensor",
    "LossConfig": "awareness.config.training",
    "Memory": "awareness.types",
    "MemoryBank": "awareness.model.bank",
    "MemoryConfig": "awareness.config.memory",
    "MemorySpec": "awareness.types",
    "ModelConfig": "awareness.config.decoder",
    "ModelPool": "awareness.engine.model_pool",
    "ReasoningDecoder": "awareness.model.reasoning_decoder",
    "ReasoningOutput": "awareness.model.reasoning_decoder",
    "Talk": "awareness.engine.talk",
    "TrainConfig": "awareness.config.training",
    "TrainingConfig": "awareness.config.training",
    "attached": "awareness.model.fusion",
    "join_documents": "awareness.model.latent_tensor",
}
__all__ = ["errors", *_MODULES]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("awareness.errors")
    if name not in _MODULES:
        raise AttributeError(f"module 'awareness' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
