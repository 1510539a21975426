"""`awareness models calibrate`, and all that reads or keeps latents with `--quant pca`, as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from awareness.cli.app import run
from awareness.engine.calibration import CHUNKS, _chosen
from awareness.engine.workspace import Workspace
from awareness.model.model_files import pull
from awareness.model.pca import tables as pca_tables
from tests.conftest import write_tree


@pytest.fixture(autouse=True)
def models_dir(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("models")
    monkeypatch.setenv("AWARENESS_MODELS_DIR", str(folder))
    return folder


@pytest.fixture
def call(capfd):
    """Runs a command line that succeeds; what it prints as JSON."""

    def run_it(*arguments: str) -> dict:
        code = run([*arguments, "--format", "json"])
        out, err = capfd.readouterr()
        assert code == 0, err
        return json.loads(out)

    return run_it


@pytest.fixture
def calibrated(call, sample, model_folder) -> dict:
    return call("models", "calibrate", str(model_folder), "--repo", str(sample))


def test_calibrate_keeps_tables_that_fit_the_decoder(call, calibrated, sample, model_folder):
    file = Path(calibrated["file"])
    folder = pull(str(model_folder))
    assert file == pca_tables.calibrated_file(folder.fingerprint)
    assert calibrated["chunks"] == len(_chosen(sample, folder, CHUNKS))
    first = file.read_bytes()
    again = call("models", "calibrate", str(model_folder), "--repo", str(sample))
    assert (file.read_bytes(), again["tokens"]) == (first, calibrated["tokens"])


def test_too_little_code(tmp_path, model_folder, capfd):
    write_tree(tmp_path / "few", {"a.py": "x = 1\n"})
    assert run(["models", "calibrate", str(model_folder), "--repo", str(tmp_path / "few")]) == 2
    err = capfd.readouterr().err
    assert "tokens of code are too few" in err and "--repo" in err
    assert pca_tables.find(pull(str(model_folder)).fingerprint) is None


def test_without_tables_nothing_is_remembered_and_the_hint_is_the_next_command(sample, model_folder, capfd):
    model = ["--model", str(model_folder)]
    assert run(["index", str(sample), "--quant", "pca", *model, "--lazy"]) == 2
    err = capfd.readouterr().err
    assert "no tables for this decoder" in err and "awareness models calibrate" in err
    assert run(["index", str(sample), *model, "--lazy", "--format", "json"]) == 0
    assert json.loads(capfd.readouterr().out)["quant"] == "int4"


def test_an_index_with_pca_from_beginning_to_end(call, calibrated, sample, model_folder, tmp_path):
    repo, model = ["--repo", str(sample)], ["--model", str(model_folder)]
    sizes = {}
    for quant in ("int4", "pca"):
        indexed = call("index", str(sample), "--quant", quant, "--all", *model)
        assert (indexed["quant"], indexed["pending"]) == (quant, 0)
        sizes[quant] = indexed["bytes"]
    assert sizes["pca"] == calibrated["token_bytes"] * indexed["tokens"] < 0.6 * sizes["int4"]
    assert call("index", str(sample), *model)["encoded"] == 0
    assert {kind["quant"] for kind in call("status", *repo)["latents"]} == {"int4", "pca"}
    assert call("ask", "HTTPConnectionPool acquire", "-n", "2", *repo, *model)["memory"]["tokens"] > 0
    assert call("gc", *repo)["latents"] == indexed["latents"]
    assert call("check", "--read-data", *repo)["problems"] == []

    layout = Workspace.open(sample).layout
    shard = next(path for path in layout.shards.glob("*.safetensors") if b"pca" in path.read_bytes())
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert call("repair", *repo, *model)["encoded"] == 1
    assert call("check", "--read-data", *repo)["problems"] == []

    packs = {quant: tmp_path / f"{quant}.awm" for quant in ("int4", "pca")}
    for quant, pack in packs.items():
        call("pack", str(pack), "--quant", quant, *repo, *model)
    assert packs["pca"].stat().st_size < 0.75 * packs["int4"].stat().st_size  # both hold the text, too
    answer = call("ask", "HTTPConnectionPool acquire", "-n", "1", "--memory", str(packs["pca"]), *model)
    assert answer["citations"][0]["path"] == "src/pool.py"


def test_a_pack_of_other_tables_is_refused(call, calibrated, sample, model_folder, tmp_path, models_dir, capfd):
    pack, model = tmp_path / "p.awm", ["--model", str(model_folder)]
    call("pack", str(pack), "--quant", "pca", "--repo", str(sample), *model)
    shutil.rmtree(models_dir / "pca")
    ask = ["ask", "HTTPConnectionPool acquire", "-n", "1", "--memory", str(pack), *model]
    assert run(ask) == 2
    assert "no tables for this decoder" in capfd.readouterr().err
    write_tree(tmp_path / "other", {"b.py": "".join(f"def other_{i}(x):\n    return x * {i}\n" for i in range(60))})
    call("models", "calibrate", str(model_folder), "--repo", str(tmp_path / "other"))
    assert run(ask) == 2
    assert "other tables of --quant pca" in capfd.readouterr().err


def test_new_tables_encode_again(call, calibrated, sample, model_folder, tmp_path):
    model = ["--model", str(model_folder)]
    before = call("index", str(sample), "--quant", "pca", "--all", *model)
    write_tree(tmp_path / "other", {"b.py": "".join(f"def other_{i}(x):\n    return x * {i}\n" for i in range(60))})
    call("models", "calibrate", str(model_folder), "--repo", str(tmp_path / "other"))
    after = call("index", str(sample), "--all", *model)
    assert (after["encoded"], after["latents"]) == (before["encoded"], before["latents"])
    assert call("gc", "--repo", str(sample))["latents"] == before["latents"]  # those of the tables of before
    assert call("index", str(sample), "--all", *model)["encoded"] == 0
