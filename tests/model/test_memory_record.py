"""memory.json: whole or refused."""

from __future__ import annotations

import json

import pytest

from awareness.errors import UsageError
from awareness.model.memory_record import MEMORY_RECORD, MemoryRecord, RecordedSource
from awareness.types import MemorySpec

SOURCE = RecordedSource(
    name="one",
    place="/x/one",
    commit=None,
    licence="MIT",
    split="train",
    files=1,
    chunks=2,
    kept=2,
    content="c",
    memory="m",
)
RECORD = MemoryRecord(
    base="tiny",
    fingerprint="f",
    encoder=MemoryRecord.spec_fields(MemorySpec("f", (1, 2), 2, 8, quant="int4")),
    learned=False,
    data={"sources": ["/x/one"], "kinds": {"which": 1}},
    seed=0,
    sources=(SOURCE,),
)


def test_what_is_written_is_read_again(tmp_path):
    assert MemoryRecord.read(tmp_path) is None
    RECORD.write(tmp_path)
    assert MemoryRecord.read(tmp_path) == RECORD
    assert RECORD.spec == MemorySpec("f", (1, 2), 2, 8)  # how latents are stored does not matter


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"format_version": 2}, "has format 2; this program reads 1"),
        ({"format_version": True}, "has format True"),
        ({"digest": "0"}, "its digest is"),
        ({"sources": [{**SOURCE.model_dump(), "memory": "other"}]}, "its digest is"),
        ({"sources": [{"name": "one"}]}, "is damaged or of another program"),
        ({"encoder": {"model": 3}}, "not a MemorySpec"),
        ({"encoder": []}, "is damaged or of another program"),
        ({"more": 1}, "is damaged or of another program"),
    ],
)
def test_a_damaged_one_is_refused(changed, match, tmp_path):
    RECORD.write(tmp_path)
    path = tmp_path / MEMORY_RECORD
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(UsageError, match=match):
        MemoryRecord.read(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "{}", "[" * 100_000])
def test_what_is_no_record_is_refused(text, tmp_path):
    (tmp_path / MEMORY_RECORD).write_text(text)
    with pytest.raises(UsageError, match=r"memory.json can't be read"):
        MemoryRecord.read(tmp_path)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"content": "d", "memory": "n"}, "one (/x/one) has other files"),
        ({"split": "validation"}, "one (/x/one) was for train, now for validation"),
        ({"memory": "n", "kept": 1}, "one (/x/one) has the same files, but other chunks (2 were used, now 1)"),
        ({"licence": "BSD", "commit": "abc"}, None),
    ],
)
def test_a_source_that_differs_is_named(changed, line):
    other = RECORD.model_copy(update={"sources": (SOURCE.model_copy(update=changed),)})
    assert RECORD.differences(other) == ([] if line is None else [line])
    assert (other.digest == RECORD.digest) is (line is None)


def test_sources_that_only_one_has_and_another_encoder_are_named():
    new = RECORD.model_copy(
        update={
            "sources": (SOURCE.model_copy(update={"name": "two", "place": "pypi:two==1"}),),
            "encoder": MemoryRecord.spec_fields(MemorySpec("f", (2,), 2, 8)),
        }
    )
    gone, more, encoder = RECORD.differences(new)
    assert (gone, more) == ("one (/x/one) is missing", "two (pypi:two==1) is new")
    assert (
        encoder.startswith("the encoder was self of tiny, 2 layers, bfloat16 (")
        and "now self of tiny, 1 layer," in encoder
    )
