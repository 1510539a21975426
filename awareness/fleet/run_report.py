"""What a run did: for the user, and as JSON for who pays for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Failure:
    """A repository that could not be indexed; what the catalogue has of it stays."""

    name: str
    source: str
    message: str
    hint: str


@dataclass
class RunReport:
    """indexed, unchanged: repositories. files, chunks, tokens: of the indexed ones. encoded_chunks, encoded_tokens:
    that a model read; the others were in the store already, or in another repository of this run. skipped: reason ->
    files left out. bytes_written: kind of object -> bytes. workers: with a model. wall_s: of the whole run. model_s: of
    all models together. cut_s: of all that fetched, read and cut repositories."""

    indexed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    files: int = 0
    chunks: int = 0
    tokens: int = 0
    encoded_chunks: int = 0
    encoded_tokens: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    bytes_written: dict[str, int] = field(default_factory=dict)
    workers: int = 0
    wall_s: float = 0.0
    model_s: float = 0.0
    cut_s: float = 0.0
    is_interrupted: bool = False

    @property
    def saved_tokens(self) -> int:
        """That did not have to be encoded."""
        return max(0, self.tokens - self.encoded_tokens)  # a run that was interrupted has encoded more than it named

    @property
    def tokens_per_s(self) -> float:
        """Of all workers together, by the clock."""
        return self.encoded_tokens / self.wall_s if self.wall_s else 0.0

    def wrote(self, kind: str, size: int) -> None:
        self.bytes_written[kind] = self.bytes_written.get(kind, 0) + size

    def to_json(self) -> dict[str, object]:
        return {
            **asdict(self),
            "saved_tokens": self.saved_tokens,
            "tokens_per_s": round(self.tokens_per_s, 1),
            "wall_s": round(self.wall_s, 3),
            "model_s": round(self.model_s, 3),
            "cut_s": round(self.cut_s, 3),
        }
