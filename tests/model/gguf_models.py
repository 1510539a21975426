"""Tiny random models as GGUF files, and wheels with pieces of them, made on the spot."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter
from gguf.quants import quantize
from tokenizers import pre_tokenizers

from awareness.model.presets import Preset, Wheel

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, ROWS = 64, 96, 2, 4, 2, 288
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("d e", "de f", "Ġ Ġ", "ĠĠ ĠĠ", "r e", "t u", "re tu", "r n", "retu rn")
CHAT_TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
TOKENS = [
    *sorted(pre_tokenizers.ByteLevel.alphabet()),
    *(merge.replace(" ", "") for merge in MERGES),
    *CONTROL,
    "<tool_call>",
]
KINDS = [1] * (256 + len(MERGES)) + [3] * len(CONTROL) + [4]


def tensors(architecture: str = "qwen2", seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights by their names in a GGUF, fp32; `token_embd` and `output` are not equal."""
    random = np.random.default_rng(seed)
    width = HIDDEN // HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "output.weight": (ROWS, HIDDEN),
        "token_embd.weight": (ROWS, HIDDEN),
        "output_norm.weight": (HIDDEN,),
    }
    for n in range(LAYERS):
        of_layer = {
            "attn_norm.weight": (HIDDEN,),
            "ffn_norm.weight": (HIDDEN,),
            "attn_q.weight": (HEADS * width, HIDDEN),
            "attn_k.weight": (KV_HEADS * width, HIDDEN),
            "attn_v.weight": (KV_HEADS * width, HIDDEN),
            "attn_output.weight": (HIDDEN, HEADS * width),
            "ffn_gate.weight": (INNER, HIDDEN),
            "ffn_up.weight": (INNER, HIDDEN),
            "ffn_down.weight": (HIDDEN, INNER),
        }
        if architecture == "qwen2":
            rows = {"attn_q": HEADS * width, "attn_k": KV_HEADS * width, "attn_v": KV_HEADS * width}
            of_layer |= {f"{name}.bias": (count,) for name, count in rows.items()}
        shapes |= {f"blk.{n}.{name}": shape for name, shape in of_layer.items()}
    return {name: random.normal(scale=0.2, size=shape).astype(np.float32) for name, shape in shapes.items()}


def write_gguf(
    path: Path, weights: dict[str, np.ndarray], kinds: dict[str, Kind], architecture: str = "qwen2", pre: str = "qwen2"
) -> Path:
    """kinds: the quantisation of a tensor by its name, or of `*`, the other matrices; vectors are fp32."""
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    unused = ROWS - len(TOKENS)
    writer.add_token_list([*TOKENS, *(f"[PAD{len(TOKENS) + i}]" for i in range(unused))])
    writer.add_token_types([*KINDS, *[5] * unused])
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(TOKENS.index("<|endoftext|>"))
    writer.add_eos_token_id(TOKENS.index("<|im_end|>"))
    writer.add_pad_token_id(TOKENS.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, values in weights.items():
        kind = kinds.get(name, kinds.get("*", Kind.F32)) if values.ndim == 2 else Kind.F32
        writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def put_wheel(shelf: Path, package: str, version: str, files: dict[str, str | bytes]) -> Path:
    """A wheel with these members, on a shelf that pip takes wheels from."""
    name = f"{package.replace('-', '_')}-{version}"
    path = shelf / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        about = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        wheel.writestr(f"{name}.dist-info/METADATA", about)
        wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}.dist-info/RECORD", "")
        for member, content in files.items():
            wheel.writestr(member, content)
    return path


def put_parts(shelf: Path, gguf: Path, name: str, parts: int = 3) -> Preset:
    """Cuts a GGUF in pieces, one a wheel, of about the same size; the preset that they are."""
    data, wheels = gguf.read_bytes(), []
    for n in range(parts):
        member = f"{name}_part{n + 1}/data/part{n + 1:02d}.bin"
        piece = data[len(data) * n // parts : len(data) * (n + 1) // parts]
        code = f"{name}_part{n + 1}/__init__.py"  # what runs code of a wheel fails
        path = put_wheel(shelf, f"{name}-part{n + 1}", "1.0", {code: "raise SystemExit(99)", member: piece})
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        wheels.append(Wheel(f"{name}-part{n + 1}", "1.0", sha256, path.stat().st_size, member))
    joined = hashlib.sha256(data).hexdigest()
    return Preset(name, "decoder", "MIT", 1_000_000, f"nobody/{name}", tuple(wheels), joined)
