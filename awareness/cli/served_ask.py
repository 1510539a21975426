"""`awareness ask` through a running server: the model is in memory there, so that the answer starts at once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from awareness.cli import answers, render
from awareness.cli.options import AnswerFormat
from awareness.errors import ModelNotAvailable, NothingFound
from awareness.index.files.scopes import rooted
from awareness.serve.server_client import Server, ServerGone, find_server


def ask(
    question: dict[str, Any],
    repo: Path | None,
    scope: Sequence[str] | None,
    answers_with: str,
    *,
    format: AnswerFormat,
) -> bool:
    """Shows the answer of a server that serves this repository; False if there is none, or if it is busy or gone before
    it has shown anything. question: as `POST /ask` reads it. Raises what the server refuses, and NothingFound."""
    server = find_server(Path(os.path.abspath(repo or ".")), answers_with, is_named=repo is not None)
    if server is None:
        return False
    asked = {**question, "scope": list(rooted(scope, server.root)) if scope else None}
    answer: dict[str, Any] = {}
    is_begun = False
    try:
        with contextlib.closing(server):
            server.send(asked)  # it works while this process prepares the screen
            with answers.answering(format) as output:
                for event, data in _with_progress(server):
                    if event == "route":
                        is_begun = format is AnswerFormat.lines
                        output.hits(data["hits"])
                    elif event == "begun":
                        output.begun(data["text"])
                    elif event == "sentence":
                        is_begun = format is not AnswerFormat.json
                        output.sentence(data)
                    elif event == "answer":
                        answer = data
                    elif event == "refusal":
                        raise _Refused(data)
    except ServerGone:
        if is_begun:
            raise ModelNotAvailable(
                "the server ended while it answered", hint="the same command again, which needs no server"
            ) from None
        render.detail("the server is busy or gone: this process answers")
        return False
    except _Refused as refusal:
        output.refusal(refusal.json, refusal.nearest, refusal.searched, refusal.message)
        raise
    places = answer.pop("shown")
    del answer["id"]
    output.answer(answer, places)
    if answer["abstained"]:
        raise answers.not_there(answer, asked["top_k"])
    return True


class _Refused(NothingFound):
    """A refusal of the server. json: as `ask --format json` prints it."""

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__(data.pop("message"), hint=data.pop("hint"))
        self.nearest, self.searched, self.json = data.pop("shown"), data.pop("searched"), data


def _with_progress(server: Server) -> Any:
    """The events of the answer. What the server does meanwhile, such as indexing, is shown on stderr."""
    with contextlib.ExitStack() as stack:
        move = None
        for event, data in server.events():
            if event == "progress":
                move = move or stack.enter_context(render.progress())
                move(data["what"], data["done"], data["total"])
                continue
            if move is not None:
                stack.close()
                move = None
            if event == "note":
                render.note(data["message"])
            elif event == "queued" and data["position"]:
                render.note(f"the server answers {data['position']} other questions first")
            else:
                yield event, data
