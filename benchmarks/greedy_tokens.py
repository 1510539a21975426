"""Compare a GGUF in llama.cpp with its decoder in transformers: token ids of prompts, and greedy tokens after them.

    python benchmarks/greedy_tokens.py FILE.gguf --model NAME_OR_FOLDER [--dtype float32] [--tokens 64] [--limit 10]

llama.cpp comes from one of its Python bindings, whichever is installed: llama-cpp-python (it compiles llama.cpp) or
xllamacpp (wheels). Both run on the CPU, with keys and values in float32. Each continues the prompt's ids of
transformers. `gap` is how much more transformers' logit is for its own token than for llama.cpp's, at the first
position where they differ: a gap near 0 is a tie that rounding decides. Exit code 1: token ids of a prompt differ, or
greedy tokens do by more than `--gap`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import urllib.request
from pathlib import Path
from typing import Any, Protocol

import torch
from common import processor, table

from awareness.engine.models import pull_model
from awareness.model.fusion import unfuse
from awareness.model.load import load

PROMPTS = {
    "Python": "def quicksort(items):\n    if len(items) <= 1:\n        return items\n",
    "C": "#include <stdio.h>\n\nint main(int argc, char **argv) {\n\tfor (int i = 0; i < 10; i++)\n",
    "English": "The difference between a process and a thread is that",
    "Chinese": "请用一句话解释什么是递归。答案：",
    "emoji": "🎉🚀 Release notes 👩‍💻:\n- café naïve Größe №42\n-",
    "numbers": "1 22 333 4444 55555 3.14159 0xFF 1e-5 2024-11-28T17:51:03Z\n  \t\n\n    x  =",
    "special tokens": "<|im_start|>system\nAnswer briefly.<|im_end|>\n<|im_start|>user\nWhat is a mutex?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "quotes": "it's I'LL we've \"don't\" can't've\r\n\r\nThey'd said: '",
    "JSON": '{"name": "awareness", "version": "1.0", "dependencies": {',
    "chat template": "Write a function that reverses a linked list.",
}


class LlamaCpp(Protocol):
    """What the comparison asks of a binding."""

    def ids(self, text: str) -> list[int]: ...

    def chat(self, question: str) -> str: ...

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """May end earlier, where llama.cpp takes a token for the end of the text."""


class LlamaCppPython:
    """llama-cpp-python."""

    def __init__(self, path: Path, context: int, threads: int) -> None:
        import llama_cpp

        self.name = f"llama-cpp-python {llama_cpp.__version__}"
        options = {"n_threads": threads, "n_threads_batch": threads, "flash_attn": False, "type_k": 0, "type_v": 0}
        self._model = llama_cpp.Llama(str(path), n_ctx=context, verbose=False, **options)
        vocabulary = llama_cpp.llama_model_get_vocab(self._model._model.model)
        self._adds_bos = llama_cpp.llama_vocab_get_add_bos(vocabulary)

    def ids(self, text: str) -> list[int]:
        return self._model.tokenize(text.encode(), add_bos=self._adds_bos, special=True)

    def chat(self, question: str) -> str:
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        special = [self._model._model.token_get_text(i) for i in (self._model.token_bos(), self._model.token_eos())]
        template = self._model.metadata["tokenizer.chat_template"]
        format_ = Jinja2ChatFormatter(template, bos_token=special[0], eos_token=special[1])
        return format_(messages=[{"role": "user", "content": question}]).prompt

    def greedy(self, ids: list[int], count: int) -> list[int]:
        return list(itertools.islice(self._model.generate(ids, temp=0.0, repeat_penalty=1.0), count))


class XLlamaCpp:
    """xllamacpp: llama.cpp's own server, on this machine."""

    def __init__(self, path: Path, context: int, threads: int) -> None:
        import xllamacpp

        self.name = f"xllamacpp {xllamacpp.__version__}"
        settings = xllamacpp.CommonParams()
        settings.model.path = str(path)
        settings.n_ctx, settings.n_parallel, settings.n_gpu_layers, settings.port = context, 1, 0, 0
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.warmup, settings.verbosity = False, 0
        self._server = xllamacpp.Server(settings)

    def _ask(self, path: str, **content: Any) -> dict[str, Any]:
        address = f"{self._server.listening_address}/{path}"
        request = urllib.request.Request(address, json.dumps(content).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def ids(self, text: str) -> list[int]:
        found: list[int] = self._ask("tokenize", content=text, add_special=True, parse_special=True)["tokens"]
        return found

    def chat(self, question: str) -> str:
        return str(self._ask("apply-template", messages=[{"role": "user", "content": question}])["prompt"])

    def greedy(self, ids: list[int], count: int) -> list[int]:
        options = {"n_predict": count, "temperature": 0, "return_tokens": True, "cache_prompt": False}
        found: list[int] = self._ask("completion", prompt=ids, **options)["tokens"]
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", required=True, help="what the file was exported from, or its merged folder")
    parser.add_argument("--dtype", default="float32", help="of transformers' decoder")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--limit", type=int, default=len(PROMPTS), help="of prompts")
    parser.add_argument("--gap", type=float, default=0.01, help="the largest difference of logits that is a tie")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    decoder = load(pull_model(options.model), device="cpu", dtype=getattr(torch, options.dtype))
    model = unfuse(decoder.model)
    llama = _binding(options.file, options.threads)
    rows, failed, same, compared = [], 0, 0, 0
    for name, text in list(PROMPTS.items())[: options.limit]:
        if name == "chat template":
            if decoder.tokenizer.chat_template is None:
                continue
            messages = [{"role": "user", "content": text}]
            text, question = (
                decoder.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True),
                text,
            )
            failed += llama.chat(question) != text
        ids = decoder.tokenizer(text)["input_ids"]
        are_equal = ids == llama.ids(text)
        ours = llama.greedy(ids, options.tokens)
        theirs, scores = _greedy(model, ids, len(ours))
        first = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), None)
        equal = len(ours) if first is None else first
        gap = 0.0 if first is None else float(scores[first].max() - scores[first][ours[first]])
        failed += not are_equal or gap > options.gap
        same, compared = same + equal, compared + len(ours)
        difference = ("", "") if first is None else (first, f"{gap:.4f}")
        rows.append((name, len(ids), "yes" if are_equal else "NO", len(ours), equal, *difference))
    print(f"\n{options.file.name} in {llama.name}, {options.model} in {options.dtype}, {processor()}\n")
    table(("prompt", "ids", "same ids", "greedy tokens", "equal", "first difference", "gap there"), rows)
    print(f"\n{same} of {compared} greedy tokens are equal before the first difference; {failed} failed")
    sys.exit(failed > 0)


def _binding(path: Path, threads: int) -> Any:
    """Raises ImportError if there is none."""
    try:
        return LlamaCppPython(path, 2048, threads)
    except ImportError:
        return XLlamaCpp(path, 2048, threads)


def _greedy(model: Any, ids: list[int], count: int) -> tuple[list[int], list[torch.Tensor]]:
    """transformers' tokens, not ended by any, and the logits [V] before each."""
    with torch.inference_mode():
        made = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),  # else tokens that also pad are left out
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            return_dict_in_generate=True,
            output_logits=True,
        )
    return made.sequences[0, len(ids) :].tolist(), [logits[0].float() for logits in made.logits]


if __name__ == "__main__":
    main()
