"""Who may not speak to the server: no token, other names, other origins, too much; and what browsers are told."""

from __future__ import annotations

import socket

import httpx
import pytest

from awareness.serve.guards import MAX_BODY_BYTES

CLOSED = ["/repositories", "/metrics", "/file?path=src/pool.py", "/v1/models", "/place?path=/", "/nowhere", "/static"]


@pytest.mark.parametrize("path", [*CLOSED, "/static/../repositories", "//repositories", "/Health", "/docs/../metrics"])
@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic {}", "Bearer {}x", "{}"])
def test_without_the_token_nothing_is_told(server, path, header):
    headers = {} if header is None else {"Authorization": header.format(server.token)}
    with httpx.Client(base_url=server.url, headers=headers) as client:
        response = client.send(client.build_request("GET", server.url + path))
    assert response.status_code in (401, 404)
    assert server.repo.name not in response.text
    if response.status_code == 401:
        assert response.headers["www-authenticate"] == "Bearer" and "error" in response.json()


def raw(server, *lines: bytes) -> tuple[int, bytes]:
    """The status and the whole response of a request as it is typed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        data = b""
        while part := connection.recv(65536):
            data += part
    return int(data.split(b" ", 2)[1]), data


def lines_of(server, host: str, *more: bytes, path: bytes = b"/repositories") -> list[bytes]:
    token = b"Authorization: Bearer " + server.token.encode()
    return [b"GET " + path + b" HTTP/1.1", b"Host: " + host.encode("latin-1"), token, b"Connection: close", *more]


FOREIGN = [
    "evil.example",
    "evil.example:{port}",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.0.0.1:{port}.evil.example",
    "127.0.0.1.evil.example:{port}",
    "localhost:{port}@evil.example",
    "evil.example@127.0.0.1:{port}",
    "127.0.0.1:{port}, evil.example",
    "0.0.0.0:{port}",
    "[::]:{port}",
    "127.1:{port}",
    "2130706433:{port}",
    "",
    ":{port}",
    "127.0.0.1:0{port}",
    "127.0.0.1:{port}:{port}",
]


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("path", [b"/repositories", b"/health", b"/"])
def test_a_name_that_is_not_ours_is_refused(server, host, path):
    status, data = raw(server, *lines_of(server, host.format(port=server.port), path=path))
    assert status in (400, 403) and server.repo.name.encode() not in data


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}"])
def test_our_own_names_are_known(server, host):
    assert raw(server, *lines_of(server, host.format(port=server.port)))[0] == 200


def test_two_hosts_are_refused(server):
    ours = f"127.0.0.1:{server.port}"
    assert raw(server, *lines_of(server, ours, b"Host: evil.example"))[0] in (400, 403)


@pytest.mark.parametrize(
    "origin",
    ["null", "http://evil.example", "http://127.0.0.1", "https://127.0.0.1:{port}", "http://localhost:{port}", ""],
)
def test_a_page_of_another_origin_is_refused(server, origin):
    with server.client() as client:
        response = client.post("/search", json={"query": "a"}, headers={"Origin": origin.format(port=server.port)})
    assert response.status_code == 403
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_our_own_page_may_ask(server):
    with server.client() as client:
        assert client.get("/repositories", headers={"Origin": server.url}).status_code == 200
        preflight = client.options("/search", headers={"Origin": server.url, "Access-Control-Request-Method": "POST"})
    assert preflight.status_code == 405 and "access-control-allow-origin" not in preflight.headers


@pytest.mark.parametrize("path", ["/health", "/repositories", "/nowhere", "/docs", "/openapi.json"])
@pytest.mark.parametrize("has_token", [True, False])
def test_every_response_tells_browsers_what_they_may_do(server, path, has_token):
    with server.client(**({} if has_token else {"headers": {}})) as client:
        headers = client.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin" and headers["cache-control"] == "no-store"
    assert "server" not in headers and not [name for name in headers if name.startswith("access-control")]


def test_a_large_body_is_refused_by_its_length_and_by_its_bytes(http):
    large = b'{"query": "' + b"a" * MAX_BODY_BYTES + b'"}'
    assert http.post("/search", content=large).status_code == 413

    def endless():
        for _ in range(40):
            yield b"a" * (1 << 16)

    response = http.post("/search", content=endless())
    assert response.status_code == 413 and response.json()["error"]["code"] == "too_large"
    assert http.post("/search", json={"query": "acquire"}).status_code == 200


def test_a_lie_about_the_length_harms_nobody(server, http):
    ours = f"127.0.0.1:{server.port}"
    for length in (b"-1", b"1e9", b"9" * 40, b"0x10", b"5, 6"):
        assert raw(server, *lines_of(server, ours, b"Content-Length: " + length))[0] in (400, 413)
    raw_lines = lines_of(server, ours, b"Content-Length: 100", b"Content-Type: application/json")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"\r\n".join([b"POST /search HTTP/1.1", *raw_lines[1:]]) + b"\r\n\r\n{")
    assert http.get("/health").status_code == 200


@pytest.mark.parametrize(
    "line",
    [b"X: " + b"a" * 100_000, b"X\0: a", b"X: a\r\n b", b"Transfer-Encoding: gzip", b"\xff\xfe: a", b": a", b"X : a"],
    ids=range(7),
)
def test_odd_headers_harm_nobody(server, http, line):
    status, _ = raw(server, *lines_of(server, f"127.0.0.1:{server.port}", line))
    assert status < 600
    assert http.get("/health").status_code == 200


def test_there_are_no_web_sockets(server):
    upgrade = [b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    lines = lines_of(server, f"127.0.0.1:{server.port}", b"Connection: Upgrade", *upgrade)
    status, data = raw(server, *lines)
    assert status != 101, data
