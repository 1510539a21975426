"""The tables of `--quant pca`: one file for each decoder, shipped for a preset or made by `awareness models calibrate`.

A file is identified by its digest, which is part of the spec of every latent made with it (`MemorySpec.codec`), so that
latents of two tables are never mixed. To know the digest needs no torch.

It is a safetensors file, with C = H_kv·D: `layers` int32 [L]; `mean` float16 [2, L, C]; `decode` int8 [2, L, C, C],
each row times its `scale` float32 [2, L, C]; `counts` uint8 [2, 3]; `levels` float32 [22], those of 4, 2 and 1 bits.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from awareness.errors import UsageError, storage_errors
from awareness.model.model_files import models_dir, replacing
from awareness.model.presets import KNOWN
from awareness.types import PCA, MemorySpec, digest, printable

if TYPE_CHECKING:
    from awareness.model.pca.codec import PcaCodec

_SHIPPED = Path(__file__).parent
_HINT = "awareness models calibrate {}, or --quant int4"


def calibrated_file(fingerprint: str) -> Path:
    """Where `awareness models calibrate` keeps the tables of a decoder."""
    return models_dir() / "pca" / f"{digest(fingerprint)[:32]}.safetensors"


def find(fingerprint: str) -> Path | None:
    """The tables of the decoder with this fingerprint: those that were made here, else those that are shipped."""
    name = _name(fingerprint)
    files = [calibrated_file(fingerprint), *([_SHIPPED / f"{name}.safetensors"] if name else [])]
    return next((file for file in files if file.is_file()), None)


def digest_for(fingerprint: str, quant: str) -> str:
    """`MemorySpec.codec` of latents that this decoder makes now; empty if `quant` needs no tables. Needs no torch.
    Raises UsageError if there are none."""
    if quant != PCA:
        return ""
    file = find(fingerprint)
    if file is None:
        raise _missing(fingerprint)
    return _digest_of(_read(file))


def codec_digest(spec: MemorySpec) -> str:
    """`MemorySpec.codec` for latents of this decoder. Raises UsageError if there are no tables for them."""
    if not spec.encoder.startswith("self"):
        raise UsageError(
            f"--quant pca is for latents of the decoder itself, not of the encoder {spec.encoder}", hint="--quant int4"
        )
    return _checked(spec).digest


def tables_of(spec: MemorySpec) -> PcaCodec:
    """The tables that latents of this spec were made with. Raises UsageError if they are not on this machine."""
    tables = _checked(spec)
    if tables.digest != spec.codec:
        raise UsageError(
            f"these latents were made with other tables of --quant pca ({printable(spec.codec):.16}) than those here"
            f" ({tables.digest})",
            hint="encode them again",
        )
    return tables


def write(file: Path, codec: PcaCodec) -> None:
    """Writes tables, as a whole or not at all. Raises StorageFailed."""
    with storage_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            temporary.write_bytes(to_bytes(codec))


def to_bytes(codec: PcaCodec) -> bytes:
    """The content of the file. The decode matrices are rounded to int8, row by row."""
    import torch
    from safetensors.torch import save

    from awareness.model.pca.codec import int8_rows

    decode, scale = int8_rows(codec.decode)
    return save(
        {
            "layers": torch.tensor(codec.layers, dtype=torch.int32),
            "mean": codec.mean.half(),
            "decode": decode.to(torch.int8),
            "scale": scale,
            "counts": torch.tensor(codec.counts, dtype=torch.uint8),
            "levels": torch.cat(codec.levels),
        }
    )


def from_bytes(data: bytes) -> PcaCodec:
    """The tables in a file. Raises ValueError if it is damaged."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from awareness.model.pca.codec import BITS, PcaCodec

    try:
        tensors = load(data)
        layers, counts, mean = (tensors[name] for name in ("layers", "counts", "mean"))
        scale, decode, levels = (tensors[name].float() for name in ("scale", "decode", "levels"))
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"it cannot be read: {error}") from error
    sides, depth, width = mean.shape if mean.ndim == 3 else (0, 0, 0)
    fits = sides == 2 and layers.shape == (depth,) and decode.shape == (2, depth, width, width)
    fits = fits and scale.shape == mean.shape and counts.shape == (2, len(BITS))
    if not fits or levels.shape != (sum(2**bits for bits in BITS),):
        raise ValueError("its tensors do not fit together")
    used = sum(counts[..., kind].long() * 8 // bits for kind, bits in enumerate(BITS))
    if not depth or not 0 < int(torch.as_tensor(used).max()) <= width:
        raise ValueError("it has more components than numbers")
    return PcaCodec(
        _digest_of(data),
        tuple(layers.tolist()),
        mean.float(),
        decode * scale[..., None],
        tuple(tuple(side) for side in counts.tolist()),
        levels.split([2**bits for bits in BITS]),
    )


def _checked(spec: MemorySpec) -> PcaCodec:
    """The tables that are here for the decoder of this spec. Raises UsageError if they do not fit it."""
    file = find(spec.model)
    name = _name(spec.model) or "MODEL"
    if file is None:
        raise _missing(spec.model)
    try:
        state = file.stat()
        tables = _loaded(file, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", hint="--quant int4") from error
    except ValueError as error:
        raise UsageError(
            f"the tables of --quant pca in {file} are damaged: {error}", hint=_HINT.format(name)
        ) from error
    size = sum(map(sum, tables.counts))
    if tables.mean.shape[2] != spec.num_kv_heads * spec.head_dim or size != spec.pca_bytes:
        raise UsageError(f"the tables of --quant pca in {file} are for other heads", hint=_HINT.format(name))
    if missing := sorted(set(spec.layers) - set(tables.layers)):
        raise UsageError(f"the tables of --quant pca have no layer {missing[0]} of this decoder", hint="--quant int4")
    return tables


def _missing(fingerprint: str) -> UsageError:
    return UsageError(
        "--quant pca has no tables for this decoder yet", hint=_HINT.format(_name(fingerprint) or "MODEL")
    )


def _name(fingerprint: str) -> str:
    """Of the preset with these weights; empty for another model."""
    return next((name for name, preset in KNOWN.items() if preset.wheels and preset.fingerprint == fingerprint), "")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", hint="--quant int4") from error


@functools.lru_cache(maxsize=2)
def _loaded(file: Path, changed: int, size: int) -> PcaCodec:
    """changed, size: of the file, so that other tables in its place are noticed. Raises ValueError and UsageError."""
    return from_bytes(_read(file))


def _digest_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
