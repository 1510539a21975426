"""Open a split of the Hugging Face data set `training.dataset_name`.

The name is a folder that `save_to_disk` wrote, a file or a folder of json, jsonl, parquet, csv or txt, or a name on the
hub. Only these plain formats are accepted; `datasets` runs no code of a data set.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from awareness.config.training import TrainingConfig
from awareness.errors import ModelNotAvailable, UsageError

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv", ".txt": "text"}
SPLIT_HINT = "--set training.dataset_split=train, or a part of it: train[:90%]"
_NAME_HINT = "--set training.dataset_name=FILE.jsonl, a folder, or a name on the hub"
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def open_split(config: TrainingConfig, split: str) -> Dataset:
    """The rows of a split, as stored. Raises UsageError, or ModelNotAvailable if it cannot be fetched."""
    try:
        import datasets
    except ImportError as error:
        hint = 'pip install "awareness[train]"'
        raise UsageError("training.dataset_name needs the package `datasets`", hint=hint) from error
    from huggingface_hub.errors import HfHubHTTPError

    name = config.dataset_name
    if name is None:
        raise UsageError("training.dataset_name is not set", hint="--set training.dataset_name=train.jsonl")
    datasets.disable_progress_bars()
    path = Path(name).expanduser()
    if not path.exists() and (path.suffix in FORMATS or not _HUB_NAME.fullmatch(name)):
        raise UsageError(f"training.dataset_name: there is no file or folder '{name}'", hint=_NAME_HINT)
    saved = (path / "state.json").exists() or (path / "dataset_dict.json").exists()
    if config.dataset_subset and (saved or path.is_file()):
        hint = "--set training.dataset_subset=null"
        raise UsageError(f"training.dataset_subset: '{name}' has no subsets", hint=hint)
    try:
        if saved:
            return _from_disk(path, split)
        if path.is_file():
            if path.suffix not in FORMATS:
                raise UsageError(f"training.dataset_name: '{name}' is none of {', '.join(FORMATS)}", hint=_NAME_HINT)
            builder = datasets.load_dataset_builder(FORMATS[path.suffix], data_files={"train": str(path.resolve())})
        else:
            builder = datasets.load_dataset_builder(str(path) if path.exists() else name, name=config.dataset_subset)
        kind = type(builder).__module__.split(".")[-1]
        if kind not in {*FORMATS.values(), "arrow"}:
            raise UsageError(f"data set '{name}' is not of texts: its format is {kind}", hint=_NAME_HINT)
        builder.download_and_prepare()
        return builder.as_dataset(split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if not path.exists() and isinstance(error, ConnectionError | FileNotFoundError | HfHubHTTPError):
            message = f"data set '{name}' is not on this machine, and can't be fetched: {reason}"
            raise ModelNotAvailable(message, hint=_NAME_HINT) from error
        raise UsageError(f"split '{split}' of data set '{name}' can't be read: {reason}", hint=SPLIT_HINT) from error


def _from_disk(path: Path, split: str) -> Dataset:
    """A split of what `save_to_disk` wrote. A data set without splits is `train`."""
    import datasets

    saved = datasets.load_from_disk(str(path))
    splits = saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
    lengths = {name: len(part) for name, part in splits.items()}
    chosen = datasets.ReadInstruction.from_spec(split).to_absolute(lengths)
    part = datasets.concatenate_datasets([splits[c.splitname].select(range(c.from_, c.to)) for c in chosen])
    if not len(part):
        raise ValueError("it has no rows")
    return part
