"""A fleet of three small repositories, indexed once by Ray, and an S3 server."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from awareness.fleet.run_report import RunReport

SHARED = {"lib/retry.py": "def retry(call, times):\n    for _ in range(times):\n        call()\n"}
BILLING = {**SHARED, "billing/invoice.py": "def total(rows):\n    return sum(row.price for row in rows)\n"}
MAIL = {**SHARED, "mail/sender.py": "def send_mail(address):\n    raise RuntimeError('smtp refused')\n"}


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """Ray with two processors, started once."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


@pytest.fixture
def repositories(tmp_path: Path) -> Path:
    """A folder of three repositories; two of them share a file."""
    return _written(tmp_path / "repositories")


def _written(folder: Path) -> Path:
    from tests.conftest import SAMPLE, commit_all, write_tree

    for name, files in (("sample", SAMPLE), ("billing", BILLING), ("mail", MAIL)):
        commit_all(write_tree(folder / name, files))
    return folder


def index(place: Path | str, folder: Path, model: Path, **options: object) -> RunReport:
    """Indexes the repositories in a folder."""
    from awareness.fleet.cluster import Workers
    from awareness.fleet.cutting import Rules
    from awareness.fleet.driver import run_fleet
    from awareness.fleet.object_store import open_store
    from awareness.fleet.sources import read_sources

    return run_fleet(
        open_store(str(place), patience_s=20),
        read_sources([str(folder)]),
        model=str(model),
        quant="int4",
        rules=Rules(str(model)),
        workers=Workers(encoders=1),
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="session")
def _indexed(tmp_path_factory: pytest.TempPathFactory, ray_here: None, model_folder: Path) -> tuple[Path, Path]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")):
            patch.setenv(name, value)
        for role in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{role}_NAME", "somebody")
            patch.setenv(f"GIT_{role}_EMAIL", "somebody@example.org")
        folder = tmp_path_factory.mktemp("fleet")
        index(folder / "store", _written(folder / "repositories"), model_folder)
    return folder / "store", folder / "repositories"


@pytest.fixture
def store(tmp_path: Path, _indexed: tuple[Path, Path]) -> Path:
    """A copy of the store with the three repositories."""
    shutil.copytree(_indexed[0], tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def indexed_repositories(_indexed: tuple[Path, Path]) -> Path:
    """What `store` was made of. Not to be changed."""
    return _indexed[1]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a new folder of a bucket, on a server that speaks S3."""
    import httpx
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    use_s3(monkeypatch, f"http://{host}:{port}")
    bucket = f"code-{os.urandom(4).hex()}"  # the servers of one process share what they hold
    httpx.put(f"http://{host}:{port}/{bucket}").raise_for_status()
    yield f"s3://{bucket}/fleet"
    server.stop()


def use_s3(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    secrets = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    for name, value in {**secrets, "AWS_ENDPOINT_URL": address}.items():
        monkeypatch.setenv(name, value)


def upload(store: Path, url: str) -> str:
    """Writes a copy of a store in a folder into a bucket."""
    from awareness.fleet.object_store import open_store

    objects = open_store(url)
    for path in store.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            key = path.relative_to(store).as_posix()
            objects.create(key, path.read_bytes())
    return url
