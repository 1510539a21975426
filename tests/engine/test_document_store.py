"""Documents on disk: by id, by scope, in checkpoints, whole after whatever happens, and never of another model."""

from __future__ import annotations

import multiprocessing
import os
import threading
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from awareness.engine.document_store import LatentMemoryStore
from awareness.engine.engine import Engine
from awareness.errors import IndexCorrupt, IndexLocked, UsageError
from awareness.index.store.lock import writing
from awareness.model.context_encoder import ContextEncoder
from awareness.model.latent_tensor import check_pair
from awareness.model.quantisation import to_latent, to_tensor
from awareness.model.reasoning_decoder import ReasoningDecoder
from tests.conftest import git, tiny_model, tiny_tokenizer, write_tree

TEXTS = {"src/main.py": "import a\n", "src/core/pool.py": "def acquire(self):\n    return 1\n", "docs/a.md": "# A\n"}


@pytest.fixture(scope="module")
def encoder(model_folder):
    return ContextEncoder(str(model_folder), dtype=torch.float32, max_tokens=24)


@pytest.fixture(scope="module")
def encoded(encoder):
    return {name: encoder.encode_document(text, name=name) for name, text in TEXTS.items()}


@pytest.fixture(scope="module")
def other_encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return ContextEncoder(str(folder), dtype=torch.float32)


@pytest.fixture
def store(tmp_path, encoded):
    opened = LatentMemoryStore(tmp_path / "memory")
    opened.add_documents(encoded, {"src/main.py": {"path": "src/main.py", "stars": [1, None, "é"]}})
    return opened


def same(left, right) -> bool:
    return all(torch.equal(a, b) and a.spans == b.spans for a, b in zip(left, right, strict=True))


class TestDocuments:
    def test_nothing_is_made_before_the_first_document(self, tmp_path):
        store = LatentMemoryStore(tmp_path / "memory")
        assert len(store) == 0 and store.documents() == [] and "a" not in store
        keys, values = store.retrieve_by_scope("**")
        assert keys.numel() == values.numel() == 0
        assert store.check().problems == [] and store.compact() == 0
        assert not (tmp_path / "memory").exists()

    def test_they_are_kept_by_id_with_their_metadata(self, store, encoded, encoder):
        again = LatentMemoryStore(store.layout.root)
        assert [document.id for document in again.documents()] == ["docs/a.md", "src/core/pool.py", "src/main.py"]
        document = again.get_document("src/main.py")
        assert document.metadata == {"path": "src/main.py", "stars": [1, None, "é"]}
        assert (document.pieces, document.tokens, document.spec) == ((9,), 9, encoder.spec)
        assert again.get_document("src/core/pool.py").pieces == (19, 13)
        assert len(again) == 3 and "docs/a.md" in again and "docs/b.md" not in again
        assert document.nbytes == encoded["src/main.py"][0].numel() * 2 * 2

    def test_what_is_retrieved_is_what_was_added(self, store, encoded):
        for name, own in encoded.items():
            assert same(store.retrieve([name]), own)
            assert store.retrieve([name])[0].spec == own[0].spec

    def test_documents_stand_in_the_order_asked_for(self, store, encoded):
        keys, values = store.retrieve(["src/main.py", "docs/a.md"])
        assert [(span.name, span.start, span.stop) for span in keys.spans] == [
            ("src/main.py", 0, 9),
            ("docs/a.md", 9, 13),
        ]
        assert torch.equal(keys, torch.cat([encoded["src/main.py"][0], encoded["docs/a.md"][0]], dim=2))
        assert torch.equal(values, torch.cat([encoded["src/main.py"][1], encoded["docs/a.md"][1]], dim=2))

    def test_a_scope_is_a_pattern_of_paths(self, store):
        names = lambda scope: [document.id for document in store.documents(scope)]  # noqa: E731
        assert names("src/**/*.py") == ["src/core/pool.py", "src/main.py"]
        assert names(["src/**", "!**/pool.py"]) == ["src/main.py"]
        assert same(store.retrieve_by_scope("src/**/*.py"), store.retrieve(["src/core/pool.py", "src/main.py"]))
        keys, _ = store.retrieve_by_scope("nothing/**")
        assert keys.shape == (5, 2, 0, 8)

    def test_one_of_the_same_id_is_replaced(self, store, encoded):
        store.add_document("src/main.py", *encoded["docs/a.md"], metadata={"new": True})
        assert len(store) == store.check().files == 3
        assert store.get_document("src/main.py").metadata == {"new": True}
        keys, _ = store.retrieve(["src/main.py"])
        assert torch.equal(keys, encoded["docs/a.md"][0]) and keys.spans[0].name == "src/main.py"

    def test_removed_documents_give_their_room_back(self, store, encoded):
        before = sum(file.stat().st_size for file in store.layout.shards.iterdir())
        store.remove_document("src/core/pool.py")
        assert [document.id for document in store.documents()] == ["docs/a.md", "src/main.py"]
        assert store.compact() > 0
        assert sum(file.stat().st_size for file in store.layout.shards.iterdir()) < before
        assert same(store.retrieve(["src/main.py"]), encoded["src/main.py"])
        with pytest.raises(UsageError, match=r"no document 'src/core/pool.py'"):
            store.remove_document("src/core/pool.py")

    def test_the_same_document_twice_is_written_once(self, store, encoded):
        files = set(store.layout.shards.iterdir())
        store.add_document("docs/a.md", *encoded["docs/a.md"])
        assert set(store.layout.shards.iterdir()) == files

    def test_an_empty_document(self, store, encoder):
        store.add_document("empty", *encoder.encode_document(""))
        assert store.get_document("empty").tokens == 0
        keys, _ = store.retrieve(["empty", "src/main.py"])
        assert keys.shape[2] == 9

    def test_unusual_ids(self, store, encoded):
        for name in ("a b\n'c'", "日本", os.fsdecode(b"\xff.py"), "/absolute", "x" * 3000):
            store.add_document(name, *encoded["docs/a.md"])
            assert store.retrieve([name])[0].spans[0].name == name
        assert store.check().problems == []


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "compact"]), st.sampled_from("abc"), st.integers(0, 2))))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_store_is_a_dictionary(tmp_path_factory, encoded, steps):
    store = LatentMemoryStore(tmp_path_factory.mktemp("store"))
    contents = list(encoded.values())
    expected: dict[str, int] = {}
    for action, name, which in steps:
        if action == "add":
            store.add_document(name, *contents[which])
            expected[name] = which
        elif action == "compact":
            store.compact()
        elif name in expected:
            store.remove_document(name)
            del expected[name]
    assert [document.id for document in store.documents()] == sorted(expected)
    for name, which in expected.items():
        assert torch.equal(store.retrieve([name])[0], contents[which][0])
    assert store.check().problems == []


class TestSameAsTheCommandLine:
    """`awareness index` and a store make the same latents of a file, and a question attends to the same memory."""

    SOURCE = "class HTTPConnectionPool:\n    def acquire(self):\n        return 1\n"

    @pytest.mark.parametrize("quant", ["none", "int4"])
    def test_memory_and_logits_are_the_same_bit_for_bit(self, quant, tmp_path, model_folder):
        repository = write_tree(tmp_path / "repository", {"src/pool.py": self.SOURCE})
        git(repository, "init", "-q")
        git(repository, "add", ".")
        with Engine.open(repository, model=str(model_folder)) as engine:
            engine.refresh()
            corpus = engine.corpora[0]
            with writing(corpus.store.layout):
                corpus.store.remember("quant", quant)
            engine._close_corpora()  # the setting is read when it is opened
            hits = engine.search("HTTPConnectionPool")
            assert [hit.corpus.quant for hit in hits] == [quant]
            want = engine.attach(hits)
            loaded = engine.load()
        encoder = ContextEncoder(str(model_folder), max_tokens=256)
        store = LatentMemoryStore(tmp_path / "memory", quant=quant)
        store.add_text("src/pool.py", self.SOURCE, encoder)
        decoder = ReasoningDecoder(encoder)
        keys, values = store.retrieve(["src/pool.py"])
        got = decoder.memory(keys, values)
        assert got.spans == want.spans
        for layer in want.keys:
            assert torch.equal(got.keys[layer], want.keys[layer])
            assert torch.equal(got.values[layer], want.values[layer])
        (chunk,) = (hit.chunk for hit in hits)
        (latent,) = loaded.encoder.storing_as(quant).encode([chunk.encoded_text])
        pair = check_pair(*encoder.encode_document(chunk.encoded_text))
        assert bytes(to_latent(pair.tensor, replace(pair.spec, quant=quant)).data) == bytes(latent.data)

    def test_a_file_is_cut_as_an_index_cuts_it(self, tmp_path, encoder, model_folder):
        text = "".join(f"def f{i}(a):\n    return a + {i}\n\n\n" for i in range(4))
        wide = ContextEncoder(encoder.decoder, max_tokens=60)
        store = LatentMemoryStore(tmp_path / "memory")
        store.add_text("src/f.py", text, wide, metadata={"kind": "source"})
        document = store.get_document("src/f.py")
        assert len(document.pieces) == 4 and max(document.pieces) <= 60
        assert document.metadata == {"kind": "source"}
        store.add_text("blank.py", "\n\n", wide)
        assert store.get_document("blank.py").tokens == 0


class TestQuantised:
    @pytest.mark.parametrize("quant", ["int8", "int4", "int2", "fp8"])
    def test_numbers_are_stored_in_fewer_bits(self, quant, tmp_path, encoded, encoder):
        store = LatentMemoryStore(tmp_path / "memory", quant=quant)
        store.add_documents(encoded)
        spec = replace(encoder.spec, quant=quant)
        assert store.get_document("src/main.py").spec == spec
        want = to_tensor(to_latent(check_pair(*encoded["src/main.py"]).tensor, spec), spec)
        keys, values = LatentMemoryStore(store.layout.root).retrieve(["src/main.py"])
        assert torch.equal(keys, want[0]) and torch.equal(values, want[1])
        assert keys.spec == encoder.spec  # what is attended to is no longer quantised
        ReasoningDecoder(encoder)(torch.tensor([[1, 2]]), memory_key=keys, memory_value=values)

    def test_one_store_has_one_way(self, store, tmp_path):
        with pytest.raises(UsageError, match="are stored as none, not as int8"):
            LatentMemoryStore(store.layout.root, quant="int8")
        with pytest.raises(UsageError, match="quant is 'int3'"):
            LatentMemoryStore(tmp_path / "other", quant="int3")


class TestRefusals:
    def test_documents_of_another_model(self, store, other_encoder):
        keys, values = other_encoder.encode_document("x = 1\n")
        with pytest.raises(UsageError, match=r"document 'x.py' was made by .*tiny-llama .*, which .*tiny-qwen3 "):
            store.add_document("x.py", keys, values)
        assert len(store) == 3
        for document in store.documents():
            store.remove_document(document.id)
        store.add_document("x.py", keys, values)  # nothing is left that it would have to go with
        assert len(store) == 1

    def test_several_of_different_models(self, tmp_path, encoded, other_encoder):
        mixed = {**encoded, "x.py": other_encoder.encode_document("x = 1\n")}
        store = LatentMemoryStore(tmp_path / "memory")
        with pytest.raises(UsageError, match=r"document 'x.py' was made by"):
            store.add_documents(mixed)
        assert len(store) == 0

    def test_plain_tensors_need_a_spec_or_an_encoder(self, store, encoded, encoder):
        keys, values = (side.clone() for side in encoded["docs/a.md"])
        with pytest.raises(UsageError, match="plain tensors do not say"):
            store.add_document("x", keys, values)
        store.add_document("x", keys, values, encoder=encoder)
        store.add_document("y", keys.float(), values.float(), spec=encoder.spec)
        for name in "xy":
            got = store.retrieve([name])
            assert all(torch.equal(a, b) for a, b in zip(got, (keys, values), strict=True))
        with pytest.raises(UsageError, match=r"are \[4, 2, 4, 8\]; .* needs \[5, 2, 4, 8\]"):
            store.add_document("z", keys[1:], values[1:], encoder=encoder)

    def test_wrong_arguments(self, store, encoded, tmp_path):
        keys_values = encoded["docs/a.md"]
        with pytest.raises(UsageError, match="id that is not empty"):
            store.add_document("", *keys_values)
        with pytest.raises(UsageError, match="not a text that a file name can hold"):
            store.add_document("\ud800", *keys_values)
        with pytest.raises(UsageError, match=r"metadata of document 'x' is not JSON: .*bytes"):
            store.add_document("x", *keys_values, metadata={"a": b"1"})
        with pytest.raises(UsageError, match="metadata of 'y', which is not among the documents"):
            store.add_documents({"x": keys_values}, {"y": {}})
        with pytest.raises(UsageError, match="no document 'x' in"):
            store.retrieve(["src/main.py", "x"])
        with pytest.raises(UsageError, match=r"'docs/a.md' is asked for twice"):
            store.retrieve(["docs/a.md", "docs/a.md"])
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError, match="is a file"):
            LatentMemoryStore(tmp_path / "file")


class TestCheckpoints:
    def test_a_memory_is_saved_with_a_checkpoint(self, store, encoded, tmp_path):
        checkpoint = write_tree(tmp_path / "run", {"config.json": "{}"})
        assert store.save(checkpoint) == checkpoint / "memory"
        assert (checkpoint / "config.json").read_text() == "{}"
        store.remove_document("docs/a.md")
        loaded = LatentMemoryStore.load(checkpoint)
        assert [document.id for document in loaded.documents()] == ["docs/a.md", "src/core/pool.py", "src/main.py"]
        assert loaded.get_document("src/main.py").metadata["stars"] == [1, None, "é"]
        assert all(same(loaded.retrieve([name]), own) for name, own in encoded.items())
        assert loaded.check().problems == []

    def test_it_replaces_the_one_that_is_there(self, store, tmp_path):
        store.save(tmp_path / "run")
        store.remove_document("docs/a.md")
        store.save(tmp_path / "run")
        loaded = LatentMemoryStore.load(tmp_path / "run")
        assert len(loaded) == 2
        assert loaded.save(tmp_path / "run") == tmp_path / "run" / "memory"  # onto itself
        assert len(loaded) == 2

    def test_an_empty_one_and_none(self, tmp_path):
        LatentMemoryStore(tmp_path / "memory").save(tmp_path / "run")
        assert LatentMemoryStore.load(tmp_path / "run").documents() == []
        with pytest.raises(UsageError, match="has no memory in it"):
            LatentMemoryStore.load(tmp_path / "elsewhere")


class TestCare:
    def test_damage_is_found_and_named(self, store):
        (shard,) = store.layout.shards.iterdir()
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
        (problem,) = store.check().problems
        assert problem.kind == "latent"
        with pytest.raises(IndexCorrupt, match=shard.name) as refusal:
            store.retrieve_by_scope("**")
        assert "add it again" in refusal.value.hint

    def test_one_writer_at_a_time(self, store, encoded):
        with writing(store.layout):
            with pytest.raises(IndexLocked):
                store.add_document("x", *encoded["docs/a.md"])
            assert len(store.documents()) == 3  # readers do not wait

    def test_threads_take_turns(self, tmp_path, encoded):
        store = LatentMemoryStore(tmp_path / "memory")
        failures = []

        def add(name):
            try:
                store.add_document(name, *encoded["docs/a.md"])
                store.retrieve([name])
            except BaseException as error:  # noqa: BLE001 - shown by the assertion
                failures.append(error)

        threads = [threading.Thread(target=add, args=(str(i),)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == [] and len(store) == 8

    def test_a_document_replaced_between_lookup_and_read_is_looked_up_again(self, store, encoded):
        name = "src/main.py"
        lookups = [store.documents(name)]

        def choose():
            if len(lookups) == 1:  # the first lookup; then another process replaces the document and frees the old one
                other = LatentMemoryStore(store.layout.root)
                other.add_document(name, *encoded["docs/a.md"])
                other.compact()
                lookups.append(store.documents(name))
                return lookups[0]
            return store.documents(name)

        assert torch.equal(store._read(choose)[0], encoded["docs/a.md"][0])

    def test_a_writer_that_is_killed_leaves_whole_documents(self, store):
        """SIGKILL at some moment while another process adds and removes."""

        def work(ready):
            own = LatentMemoryStore(store.layout.root)
            keys_values = own.retrieve(["src/main.py"])
            for i in range(1000):
                own.add_document(f"new/{i % 5}", *keys_values, metadata={"i": i})
                if i % 5 == 4:
                    own.remove_document("new/2")
                    own.compact()
                ready.set()

        fork = multiprocessing.get_context("fork")
        for seconds in (0.01, 0.13, 0.27, 0.41):
            ready = fork.Event()
            worker = fork.Process(target=work, args=(ready,))
            worker.start()
            assert ready.wait(30)
            worker.join(seconds)
            assert worker.exitcode is None
            worker.kill()
            worker.join()
            assert store.check().problems == []
            keys, _ = store.retrieve_by_scope("**")
            assert keys.shape[2] == sum(document.tokens for document in store.documents()) > 45
