"""Loading decoders: which weights they decode with."""

from __future__ import annotations

import torch

from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.engine.models import load_model, load_trained
from awareness.model.checkpoint import save_checkpoint
from awareness.model.memory_decoder import build_memory_decoder
from awareness.model.model_files import find, models_dir
from awareness.model.weights import PackedLinear


def kept() -> dict[str, bytes]:
    """The files of packed weights that are kept."""
    return {path.name: path.read_bytes() for path in (models_dir() / "packed").glob("*")}


def test_a_trained_decoder_never_decodes_by_the_packed_weights_of_its_base(model_folder, tmp_path):
    """A checkpoint that trained the base has the base's fingerprint, by which packed weights are kept."""
    section = ModelConfig(base_model_name=str(model_folder), freeze_base_model=False)
    trained, base = build_memory_decoder(section, MemoryConfig(vanilla_mode=True), pull=find)
    with torch.no_grad():
        for parameter in trained.decoder.parameters():
            parameter.mul_(2)
    save_checkpoint(tmp_path / "run", trained, base.folder, section, reads="none")
    load_model(base.folder, weights="int8")
    before = kept()
    assert before
    decoder = load_trained(tmp_path / "run", weights="int8").decoder
    assert kept() == before
    layers = [module for module in decoder.model.modules() if isinstance(module, PackedLinear)]
    assert len(layers) == 6 * 7 + 1
    for layer in layers:
        error = layer.codes.float() * layer.scales.float()[:, None] - layer.weight.float()
        assert error.abs().max() < 0.02 * layer.weight.abs().max()
