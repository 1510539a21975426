"""Loading decoders: which weights they decode with."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from awareness.config.decoder import ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.engine.models import load_model, load_trained
from awareness.model.checkpoint import save_checkpoint
from awareness.model.memory_decoder import build_memory_decoder
from awareness.model.model_files import find, models_dir
from awareness.model.weights import PackedLinear
from awareness.types import digest


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


def test_lora_on_a_frozen_base_decodes_by_the_packed_weights_that_are_kept(model_folder, tmp_path):
    """So that a start with an adapter packs nothing again."""
    section = ModelConfig(base_model_name=str(model_folder))
    config = MemoryConfig(memory_form="joint", num_memory_tokens=0, use_both_memory_and_lora=True, lora_rank=2)
    trained, base = build_memory_decoder(section, config, pull=find)
    save_checkpoint(tmp_path / "run", trained, base.folder, section)
    load_model(base.folder, weights="int8")
    (path,) = (models_dir() / "packed").glob(f"{digest(base.folder.fingerprint)[:32]}-int8.*")
    before, made = load_file(path), path.stat().st_mtime_ns
    decoder = load_trained(tmp_path / "run", weights="int8").decoder
    layers = [module for module in decoder.model.modules() if isinstance(module, PackedLinear)]
    assert len(layers) == 6 * 7 + 1 and path.stat().st_mtime_ns == made
    path.unlink()
    load_trained(tmp_path / "run", weights="int8")
    after = load_file(path)  # and what it writes is the base's
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
