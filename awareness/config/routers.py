"""`task: router`: settings that train the term vectors of search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from awareness.config.base import Section, Seed, Share


def _is_router(path: Path) -> Path:
    if path.suffix != ".safetensors" or path.name.endswith(".head.safetensors"):
        raise ValueError("the file name of a router must end in .safetensors, not in .head.safetensors")
    return path


class RouterData(Section):
    """folders: repositories or unpacked packages; `*` is allowed. pairs_per_folder: the largest number of pairs of one
    folder. names: share of the pairs kept whose description is only a definition's name. held_out: share of the folders
    for evaluation."""

    folders: list[str] = Field(min_length=1, examples=[["./*"]])
    pairs_per_folder: int = Field(default=4000, ge=1)
    names: Share = 0.3
    held_out: Share = 0.1


class RouterModel(Section):
    """start: `shipped` (the router of this package), `none` (a new one), or the file of a router. dim, vocabulary: of a
    new one. words_from: an embedding model whose word vectors a new one begins with."""

    start: str = "shipped"
    dim: int = Field(default=256, ge=8, le=4096)
    vocabulary: int = Field(default=49_152, ge=100)
    words_from: str | None = None


class RouterTraining(Section):
    """batch_size: pairs per step, from folders_per_batch folders, so that most negatives are code of the same
    repository. neighbours: pairs that follow each other in a file and are taken together. forget: probability that a
    word of the description is dropped from the code. temperature: the initial one of the softmax; it is learned."""

    steps: int = Field(default=800, ge=1)
    batch_size: int = Field(default=1024, ge=2)
    folders_per_batch: int = Field(default=4, ge=1)
    neighbours: int = Field(default=4, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    temperature: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    forget: Share = 0.5
    seed: Seed = 0


class RouterConfig(Section):
    """output: the file to write."""

    task: Literal["router"]
    data: RouterData
    model: RouterModel = RouterModel()
    training: RouterTraining = RouterTraining()
    output: Annotated[Path, AfterValidator(_is_router)] = Path("router.safetensors")
