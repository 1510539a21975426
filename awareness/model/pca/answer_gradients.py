"""How strongly answers depend on the numbers of a memory: the weights that pca/fit.py fits its tables with.

    W = Σ gᵀg    g = ∂ log p(y) / ∂ x

x are the keys (before RoPE) or the values of one token in one layer, y is an answer that is drawn from the decoder's
own probabilities. This is the Fisher information of x: to second order, an error e of x changes the answer's
distribution by a KL divergence of ½·e·W·eᵀ (Martens 2020, section 5). Positions, softmax and the output projection are
in it, and so are the directions that queries look at.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from awareness.model import hf
from awareness.model.answering import prompt_ids
from awareness.model.assemble import joined
from awareness.model.fusion import attached
from awareness.model.generate import generate
from awareness.model.load import Decoder
from awareness.model.presets import ReadingSettings
from awareness.model.prompts import encode
from awareness.types import SINK, MemorySpec, Progress, silent

ANSWER_TOKENS = 32
_QUESTIONS = (
    "what does `{}` do?",
    "which default values does `{}` use?",
    "what does `{}` return, and when does it raise an error?",
    "which names and constants does `{}` depend on?",
    "how many, how long or how large may things be in `{}`?",
)


def answer_weights(
    decoder: Decoder,
    settings: ReadingSettings,
    spec: MemorySpec,
    sink: Tensor,
    groups: Sequence[Sequence[tuple[str, Tensor]]],
    *,
    progress: Progress = silent,
) -> Tensor:
    """W, float32 [2, L, C, C], K before V, scaled to a mean of 1 on the diagonal. spec: of the latents. sink: its
    tensor. groups: memories, each a list of (what its chunk is called, latent without quantisation [2, L, H_kv, T, D]);
    two questions are asked about each."""
    width = spec.num_kv_heads * spec.head_dim
    weights = torch.zeros(2, len(spec.layers), width, width)
    decoder.model.requires_grad_(False)
    draw = torch.Generator().manual_seed(0)
    asked = [(group, group[at][0]) for group in groups for at in {0, len(group) // 2}]
    for done, (group, name) in enumerate(asked):
        progress("asking", done, len(asked))
        question = _QUESTIONS[done % len(_QUESTIONS)].format(name)
        parts = [sink, *(latent.detach().clone().requires_grad_() for _, latent in group)]
        names = [SINK, *(str(i) for i in range(len(group)))]
        prompt = prompt_ids(decoder, settings, question, has_memory=True)
        with torch.no_grad():
            plain = joined(decoder.model, spec.layers, parts, names)
        said = encode(decoder.tokenizer, generate(decoder, prompt, plain, max_new_tokens=ANSWER_TOKENS).text)
        if not said:
            continue
        memory = joined(decoder.model, spec.layers, parts, names)
        ids = torch.tensor([prompt + said], device=decoder.model.device)
        with torch.enable_grad(), attached(decoder.model, memory):
            hidden = hf.body(decoder.model)(input_ids=ids, use_cache=False).last_hidden_state
            logits = decoder.model.get_output_embeddings()(hidden[0, len(prompt) - 1 : -1]).float()
        drawn = torch.multinomial(logits.detach().softmax(-1).cpu(), 1, generator=draw)[:, 0].to(logits.device)
        cross_entropy(logits, drawn, reduction="sum").backward()
        for part in parts[1:]:
            gradient = part.grad.float().transpose(2, 3).flatten(3)  # type: ignore[union-attr]  # [2, L, T, C]
            weights += gradient.mT @ gradient
    return weights / weights.diagonal(dim1=2, dim2=3).mean().clamp_min(torch.finfo(torch.float32).tiny)
