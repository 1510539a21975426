"""OpenAI's own client, against a real server."""

from __future__ import annotations

import math

import openai
import pytest

from tests.serve.conftest import QUESTION


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0) as client:
        yield client


def ask(client, question=QUESTION, **options):
    messages = [{"role": "system", "content": "You are a pirate."}, {"role": "user", "content": question}]
    arguments = {"model": "awareness/sample", "messages": messages, "max_tokens": 8, **options}
    return client.chat.completions.create(**arguments)


def test_repositories_are_models(client):
    assert [model.id for model in client.models.list()] == ["awareness/sample"]
    assert client.models.retrieve("awareness/sample").owned_by == "awareness"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("awareness/other")


def test_an_answer_names_its_sources(client):
    reply = ask(client)
    message = reply.choices[0].message
    text, _, places = message.content.partition("\n\nSources:\n")
    assert reply.choices[0].finish_reason == "stop" and message.role == "assistant" and text
    assert message.annotations
    for annotation in message.annotations:
        place = annotation.url_citation
        assert text[place.start_index : place.end_index].strip() and f"[{annotation.number}]" in text
        assert f"[{annotation.number}] {annotation.path}:" in places
        assert place.url.startswith("file:///") and place.url.endswith(
            f"#L{annotation.start_line}-L{annotation.end_line}"
        )
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.completion_tokens > 0


def test_a_stream_says_the_same(client):
    whole = ask(client).choices[0].message
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas).split() == whole.content.split()
    assert [one["path"] for one in deltas[-1].annotations] == [one.path for one in whole.annotations]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens > 0


def test_a_repository_may_be_a_field(client):
    for options in (
        {"model": "awareness", "extra_body": {"repository": "sample"}},
        {"model": "gpt-4", "extra_body": {"repository": "sample"}},
        {"model": "awareness"},
    ):
        assert ask(client, max_tokens=2, **options).choices[0].message.content


@pytest.mark.parametrize(
    "model", ["gpt-4", "awareness/other", "sample", "awareness//etc", "awareness/../sample", "x\ud83d"]
)
def test_an_unknown_model_is_404(client, model):
    with pytest.raises(openai.NotFoundError) as refusal:
        ask(client, model=model.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    assert refusal.value.body["type"] == "no_such_model" and refusal.value.body["code"] == "not_found"


def test_a_refusal_is_a_message_that_says_so(client):
    message = ask(client, "zebra crossing qwertzuiop").choices[0].message
    assert message.content.startswith("I cannot answer this: none of ") and not message.annotations
    streamed = ask(client, "zebra crossing qwertzuiop", stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == message.content


def test_a_follow_up_is_read_with_what_was_said(client):
    talk = [
        {"role": "user", "content": "what is HTTPConnectionPool"},
        {"role": "assistant", "content": "A class [1].\n\nSources:\n[1] src/pool.py:1-5"},
        {"role": "user", "content": [{"type": "text", "text": "and how does it acquire one?"}]},
    ]
    reply = client.chat.completions.create(model="awareness/sample", messages=talk, max_tokens=4)
    assert "src/pool.py" in reply.choices[0].message.content


def test_sampling_is_repeatable(client):
    def sampled(seed):
        return ask(client, temperature=5.0, top_p=0.99, seed=seed, max_tokens=1).choices[0].message.content

    first = sampled(1)
    assert sampled(1) == first and sampled(2) != first


@pytest.mark.parametrize(
    "options",
    [
        {"n": 2},
        {"stop": ["x"]},
        {"temperature": -1},
        {"top_p": 2},
        {"max_tokens": 0},
        {"messages": []},
        {"messages": [{"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": " "}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said(client, options):
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(client, **options)
    assert refusal.value.body["message"]


def test_a_wrong_key_is_401(server):
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_embeddings_are_the_unit_vectors_of_the_router(client):
    made = client.embeddings.create(model="awareness/sample", input=["connection pool", "signed cookie"])
    pool, cookie = (one.embedding for one in made.data)
    assert len(pool) == len(cookie) == 192
    assert math.hypot(*pool) == pytest.approx(1, abs=1e-3)
    as_floats = client.embeddings.create(model="awareness/sample", input="connection pool", encoding_format="float")
    assert as_floats.data[0].embedding == pytest.approx(pool, abs=1e-6)
    code = client.embeddings.create(
        model="awareness/sample", input="class HTTPConnectionPool: pass", extra_body={"input_type": "document"}
    )
    (document,) = (one.embedding for one in code.data)

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert cosine(document, pool) > cosine(document, cookie)


@pytest.mark.parametrize("options", [{"input": []}, {"input": "qwertzuiopqq"}, {"input": "pool", "dimensions": 3}])
def test_what_has_no_vector_is_an_error(client, options):
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="awareness/sample", **options)
