"""A tiny decoder that can read a memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from awareness.model.fusion import fuse
from awareness.model.load import Decoder
from awareness.model.model_files import ModelFolder


@pytest.fixture
def decoder(model, tokenizer):
    return Decoder(fuse(model), tokenizer, ModelFolder("tiny", Path(), "tiny"))
