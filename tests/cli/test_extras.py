"""A command that needs an extra of the package says what to install, in one line."""

from __future__ import annotations

import sys

import pytest

from awareness.cli.app import run


@pytest.mark.parametrize(
    ("command", "package"), [("serve", "prometheus_client"), ("mcp", "mcp"), ("install claude", "mcp")]
)
def test_without_the_extra_one_line_says_what_to_install(monkeypatch, capfd, command, package):
    monkeypatch.setitem(sys.modules, package, None)  # how Python marks a module that cannot be imported
    assert run(command.split()) == 2
    needs = f"error: `{command.split()[0].replace('install', 'mcp')}` needs {package}"
    assert capfd.readouterr().err == f'{needs}\n  try: pip install "awareness[serve]"\n'
