"""Settings of `task: router`, which trains term vectors for search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from awareness.config.base import Section, Share


def _is_router(path: Path) -> Path:
    if path.suffix != ".safetensors" or path.name.endswith(".head.safetensors"):
        raise ValueError("the name of a router ends in .safetensors, and not in .head.safetensors")
    return path


class RouterData(Section):
    """folders: repositories or unpacked packages, each a source of its own; `*` is allowed. pairs_per_folder: at most
    so many of one folder. names: share of the pairs kept whose words are only a definition's name. held_out: share of
    the folders that are measured on, not learned from."""

    folders: list[str] = Field(min_length=1)
    pairs_per_folder: int = Field(default=4000, ge=1)
    names: Share = 0.3
    held_out: Share = 0.1


class RouterModel(Section):
    """start: `shipped` continues from the router that awareness comes with, `none` begins anew, else a router's file.
    dim and vocabulary are those of a new one; words_from: an embedding model whose vectors of words it begins with."""

    start: str = "shipped"
    dim: int = Field(default=256, ge=8, le=4096)
    vocabulary: int = Field(default=49_152, ge=100)
    words_from: str | None = None


class RouterTraining(Section):
    """batch_size pairs a step, from folders_per_batch folders, so that most of what a pair must be told from is code of
    the same repository. forget: how likely a word that is said is left out of the code. temperature: of the softmax at
    the start, it is learned."""

    steps: int = Field(default=800, ge=1)
    batch_size: int = Field(default=1024, ge=2)
    folders_per_batch: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    temperature: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    forget: Share = 0.5
    seed: int = 0


class RouterConfig(Section):
    """`task: router`: output: the file that is written."""

    task: Literal["router"]
    data: RouterData
    model: RouterModel = RouterModel()
    training: RouterTraining = RouterTraining()
    output: Annotated[Path, AfterValidator(_is_router)] = Path("router.safetensors")
