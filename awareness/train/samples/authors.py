"""Which model writes the samples of each kind that a model must make, fetched before any other work."""

from __future__ import annotations

from collections.abc import Callable

from awareness.config.training import PREPARED_KINDS, DataConfig
from awareness.errors import ModelNotAvailable, UsageError
from awareness.model.model_files import ModelFolder


def authors(data: DataConfig, base: str | None, *, pull: Callable[[str], ModelFolder]) -> dict[str, ModelFolder]:
    """Kind -> the model that writes its samples, for the kinds with a weight; none if `data.written` is 0. base: name
    of the base model, None for a decoder from scratch.

    Raises UsageError, and ModelNotAvailable if a model cannot be fetched.
    """
    kinds = [kind for kind in PREPARED_KINDS if data.kinds.get(kind)]
    if kinds and not data.written:
        if all(kind in kinds for kind, weight in data.kinds.items() if weight):
            message = f"data.kinds.{kinds[0]}: no sample is written, because data.written is 0"
            raise UsageError(message, hint="--set data.written=100")
        return {}
    return {kind: _author(kind, data.written_by if kind == "written" else None, base, pull) for kind in kinds}


def _author(kind: str, chosen: str | None, base: str | None, pull: Callable[[str], ModelFolder]) -> ModelFolder:
    if chosen is None and base is None:
        hint = "--set data.written_by=qwen2.5-coder-0.5b" if kind == "written" else "--set data.kinds.distractors=0"
        raise UsageError(f"data.kinds.{kind}: a decoder from scratch has no base model that writes", hint=hint)
    try:
        return pull(chosen or str(base))
    except ModelNotAvailable as error:
        if chosen is None:
            raise
        hint = f"awareness models pull {chosen}, or --set data.written_by=null for the base model"
        raise ModelNotAvailable(f"data.written_by: {error.message}", hint=hint) from error
