"""`GET /runs`: the training curves of the folder that `awareness serve --runs FOLDER` names."""

from __future__ import annotations

from fastapi import APIRouter

from awareness.serve.error_json import Json, Refused
from awareness.serve.repository_routes import Shared
from awareness.serve.run_curves import count_steps, find_runs, read_curves
from awareness.types import printable

router = APIRouter()


@router.get("/runs")
def runs(shared: Shared) -> Json:
    """folder: None if the server was started without one. runs: the name of each, and its last step."""
    folder = shared.settings.runs
    found = {} if folder is None else find_runs(folder)
    listed = [{"name": name, "steps": count_steps(log)} for name, log in found.items()]
    return Json({"folder": None if folder is None else str(folder), "runs": listed})


@router.get("/runs/{name:path}")
def run(name: str, shared: Shared) -> Json:
    """Every figure of a run by step. A name that `GET /runs` does not list is refused; it never becomes a path."""
    found = {} if shared.settings.runs is None else find_runs(shared.settings.runs)
    if name not in found:
        raise Refused(404, f"there is no run {printable(name[:200])}", hint="GET /runs lists them")
    curves = {own: {"steps": c.steps, "values": c.values} for own, c in read_curves(found[name]).items()}
    return Json({"name": name, "curves": curves})
