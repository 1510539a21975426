"""What the routes of the server share: a route asks for it with `Depends(services)`."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from starlette.requests import Request

from awareness.engine.answer import Answer
from awareness.serve.forwarding_reporter import ForwardingReporter
from awareness.serve.http_settings import HttpSettings
from awareness.serve.question_queue import QuestionQueue
from awareness.serve.repositories import Repositories
from awareness.serve.server_metrics import ServerMetrics

MOST_ANSWERS = 8


@dataclass(frozen=True)
class GivenAnswer:
    """An answer that was given. repository: its name."""

    repository: str
    answer: Answer


class RecentAnswers:
    """The last answers by their id, for those who want to look closer. May be used from several threads."""

    def __init__(self, most: int = MOST_ANSWERS) -> None:
        self._most, self._lock = most, threading.Lock()
        self._answers: OrderedDict[str, GivenAnswer] = OrderedDict()

    def keep(self, answer_id: str, repository: str, answer: Answer) -> None:
        with self._lock:
            self._answers[answer_id] = GivenAnswer(repository, answer)
            while len(self._answers) > self._most:
                self._answers.popitem(last=False)

    def get(self, answer_id: str) -> GivenAnswer | None:
        """None for one that was never given, and for one that is too old."""
        with self._lock:
            return self._answers.get(answer_id)


@dataclass(frozen=True)
class Services:
    """repositories: `with repositories.engine(name) as engine`, in a thread. queue: for everything that computes with
    the model. reporter: that of all engines; `with reporter.telling(job)` sends what they report to the job's listener.
    started_at: seconds since 1970.
    """

    repositories: Repositories
    queue: QuestionQueue
    settings: HttpSettings
    metrics: ServerMetrics
    reporter: ForwardingReporter
    answers: RecentAnswers = field(default_factory=RecentAnswers)
    started_at: int = field(default_factory=lambda: int(time.time()))


def services(request: Request) -> Services:
    """A FastAPI dependency."""
    shared: Services = request.app.state.services
    return shared
