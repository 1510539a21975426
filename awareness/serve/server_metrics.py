"""What `/metrics` counts, in a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from awareness.engine.answer import Answer, NotAnswered
from awareness.serve.guards import Application, Message, Receive, Scope, Send
from awareness.serve.question_queue import QuestionQueue
from awareness.serve.repositories import Repositories

TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds."""


class ServerMetrics:
    def __init__(self, queue: QuestionQueue, repositories: Repositories) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "awareness_requests", "Requests by route and status", ["route", "status"], registry=self._registry
        )
        self._answers = Counter(
            "awareness_answers", "Questions by how they ended", ["outcome"], registry=self._registry
        )
        self._tokens = Counter("awareness_answer_tokens", "Tokens of answers", registry=self._registry)
        self._first_token = Histogram(
            "awareness_first_token_seconds",
            "From the start of a question's turn to its first token",
            buckets=BUCKETS,
            registry=self._registry,
        )
        length = Gauge("awareness_queue_length", "Questions that wait", registry=self._registry)
        length.set_function(lambda: queue.waiting)
        opened = Gauge("awareness_open_repositories", "Repositories that are open", registry=self._registry)
        opened.set_function(lambda: sum(served.engine is not None for served in repositories.all))

    def answered(self, answer: Answer, tokens: int) -> None:
        """An answer of this many tokens."""
        timings = answer.timings
        self._answers.labels("abstained" if answer.abstained else "answered").inc()
        self._tokens.inc(tokens)
        self._first_token.observe(timings.route_s + timings.load_s + timings.first_token_s)

    def ended(self, error: BaseException | None) -> None:
        """A question without an answer: refused, failed, or None for cancelled."""
        refused = isinstance(error, NotAnswered)
        self._answers.labels("cancelled" if error is None else "refused" if refused else "failed").inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def counting(self, app: Application) -> Application:
        """`app`, with each of its responses counted under the path of its route."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    route = getattr(scope.get("route"), "path", "other")  # never what a client typed
                    self._requests.labels(route, str(message["status"])).inc()
                await send(message)

            await app(scope, receive, send_counted)

        return counted
