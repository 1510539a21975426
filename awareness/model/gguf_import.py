"""GGUF -> a Hugging Face folder: safetensors in bf16, config, tokenizer, chat template. Runs once, in `models pull`.

The file is read as a stream. Each tensor is written to its place while the next one is read, so memory stays small for
any model. gguf's own numpy routines de-quantise, on two threads. Supported are the presets' architectures: Llama and
Qwen2 whose output layer is the embedding.
"""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awareness.model.gguf_header import Header, Readable, TensorInfo, read_exactly, read_header
from awareness.model.hf_folder import write_config, write_tokenizer
from awareness.types import Progress

if TYPE_CHECKING:
    import numpy as np

SHARD_BYTES = 512 << 20
"""Limit of a file of weights, unless one tensor is larger."""
_THREADS = 2
_TASK_ELEMENTS = 1 << 21
"""Elements per task of a thread: 4 MiB of bf16."""
_STEP_ELEMENTS = 1 << 16
"""Elements de-quantised at a time: they fit into the processor's cache."""
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert_gguf(stream: Readable, size: int, folder: Path, progress: Progress, shard_bytes: int = SHARD_BYTES) -> None:
    """Read the stream (of `size` bytes) to its end, and make and fill the folder.

    Raises ValueError for an unknown architecture or tensor, EOFError for a file that is cut off.
    """
    header = read_header(stream)
    folder.mkdir(parents=True)
    write_config(header, folder)
    places = _lay_out(header, folder, shard_bytes)
    files = {place.path: os.open(place.path, os.O_WRONLY) for place in places.values()}
    done = header.size
    waiting: deque[Future[None]] = deque()
    read_exactly(stream, header.padding)
    try:
        # Tasks are small and few of them wait, so reading stays only a few megabytes ahead of writing.
        with ThreadPoolExecutor(_THREADS) as workers, ThreadPoolExecutor(1) as syncing:
            waiting.append(workers.submit(write_tokenizer, header, folder))
            for i, tensor in enumerate(header.tensors):
                end = header.tensors[i + 1].offset if i + 1 < len(header.tensors) else size - header.size
                place = places.get(tensor.name)
                offset = place.offset if place else 0
                for data in _pieces(stream, header, tensor, end - tensor.offset):
                    done += len(data)
                    progress("converting", done, size)
                    if place is None:
                        continue
                    waiting.append(workers.submit(_write_piece, files[place.path], offset, data, tensor.kind))
                    offset += 2 * (len(data) // _block(tensor.kind)[1]) * _block(tensor.kind)[0]
                    while len(waiting) > 4 * _THREADS:
                        waiting.popleft().result()
                if place and place.last:  # sync to disk while the next shard is made
                    waiting.append(syncing.submit(os.fsync, files[place.path]))
            for future in waiting:
                future.result()
    finally:
        for descriptor in files.values():
            os.close(descriptor)


@dataclass
class _Place:
    """The place of a tensor: file and first byte. last: it is the file's last tensor."""

    path: Path
    offset: int
    last: bool


@dataclass
class _Shard:
    tensors: list[tuple[TensorInfo, str]] = field(default_factory=list)
    bytes: int = 0


def _lay_out(header: Header, folder: Path, shard_bytes: int) -> dict[str, _Place]:
    """Make the files of weights with their headers, and the index; return GGUF tensor -> its place. Of embedding and
    output layer, which are one tensor here, the one in fewer bits has no place."""
    twins = [tensor for tensor in header.tensors if tensor.name in (_EMBEDDING, _OUTPUT)]
    # The one with fewer bits per element; the output layer if they are equal.
    dropped = sorted(twins, key=lambda tensor: (_bits(tensor.kind), tensor.name == _EMBEDDING))[: len(twins) - 1]
    shards = [_Shard()]
    for tensor in header.tensors:
        if tensor not in dropped:
            if shards[-1].tensors and shards[-1].bytes + 2 * tensor.elements > shard_bytes:
                shards.append(_Shard())
            shards[-1].tensors.append((tensor, _hf_name(tensor.name)))
            shards[-1].bytes += 2 * tensor.elements
    places: dict[str, _Place] = {}
    weight_map = {}
    for n, shard in enumerate(shards, 1):
        path = folder / (f"model-{n:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors")
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        at = 0
        for tensor, name in shard.tensors:
            end = at + 2 * tensor.elements
            entries[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [at, end]}
            places[tensor.name] = _Place(path, at, last=tensor is shard.tensors[-1][0])
            weight_map[name] = path.name
            at = end
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        os.truncate(path, 8 + len(text) + at)
        for tensor, _ in shard.tensors:
            places[tensor.name].offset += 8 + len(text)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(shard.bytes for shard in shards)}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True))
    return places


def _hf_name(name: str) -> str:
    if name in (_EMBEDDING, _OUTPUT):  # one tensor is both
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    match = _LAYER.fullmatch(name)
    if not match or match[2] not in _IN_LAYER:
        raise ValueError(f"unknown GGUF tensor: {name}")
    return f"model.layers.{match[1]}.{_IN_LAYER[match[2]]}.{match[3]}"


def _block(kind: int) -> tuple[int, int]:
    """Elements and bytes of a block of this quantisation."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    return GGML_QUANT_SIZES[GGMLQuantizationType(kind)]


def _bits(kind: int) -> float:
    elements, size = _block(kind)
    return 8 * size / elements


def _pieces(stream: Readable, header: Header, tensor: TensorInfo, size: int) -> Iterator[bytes]:
    """Yield the tensor's bytes in whole blocks; drop the padding up to `size`."""
    block_elements, block_bytes = _block(tensor.kind)
    left = tensor.elements // block_elements * block_bytes
    padding = size - left
    if (heads := _permuted_heads(header, tensor)) is not None:
        yield _unpermuted(read_exactly(stream, left), tensor.shape[0], heads)
        left = 0
    piece = _TASK_ELEMENTS // block_elements * block_bytes
    while left:
        yield read_exactly(stream, min(piece, left))
        left -= min(piece, left)
    read_exactly(stream, padding)


def _permuted_heads(header: Header, tensor: TensorInfo) -> int | None:
    """The number of heads, if the GGUF has the tensor's rows in another order: Llama's queries and keys."""
    match = _LAYER.fullmatch(tensor.name)
    if header.metadata["general.architecture"] != "llama" or not match or match[2] not in ("attn_q", "attn_k"):
        return None
    return int(header.of_model("attention.head_count" if match[2] == "attn_q" else "attention.head_count_kv"))


def _unpermuted(data: bytes, rows: int, heads: int) -> bytes:
    """Undo `permute` of llama.cpp's convert_hf_to_gguf.py, which interleaves the two halves of a head's rotated
    dimensions. Rows are moved as they are, quantised."""
    import numpy as np

    pairs = np.frombuffer(data, np.uint8).reshape(heads, rows // heads // 2, 2, -1)
    return pairs.swapaxes(1, 2).tobytes()


def _write_piece(descriptor: int, offset: int, data: bytes, kind: int) -> None:
    view = dequantised(data, kind).data.cast("B")
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def dequantised(data: bytes, kind: int) -> np.ndarray:
    """Whole blocks -> their elements in bf16, viewed as uint16."""
    import numpy as np
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    block_elements, block_bytes = _block(kind)
    raw = np.frombuffer(data, np.uint8)
    made = np.empty(len(raw) // block_bytes * block_elements, np.uint16)
    step = max(1, _STEP_ELEMENTS // block_elements)
    for start in range(0, len(raw) // block_bytes, step):
        blocks = raw[start * block_bytes : (start + step) * block_bytes]
        values = dequantize(blocks.reshape(1, -1), GGMLQuantizationType(kind)).reshape(-1)
        made[start * block_elements : start * block_elements + len(values)] = _bf16(values)
    return made


def _bf16(values: np.ndarray) -> np.ndarray:
    """float32 -> bf16 as uint16, rounded to nearest, ties to even."""
    import numpy as np

    bits = values.view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    return rounded.astype(np.uint16)
