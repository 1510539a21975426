"""Compare the settings and the data of a saved run with those of now, key by key.

Both are an `about`: the groups of values that decide the losses of a run (preparation.py makes it, saved_steps.py keeps
it in every checkpoint). A group that an older version of the program did not save is not compared.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from awareness.config.decoder import OF_ANY_BASE, ModelConfig
from awareness.config.memory import MemoryConfig
from awareness.config.setting_changes import ABSENT, flat
from awareness.config.training import DataConfig, LossConfig, TrainingConfig

STEPS = "training.max_steps"
_PLACES = {
    "settings": "",
    "samples": "data",
    "rates": "training",
    "texts": "training",
    "precision": "training.mixed_precision",
    "steps": STEPS,
    "seed": "training.seed",
}
"""Group of an `about` -> the section or the key of its settings."""
_BATCH = ("training.batch_size", "training.gradient_accumulation_steps", "training.num_gpus")
_KINDS, _BASE = "data.kinds", "model.base_model_name"
_DECIDE_WHAT_IS_READ = {f"training.{name}" for name in ("seed", "dataset_split", "text_field", "max_length")}


@dataclass(frozen=True)
class Difference:
    """line: what was and what is now. setting: `key=value` that brings back what was; None if no setting does."""

    line: str
    key: str
    setting: str | None = None


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """All differences, those of settings first. saved, now: each an `about`. A group that `now` lacks is not compared
    either."""
    now = json.loads(json.dumps(now))
    found: list[Difference] = []
    for group, place in _PLACES.items():
        if group in saved and group in now:
            found += _of_settings(_settings(place, saved[group]), _settings(place, now[group]))
    found = [replace(each, setting=_model_of(saved)) if each.key.startswith("model.") else each for each in found]
    found += _of_kinds(saved, now)
    if "batch" in saved and "batch" in now:
        found += _of_batch(saved["batch"], now["batch"])
    return [*found, *_of_base(saved, now, found), *_of_data(saved, now, found)]


def restored(found: Sequence[Difference]) -> str:
    """The options that bring back the settings that were; empty if no setting does."""
    return " ".join(dict.fromkeys(f"--set {shlex.quote(d.setting)}" for d in found if d.setting is not None))


def default_of(key: str) -> Any:
    """The default of a setting of a training, `ABSENT` for one that has none or is unknown."""
    return _DEFAULTS.get(key, ABSENT)


def _settings(place: str, value: Any) -> dict[str, Any]:
    """Full key -> value, of a section or of one setting."""
    return flat(value, place) if isinstance(value, Mapping) else {place: value}


def _defaults() -> dict[str, Any]:
    data = {
        name: field.get_default(call_default_factory=True)
        for name, field in DataConfig.model_fields.items()
        if not field.is_required()
    }
    sections: dict[str, Any] = {
        "start_from": None,
        "model": ModelConfig().model_dump(mode="json"),
        "memory": MemoryConfig().model_dump(mode="json"),
        "losses": LossConfig().model_dump(mode="json"),
        "training": TrainingConfig().model_dump(mode="json"),
        "data": json.loads(json.dumps(data)),
    }
    return flat(sections)


_DEFAULTS = _defaults()


def _of_settings(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    for key in dict.fromkeys((*saved, *now)):
        if key == _BASE or key.startswith(f"{_KINDS}."):  # compared by _of_base and _of_kinds
            continue
        if key not in now:
            line = f"{key} was {_shown(saved[key])}; this version of the program has no such setting"
            yield Difference(line, key)
            continue
        was = saved[key] if key in saved else default_of(key)
        if was != now[key]:
            setting = None if was == ABSENT else f"{key}={_shown(was)}"
            yield Difference(f"{key} was {_shown(was)}, now {_shown(now[key])}", key, setting)


def _of_kinds(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """Weights of the kinds of samples, and their order, by which they are drawn."""
    before, after = (about.get("samples", {}).get("kinds") for about in (saved, now))
    if before is None or after is None:
        return
    whole = f"{_KINDS}={json.dumps(before)}"
    for kind in dict.fromkeys((*before, *after)):
        was, is_now = before.get(kind, ABSENT), after.get(kind, ABSENT)
        if was != is_now:
            setting = f"{_KINDS}.{kind}={was}" if list(before) == list(after) else whole
            yield Difference(f"{_KINDS}.{kind} was {_shown(was)}, now {_shown(is_now)}", f"{_KINDS}.{kind}", setting)
    if before.keys() == after.keys() and list(before) != list(after):
        yield Difference(f"{_KINDS}: the order was {', '.join(before)}, now {', '.join(after)}", _KINDS, whole)


def _of_batch(saved: Any, now: Any) -> Iterator[Difference]:
    """A step of as many samples learns the same ones, however they are dealt."""
    if _is_split(saved) and _is_split(now):
        for key, was, is_now in zip(_BATCH, saved, now, strict=True):
            if was != is_now and not is_same_batch(saved, now):
                yield Difference(f"{key} was {was}, now {is_now}", key, f"{key}={was}")
    elif saved != now:
        yield Difference(f"the samples of a step were {_shown(saved)}, now {_shown(now)}", _BATCH[0])


def is_same_batch(saved: Any, now: Any) -> bool:
    """Whether a step learns as many samples: each is [batch_size, gradient_accumulation_steps, num_gpus]. Sample i is a
    function of i alone, so the steps then learn the same samples."""
    return _is_split(saved) and _is_split(now) and math.prod(saved) == math.prod(now)


def changed_split(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """A line about a run that deals the samples of a step differently from its checkpoint; None if it deals them alike.
    saved, now: each an `about`."""
    before, after = saved.get("batch", ()), now.get("batch", ())
    if before == after or not is_same_batch(before, after):
        return None
    was, is_now = (" x ".join(map(str, sizes)) for sizes in (before, after))
    return (
        f"resumed with batch x accumulation x processes {is_now}, which were {was}: each step learns the same samples;"
        " dropout and rounding differ"
    )


def _is_split(sizes: Any) -> bool:
    return isinstance(sizes, list) and len(sizes) == len(_BATCH)


def _of_base(saved: Mapping[str, Any], now: Mapping[str, Any], found: Sequence[Difference]) -> Iterator[Difference]:
    """The base model by its weights: under another path it is the same model. And what memory is made of."""
    if "base" not in saved or "base" not in now:
        return
    if saved["base"] != now["base"]:
        was, is_now = (about.get("settings", {}).get("model", {}).get("base_model_name") for about in (saved, now))
        if was != is_now:
            yield Difference(f"{_BASE} was {_shown(was)}, now {_shown(is_now)}", _BASE, _model_of(saved))
        else:
            line = f"{_BASE}: the weights of {_shown(was)} were {saved['base']}, now they are {now['base']}"
            yield Difference(line, _BASE)
    elif saved.get("memory") != now.get("memory") and not any(d.key.startswith(("model.", "memory.")) for d in found):
        yield Difference(f"latents were {saved.get('memory')}, now they are {now.get('memory')}", "memory")


def _model_of(saved: Mapping[str, Any]) -> str:
    """The whole section, as a file may have only a name in its place."""
    section = saved["settings"]["model"]
    of_base = section["base_model_name"] is not None
    return "model=" + json.dumps({name: section[name] for name in section if not of_base or name in OF_ANY_BASE})


def _of_data(saved: Mapping[str, Any], now: Mapping[str, Any], found: Sequence[Difference]) -> list[Difference]:
    """What was read. A setting that decides what is read is named instead of the sources that it changes."""
    if "sources" in saved and "sources" in now:
        if saved["sources"] == now["sources"]:
            return []
        place = "data.sources" if now.get("samples") else "training.dataset_name"
        changed = list(_of_sources(saved["sources"], now["sources"], place))
    elif saved.get("data", now.get("data")) == now.get("data") or "data" not in now:
        return []
    else:
        changed = [Difference("data.sources: what is read from them is not what it was", "data.sources")]
    reading = list(_of_settings(flat(saved.get("reading", {}), "data"), flat(now.get("reading", {}), "data")))
    if "reading" in saved and reading:
        return reading
    return [] if any(d.key in _DECIDE_WHAT_IS_READ for d in found) else changed


def _of_sources(
    saved: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], place: str
) -> Iterator[Difference]:
    before, after = ({source["name"]: source for source in sources} for sources in (saved, now))
    lines = []
    for name in dict.fromkeys((*before, *after)):
        was, is_now = before.get(name), after.get(name)
        if is_now is None:
            lines.append(f"{name} is gone")
        elif was is None:
            lines.append(f"{name} is new")
        elif was["split"] != is_now["split"]:
            lines.append(f"{name} was for {was['split']}, now for {is_now['split']}")
        elif was["digest"] != is_now["digest"]:
            counts = "" if was["size"] == is_now["size"] else f": {was['size']} were read, now {is_now['size']}"
            lines.append(f"{name} has changed{counts}")
    if not lines:
        lines.append(f"the order was {', '.join(before)}, now {', '.join(after)}")
    for line in lines:
        yield Difference(f"{place}: {line}", place)


def _shown(value: Any) -> str:
    """As a YAML file has it."""
    return value if value == ABSENT else json.dumps(value)
