"""secrets: credentials in source text are found where they are, and what merely looks like one is not.

The credentials are made up here, when the tests run, so that no scanner finds any in this file.
"""

from __future__ import annotations

import random
import string
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awareness.index.files.credentials import Secret, find_secrets
from awareness.index.files.repository import Repository, SkippedFile
from tests.conftest import write_tree

LETTERS = string.ascii_letters
DIGITS = string.digits
ASSIGNED = "credential in an assignment"


def made_up(length: int, alphabet: str = LETTERS + DIGITS) -> str:
    """Random, the same in every run, and with every kind of character of the alphabet."""
    return "".join(random.Random(length).choices(alphabet, k=length))


BASE32 = string.ascii_uppercase + "234567"
HEX = "0123456789abcdef"
BASE64 = LETTERS + DIGITS + "+/"
PEM = "-----BEGIN {}PRIVATE " + "KEY-----"
JWT = ".".join(("ey" + "J" + made_up(30), "ey" + "J" + made_up(60), made_up(43)))

PLANTED: dict[str, tuple[str, str]] = {  # name -> (a line of code, the rule that finds it)
    "aws-id": (
        'client = boto3.client("s3", aws_access_key_id="AK' + "IA" + made_up(16, BASE32) + '")',
        "AWS access key",
    ),
    "aws-session": ("export ID=AS" + "IA" + made_up(16, BASE32), "AWS access key"),
    "aws-secret": ("aws_secret" + "_access_key = " + made_up(40, BASE64), "AWS secret key"),
    "github": ('headers = {"Authorization": "Bearer gh' + "p_" + made_up(36) + '"}', "GitHub token"),
    "github-app": ("git clone https://x:gh" + "s_" + made_up(36) + "@github.com/a/b", "GitHub token"),
    "github-fine": ("GH=github" + "_pat_" + made_up(22) + "_" + made_up(59), "GitHub token"),
    "gitlab": ("  PRIVATE-TOKEN: gl" + "pat-" + made_up(20), "GitLab token"),
    "slack": ('slack.connect("xox' + "b-" + made_up(12, DIGITS) + "-" + made_up(24) + '")', "Slack token"),
    "slack-hook": (
        "curl https://hooks." + "slack.com/services/T" + made_up(10) + "/B" + made_up(10) + "/" + made_up(24),
        "Slack webhook",
    ),
    "google": ("const map = load('AI" + "za" + made_up(35) + "');", "Google API key"),
    "stripe": ('stripe.api_key = "sk' + "_live_" + made_up(24) + '"', "Stripe key"),
    "openai": ('client = OpenAI(api_key="sk' + "-proj-" + made_up(48) + '")', "OpenAI key"),
    "anthropic": ("ANTHROPIC=sk" + "-ant-api03-" + made_up(60), "Anthropic key"),
    "npm": ("//registry.npmjs.org/:_authToken=np" + "m_" + made_up(36), "npm token"),
    "pypi": ("    password = py" + "pi-AgEI" + made_up(90), "PyPI token"),
    "sendgrid": ('sg = Client("S' + "G." + made_up(22) + "." + made_up(43) + '")', "SendGrid key"),
    "twilio": ("new Twilio(sid, 'S" + "K" + made_up(32, HEX) + "');", "Twilio key"),
    "azure": ("Endpoint=https;Account" + "Key=" + made_up(86, BASE64) + "==;Suffix=core", "Azure storage key"),
    "jwt": (f"curl -H 'Authorization: Bearer {JWT}' localhost", "JSON web token"),
    "url": ("DATABASE = 'postgres://app:" + made_up(14) + "@db.internal:5432/main'", "password in a URL"),
    "pem-rsa": ('KEY = """' + PEM.format("RSA ") + "\n" + made_up(64, BASE64), "private key"),
    "pem-json": ('"pem": "' + PEM.format("") + "\\n" + made_up(64, BASE64) + '\\n"', "private key"),
    "pem-encrypted": (PEM.format("EC ") + "\nProc-" + "Type: 4,ENCRYPTED", "private key"),
    "password": ('    "password": "' + made_up(16) + '",', ASSIGNED),
    "secret": ("app.config['SECRET" + "_KEY'] = '" + made_up(48, HEX) + "'", ASSIGNED),
    "typed": ('    auth_token: str = "' + made_up(24) + '"', ASSIGNED),
    "argument": ('os.environ.setdefault("API' + '_KEY", "' + made_up(32, HEX) + '")', ASSIGNED),
    "go": ("apiKey" + ' := "' + made_up(28) + '"', ASSIGNED),
    "ruby": (":passphrase" + " => '" + made_up(18) + "',", ASSIGNED),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_secret_is_found(name: str) -> None:
    code, rule = PLANTED[name]
    text = f"import os\n\n# é, 日本, \u0130\n{code}\n\n\ndef connect():\n    return os.environ\n"
    assert find_secrets(text) == [Secret(4, rule)]


def test_all_planted_secrets_of_one_text_are_found_on_their_lines() -> None:
    lines, expected = [], []
    for code, rule in PLANTED.values():
        lines.append("x = 1")
        expected.append(Secret(len("\n".join(lines).split("\n")) + 1, rule))
        lines.append(code)
    assert find_secrets("\n".join(lines)) == expected


def test_each_kind_is_reported_once_a_line() -> None:
    token, key = "gh" + "p_" + made_up(36), "AK" + "IA" + made_up(16, BASE32)
    assert find_secrets(f"{token} {token} {key}") == [Secret(1, "AWS access key"), Secret(1, "GitHub token")]


def test_what_is_returned_does_not_hold_the_secret() -> None:
    value = made_up(24)
    assert value not in repr(find_secrets(f'password = "{value}"'))


NEAR_MISSES = {
    "the example of AWS": "AK" + "IAIOSFODNN7" + "EXAMPLE",
    "a placeholder": 'api_key = "your-api-key-1234"',
    "to be changed": 'password = "changeme12345"',
    "in angle brackets": 'token = "<token-from-step-2>"',
    "from the environment": 'secret = "${MY_SECRET_12}"',
    "an f-string": 'token = f"{user}:{stamp}:a1b2c3"',
    "a format": "password = 'user-%s-pass-9x'",
    "crossed out": 'token = "xxxxxxxxxxxx1234"',
    "words": 'password = "correct-horse-battery-staple"',
    "a word and a version": 'token = "access_token_v2"',
    "for tests": 'secret = "test-s3cr3t-9f8a7b"',
    "a name of a name": 'token_name = "X-9f8Akd7-Qq2"',
    "a path": 'password_file = "/run/secrets/db_pw_1a9"',
    "a call": "token = get_token_2(request, 'a1B2')",
    "a URL": 'token_url = "https://auth.host/v2/token9?x=1"',
    "a tokenizer": 'tokenizer = "gpt2-9f8Akd7Qq2zz"',
    "a type": "def login(password: str, token: bytes) -> None: ...",
    "a short one": 'password = "a1b2c3"',
    "a documented URL": "https://user:s3cr3tpw9@example.org/x",
    "a URL of this machine": "redis://app:s3cr3tpw9@localhost:6379",
    "a port": "http://host:8080/a@b",
    "a URL to fill in": "postgres://user:$PASSWORD1@db.internal",
    "a commit": "rev = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'",
    "a CSS class": 'class="sk-folding-cube-spinner-animation-large-1"',
    "in the middle of a word": "task-" + made_up(40) + " DESK" + made_up(32, HEX),
    "a marker of keys": 'if text.startswith("' + PEM.format("") + '"):\n    return True',
    "a public key": "-----BEGIN PUBLIC " + "KEY-----\n" + made_up(64, BASE64),
    "a test key of Stripe": "stripe.key = sk" + "_test_" + made_up(24),
    "a repeated letter": "gh" + "p_" + "a" * 36,
    "a setting of npm": "npm" + "_config_registry_url_of_the_company_mirror",
    "half a JWT": "ey" + "J" + made_up(30) + ".payload",
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_a_near_miss_is_not_a_credential(name: str) -> None:
    assert find_secrets(f"x = 1\n{NEAR_MISSES[name]}\n") == []


def test_our_own_sources_hold_no_credentials() -> None:
    root = Path(__file__).parents[3]
    files = [path for folder in ("awareness", "tests", "benchmarks", "docs") for path in (root / folder).rglob("*.*")]
    texts = {path: path.read_text("utf-8", errors="replace") for path in files if path.suffix in (".py", ".md")}
    assert len(texts) > 50
    assert {path: found for path, text in texts.items() if (found := find_secrets(text))} == {}


pieces = st.one_of(
    st.text(max_size=20),
    st.characters(),
    st.sampled_from(
        ["\n", '"', "=", ": ", "sk-", "token", "password", "://", "@", "eyJ", "SK", made_up(40), PEM.format("")]
    ),
)


@given(st.lists(pieces, max_size=30).map("".join))
def test_any_text_gives_lines_within_it_in_order(text: str) -> None:
    found = find_secrets(text)
    assert found == sorted(set(found), key=lambda secret: (secret.line, secret.rule))
    assert all(1 <= secret.line <= text.count("\n") + 1 for secret in found)


@given(st.text(max_size=200), st.sampled_from(sorted(PLANTED)))
def test_a_planted_secret_is_found_after_any_text(above: str, name: str) -> None:
    code, rule = PLANTED[name]
    assert Secret(above.count("\n") + 2, rule) in find_secrets(f"{above}\n{code}\n")


@pytest.mark.parametrize(
    "unit",
    [
        *(
            "a",
            "=",
            '"',
            "'",
            "\n",
            " ",
            "-",
            "é",
            "sk-",
            "sk-ant-",
            "xoxb-",
            "gh",
            "IA",
            "SG.",
            "SK",
            "eyJ",
            "://",
            "key",
        ),
        *("eyJaaaaaaaaaa.", "://a:", "://aaaaaaa:aaaaaaaa", "AccountKey=", "PRIVATE KEY-----\\n", "secret", "secret\t"),
        *(
            "token",
            "token=",
            'token="',
            "token : ",
            "token:a",
            "token_",
            'token = "aaaaaaaaaa1"\n',
            "password: ",
            "api_key",
        ),
    ],
)
def test_time_is_linear_in_a_hostile_line(unit: str) -> None:
    """A megabyte takes a tenth of a second; the limit leaves room for a slow machine, and none for a square."""
    text = unit * ((1 << 20) // len(unit))
    started = time.process_time()
    find_secrets(text)
    assert time.process_time() - started < 1.5


FILES_OF_KEYS = (
    *(".env", ".env.local", ".env.production", "deploy/.ENV", ".envrc", ".netrc", ".npmrc", ".pypirc", ".htpasswd"),
    *(".pgpass", ".git-credentials", "id_rsa", "ssh/id_ed25519", "id_ecdsa.bak", "tls/server.pem", "server.key"),
    *("store.p12", "cert.pfx", "release.jks", "vault.kdbx", "putty.ppk", "home/.aws/credentials"),
)


def test_files_of_keys_are_left_out(tmp_path: Path) -> None:
    write_tree(tmp_path, dict.fromkeys((*FILES_OF_KEYS, "main.py", ".env.example", "id_rsa.pub"), "x = 1\n"))
    scanned = list(Repository.open(tmp_path).scan())
    assert {file for file in scanned if isinstance(file, SkippedFile)} == {
        SkippedFile(name, "secret") for name in FILES_OF_KEYS
    }
    assert {file.path for file in scanned} - set(FILES_OF_KEYS) == {"main.py", ".env.example", "id_rsa.pub"}
