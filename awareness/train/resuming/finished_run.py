"""A training that is finished: was it done with the settings of now?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from awareness.config.setting_changes import ABSENT, changed_settings, first_lines
from awareness.errors import UsageError

_WITHOUT_EFFECT = ("output_dir", "quiet_unused", "training.resume_from_checkpoint", "training.logging_steps")
_OF_TRACKERS = ("training.log_to_", "training.wandb_")


def must_be_of(output_dir: Path, settings: Mapping[str, Any]) -> None:
    """Raises UsageError if the finished training in `output_dir` has other settings, and names them. Settings that it
    has not written down, as they are newer, are not compared."""
    path = output_dir / "train.json"
    try:
        written: dict[str, Any] = json.loads(path.read_text("utf-8"))
        changed = changed_settings(written, settings)
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{path} can't be read, so it is unknown what {output_dir / 'final'} was trained with",
            hint="--runs ANOTHER_FOLDER",
        ) from error
    if told := [
        setting
        for setting in changed
        if setting.first != ABSENT and setting.key not in _WITHOUT_EFFECT and not setting.key.startswith(_OF_TRACKERS)
    ]:
        raise UsageError(
            f"{output_dir} has a training with other settings: {first_lines(told)}",
            hint=f"--runs ANOTHER_FOLDER, or delete {output_dir} to train it again",
        )
