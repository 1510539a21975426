"""`Session`: what `attached` yields. It says what the layers of a decoder read, and ends with the block.

Sessions are found through a context variable, so they are thread-local and may be nested: for a decoder the innermost
session counts. A fused layer looks its session up when it is called, and passes it on as an argument: a layer that is
computed again in the backward pass (gradient checkpointing), maybe in another thread, reads the same. Modules store
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

from awareness.model.chapter_router import ChapterChoice
from awareness.model.layer_reading import LayerReading
from awareness.model.router_state import RouterState


class Session:
    """layers: of the decoder. readings: what each of them reads. is_adapted: an adapter says how. outer: the session of
    the block around this one.

    tokens: how many tokens each row had, over all forward passes in the block. It is no dataclass: FSDP (torch 2.13)
    copies those among a layer's arguments, and what a copy records is lost.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module] = (),
        readings: Mapping[nn.Module, LayerReading] | None = None,
        routing: RouterState | None = None,
        is_adapted: bool = False,
        outer: Session | None = None,
    ) -> None:
        self.layers, self.readings = layers, readings or {}
        self.routing = RouterState() if routing is None else routing
        self.is_adapted, self.outer, self.tokens = is_adapted, outer, 0
        self._own = frozenset(layers)

    @property
    def choices(self) -> list[ChapterChoice]:
        """The decisions of the routers of chapters, if they are kept."""
        return self.routing.choices or []

    def of(self, layer: nn.Module) -> Session | None:
        """The innermost session of this layer's decoder, None if it has none."""
        if layer in self._own:
            return self
        return None if self.outer is None else self.outer.of(layer)

    def count(self, layer: nn.Module, hidden_states: Tensor) -> None:
        """Count the tokens of a call of `layer`, with hidden_states [B, T, d], if it is the decoder's first."""
        if layer is self.layers[0]:
            self.tokens += hidden_states.shape[1]


_current: ContextVar[Session | None] = ContextVar("awareness_session", default=None)
_in_adapted_layer: ContextVar[bool] = ContextVar("awareness_in_adapted_layer", default=False)


@contextmanager
def entered(session: Session) -> Iterator[None]:
    """Make `session` the current one of this thread, inside the block."""
    token = _current.set(session)
    try:
        yield
    finally:
        _current.reset(token)


def current_session() -> Session | None:
    """The innermost session of this thread."""
    return _current.get()


@contextmanager
def inside_layer(session: Session | None) -> Iterator[None]:
    """Around the forward pass of a decoder layer with this session."""
    token = _in_adapted_layer.set(session is not None and session.is_adapted)
    try:
        yield
    finally:
        _in_adapted_layer.reset(token)


def adapter_is_read() -> bool:
    """Is this inside a layer of a decoder that reads something by an adapter? LoRA of a memory adapter is on only
    there."""
    return _in_adapted_layer.get()
