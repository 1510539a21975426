"""Pulls and loads decoders, and the encoders that make their latents. Imports torch only when a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from awareness.engine.reporter import SILENT, Reporter
from awareness.model import model_files
from awareness.model.presets import ReadingSettings, settings_of
from awareness.types import digest

if TYPE_CHECKING:
    from awareness.model.adapter import MemoryAdapter
    from awareness.model.encoder import SelfEncoder
    from awareness.model.load import Decoder
    from awareness.model.memory_decoder import MemoryDecoder
    from awareness.model.projected import ProjectedEncoder


def pull_model(name: str, reporter: Reporter = SILENT) -> model_files.ModelFolder:
    """The model's folder; downloads the model if it is not on this machine. Raises ModelNotAvailable."""
    if folder := model_files.find(name):
        return folder
    reporter.note(f"fetching {name}, once")
    with reporter.progress() as progress:
        return model_files.pull(name, progress)


def pull_known(name: str, reporter: Reporter = SILENT) -> model_files.ModelFolder:
    """As `pull_model`, for a name out of a file that may come from a stranger: only a preset is downloaded.
    Raises UsageError for a model that is neither a preset nor on this machine."""
    model_files.check_trusted(name)
    return pull_model(name, reporter)


@dataclass(frozen=True)
class LoadedModel:
    """A decoder and the encoder that makes latents with it.

    quant: how latents are stored. weights: what the decoder decodes with. trained: the adapter and what else was
    trained with it, or None.
    """

    decoder: Decoder
    quant: str
    weights: str
    trained: MemoryDecoder | None = None

    @property
    def adapter(self) -> MemoryAdapter | None:
        """What was trained to read a memory."""
        return None if self.trained is None else self.trained.adapter

    @cached_property
    def settings(self) -> ReadingSettings:
        """How the decoder reads a memory, with its adapter if there is one."""
        return settings_of(self.decoder.folder.name, None if self.adapter is None else self.adapter.config)

    @cached_property
    def without_adapter(self) -> LoadedModel:
        """The same decoder without its adapter, which changes nothing where it is not read."""
        return replace(self, trained=None)

    @cached_property
    def encoder(self) -> SelfEncoder | ProjectedEncoder:
        if self.trained is not None:
            return self.trained.encoder(self.decoder, self.quant)
        from awareness.model.encoder import SelfEncoder

        fingerprint = self.decoder.folder.fingerprint
        return SelfEncoder(self.decoder.model, self.decoder.tokenizer, fingerprint=fingerprint, quant=self.quant)


def load_model(
    folder: model_files.ModelFolder, quant: str = "none", weights: str | None = "none", reporter: Reporter = SILENT
) -> LoadedModel:
    """weights: one of `weights.WEIGHTS` to decode with, or None for the preset's own."""
    from awareness.model.load import load
    from awareness.model.threads import use_idle_cores

    use_idle_cores()
    reporter.detail(f"loading {folder.name} from {folder.path}")
    with reporter.progress() as progress:
        progress(f"loading {folder.name}", 0, None)
        loaded = load(folder)
    decoder, used = _with_weights(loaded, weights, reporter)
    return LoadedModel(decoder, quant, used)


def load_trained(checkpoint: Path, weights: str | None = "none", reporter: Reporter = SILENT) -> LoadedModel:
    """The decoder of a checkpoint with what was trained. Raises UsageError."""
    from awareness.model.checkpoint import load_for_use
    from awareness.model.threads import use_idle_cores

    use_idle_cores()
    reporter.detail(f"loading {checkpoint}")
    with reporter.progress() as progress:
        progress("loading the model", 0, None)
        module, decoder = load_for_use(checkpoint, pull=lambda name: pull_known(name, reporter))
    trains_base = any(p.requires_grad and "lora_" not in name for name, p in decoder.model.named_parameters())
    decoder, used = _with_weights(decoder, weights, reporter, is_trained=trains_base)
    return LoadedModel(decoder, "none", used, module)


def _with_weights(
    decoder: Decoder, weights: str | None, reporter: Reporter, *, is_trained: bool = False
) -> tuple[Decoder, str]:
    """The decoder with the weights it decodes with, and their name.

    Packed weights stand beside the published ones, which still make the latents (weights.py). Where the published ones
    are replaced, the decoder makes other latents, so its fingerprint says so. is_trained: the weights differ from those
    of the folder, so the packed file that is kept for the folder is neither read nor written.
    """
    from awareness.model.weights import is_packed, quantise_weights

    preferred = settings_of(decoder.folder.name).weights if decoder.model.device.type == "cpu" else "none"
    name = preferred if weights is None else weights
    if name == "none":
        return decoder, name
    packed = model_files.models_dir() / "packed" / f"{digest(decoder.folder.fingerprint)[:32]}-{name}.safetensors"
    with reporter.progress() as progress:
        model = quantise_weights(decoder.model, name, keep=None if is_trained else packed, progress=progress)
    if is_packed(model):
        return replace(decoder, model=model), name
    folder = replace(decoder.folder, fingerprint=f"{decoder.folder.fingerprint}-{name}")
    return replace(decoder, model=model, folder=folder), name
