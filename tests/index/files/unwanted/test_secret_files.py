"""Which files are secret as a whole: by their name, unless that or the content shows plainly that they are not.

The keys are made up here, when the tests run, so that no scanner finds any in this file.
"""

from __future__ import annotations

import random
import string

import pytest

from awareness.index.files.unwanted.secret_files import is_secret_content, is_secret_name

BASE64 = string.ascii_letters + string.digits + "+/"
BODY = "\n".join("".join(random.Random(row).choices(BASE64, k=64)) for row in range(12))


def block(kind: str, body: str = BODY) -> str:
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n"


KEY = block("PRIVATE" + " KEY")
OPENSSH_KEY = block("OPENSSH PRIVATE" + " KEY")
CERTIFICATE = block("CERTIFICATE")


@pytest.mark.parametrize(
    "path",
    [
        *(
            ".env",
            ".env.local",
            ".env.production",
            ".env.test",
            "deploy/.ENV",
            ".env.bak",
            ".env~",
            ".env.old",
            ".env_prod",
        ),
        *(".env-staging", "prod.env", "config/docker.env", ".env.json", ".env.sh", ".env.production.local", ".envrc"),
        *("id_rsa", "id_rsa.bak", "id_rsa.old", "ssh/id_ed25519", "id_ed25519_work", "id_ecdsa.1", "id_ed25519_sk"),
        *(
            "id_rsa-2020",
            "id_rsa.txt",
            "ID_RSA",
            ".netrc",
            "_netrc",
            ".pypirc",
            ".htpasswd",
            ".pgpass",
            ".git-credentials",
        ),
        *(
            "a.p12",
            "a.pfx.bak",
            "a.jks",
            "a.keystore",
            "pw.kdbx",
            "a.ppk",
            "home/.aws/credentials",
            ".docker/config.json",
        ),
        *(".kube/config", ".netrc.orig"),
    ],
)
def test_a_secret_name(path: str) -> None:
    assert is_secret_name(path)


@pytest.mark.parametrize(
    "path",
    [
        *(".env.example", ".env.sample", ".env.template", ".env.dist", ".env.defaults", ".env.default", ".env-example"),
        *(".env.local.example", ".env.example.local", "example.env", "sample.env", "prod.env.template", ".env.schema"),
        *(
            ".env.ts",
            "env.py",
            ".env.js",
            ".env.d.ts",
            "env.go",
            "prod.env.js",
            "environment.rb",
            ".environment",
            "dotenv.md",
        ),
        *("id_rsa_parser.py", "id_rsa.md", "docs/id_rsa.rst", "id_rsa_keygen.sh", "id_rsa.pub", "id_ed25519.pub"),
        *(
            "id_rsandom",
            "id_dsatabase.c",
            "secrets.key.go",
            "test_pem.py",
            "keystore.py",
            "a.keystore.ts",
            "credentials",
        ),
        *(
            "aws/credentials.py",
            "kube/config",
            "docker/config.json",
            "keys.py",
            "monkey",
            ".envoy.yaml",
            "server.key.example",
        ),
    ],
)
def test_a_name_of_code_or_of_a_template(path: str) -> None:
    assert not is_secret_name(path) and not is_secret_content(path, b"x = 1\n")


SECRET = {
    "server.pem": KEY,
    "both.pem": CERTIFICATE + KEY,
    "server.key": KEY,
    "server.key.bak": KEY,
    "unclear.pem": "x",
    "unclear.key": "x = 1\n",
    "master.key": "0123456789abcdef0123456789abcdef",
    "wireguard.key": BODY[:43] + "=\n",
    "django.key": "a few words, then a key of the kind\n" + BODY[:50],
    "openvpn.key": block("OpenVPN Static key V1", "0123456789abcdef\n" * 16),
    "static.txt": "#\n# 2048 bit OpenVPN static key\n#\n" + block("OpenVPN Static key V1", "0123456789abcdef\n" * 16),
    "named.key": "the password of the server is the name of the dog\n",
    "der.key": "0\x82\x04\xa3\0\0\1",
    "gpg.key": block("PGP PRIVATE" + " KEY BLOCK"),
    "key.txt": "\n" + OPENSSH_KEY,
    "deploy": OPENSSH_KEY,
    "client.ovpn": "client\ndev tun\n<ca>\n" + CERTIFICATE * 3 + "</ca>\n<key>\n" + KEY + "</key>\n",
    "secret.yaml": "kind: Secret\ndata:\n  tls: |\n    " + KEY.replace("\n", "\n    "),
    "old.txt": "-----BEGIN RSA PRIVATE" + f" KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES,00\n\n{BODY}\n",
    "service.json": '{\n  "type": "x",\n  "private_key": "-----BEGIN PRIVATE ' + 'KEY-----\\nAAAA"}\n',
    "one_line.json": '{"type":"x","private_key":"-----BEGIN PRIVATE ' + f'KEY-----\\n{BODY[:64]}\\n"}}\n',
    "renamed.py": KEY,
    "renamed.md": KEY,
    "a.putty": "PuTTY-User-Key-File-2: ssh-rsa\nEncryption: none\n",
    ".npmrc": "//registry.npmjs.org/:_authToken=npm_" + "a1" * 18 + "\n",
    "b/.npmrc": "registry=https://user:password@registry.example/\n",
    "c/.npmrc": "save-exact=true\n_password = aGVsbG8=\n",
    "d/.npmrc": "x = 1\n",
}
PUBLIC = {
    "ca.pem": CERTIFICATE,
    "bundle.pem": "# Issuer: CN=Example\n" + CERTIFICATE + "\n# Label: Other\n" + CERTIFICATE,
    "public.pem": block("PUBLIC KEY"),
    "request.pem": block("CERTIFICATE REQUEST"),
    "dh.pem": block("DH PARAMETERS"),
    "release.key": block("PGP PUBLIC KEY BLOCK", "Version: GnuPG v2\n\n" + BODY),
    "talk.key": "PK\x03\x04\0\0",
    "messages.key": "menu.file.open = Open a file\nmenu.file.close = Close the window\nmenu.edit.undo = Undo\n",
    "map.key": "# Which colour stands for what on the map\nred: a road\nblue: a river\ngreen: a wood\n",
    ".npmrc": "# settings\nregistry=https://registry.npmjs.org/\nsave-exact=true\n@mine:registry = https://npm.example/\n",
    "b/.npmrc": "//registry.npmjs.org/:_authToken=${NPM_TOKEN}\nengine-strict=true\n",
    "c/.npmrc": "shamefully-hoist=true\npublic-hoist-pattern[]=*eslint*\nauto-install-peers=true\n",
    "test_pem.py": 'KEY = """\\\n' + KEY + '"""\n\n\ndef test_it():\n' + "    assert KEY\n" * 200,
    "id_rsa.md": "# The form of a key\n\n" + "It starts with a line.\n" * 60 + "\n```\n" + OPENSSH_KEY + "```\n",
    "short.md": "A key starts with\n\n-----BEGIN PRIVATE " + "KEY-----\n",
    "reader.go": "package a\n\nvar key = `\n" + KEY + "`\n" + "\nfunc f() { g() }\n" * 80,
    "late.txt": "#\n" * 600 + "-----BEGIN PRIVATE " + "KEY-----\n",
    "const.txt": "BEGIN = '-----BEGIN PRIVATE " + "KEY-----'\n",
}


@pytest.mark.parametrize("path", SECRET)
def test_secret_content(path: str) -> None:
    assert is_secret_content(path, SECRET[path].encode("latin-1"))


@pytest.mark.parametrize("path", PUBLIC)
def test_plainly_public_content(path: str) -> None:
    assert not is_secret_name(path) and not is_secret_content(path, PUBLIC[path].encode("latin-1"))
