"""Say before the first step which settings have no effect (config/unused.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from awareness.config.training import TrainConfig
from awareness.config.unused import UnusedSetting, unused_lines, unused_settings


def tell_unused(
    config: TrainConfig,
    say: Callable[[str], None],
    *,
    told: Sequence[UnusedSetting] = (),
    validates: bool = True,
) -> tuple[UnusedSetting, ...]:
    """Say what has no effect and is not among `told`, unless `quiet_unused` is set. Returns `told` and the new ones."""
    new = [
        one for one in unused_settings(config, validates=validates) if one.setting not in {old.setting for old in told}
    ]
    if not config.quiet_unused:
        for line in unused_lines(new):
            say(line)
    return (*told, *new)
