"""The agents and editors that start MCP servers: which files each one reads, and how it writes a server in them.

    claude          Claude Code      code.claude.com/docs/en/mcp, code.claude.com/docs/en/skills
    claude-desktop  Claude Desktop   modelcontextprotocol.io/docs/develop/connect-local-servers
    cursor          Cursor           cursor.com/docs/mcp, cursor.com/docs/context/rules
    vscode          VS Code          code.visualstudio.com/docs/copilot/reference/mcp-configuration
    codex           Codex            developers.openai.com/codex/mcp
    gemini          Gemini CLI       geminicli.com/docs/tools/mcp-server
    zed             Zed              zed.dev/docs/ai/mcp
    windsurf        Windsurf         docs.windsurf.com/windsurf/cascade/mcp
    opencode        opencode         opencode.ai/docs/mcp-servers

A client starts the server in the folder of the project, or replaces a variable by it, or does neither: then the folders
that may be asked about have to be named.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

NAME = "awareness"


class Shape(str, Enum):
    """How a server is written. plain: command and args; typed: with a type; opencode: one list."""

    plain = "plain"
    typed = "typed"
    opencode = "opencode"


@dataclass(frozen=True)
class Rules:
    """A file that tells the agent when to use the tools. is_section: it holds the user's own text, too. header: the
    lines before the text, for a file of its own."""

    path: str
    is_section: bool = False
    header: str = ""


@dataclass(frozen=True)
class Client:
    """title: its name. user, project: its configuration, from the home folder and from the top of the repository; None
    if it reads none there. key: the object that holds the servers. folder: the argument that stands for the project's
    folder, None if the server is started there. knows_project: False if it is neither."""

    title: str
    key: str
    user: str | None
    project: str | None
    user_rules: Rules | None = None
    project_rules: Rules | None = None
    shape: Shape = Shape.plain
    is_toml: bool = False
    folder: str | None = None
    knows_project: bool = True

    def entry(self, command: str, arguments: list[str], variables: Mapping[str, str]) -> dict[str, Any]:
        """The server as this client writes it."""
        if self.shape is Shape.opencode:
            environment = {"environment": dict(variables)} if variables else {}
            return {"type": "local", "command": [command, *arguments], "enabled": True, **environment}
        kind = {"type": "stdio"} if self.shape is Shape.typed else {}
        return {**kind, "command": command, "args": arguments, **({"env": dict(variables)} if variables else {})}


def is_ours(entry: Any) -> bool:
    """True for a server that starts `awareness mcp`, however that is written."""
    if not isinstance(entry, dict):
        return False
    command, arguments = entry.get("command"), entry.get("args", [])
    words = command if isinstance(command, list) else [command, *(arguments if isinstance(arguments, list) else [])]
    if not all(isinstance(word, str) for word in words) or len(words) < 2:
        return False
    if Path(words[0]).stem == NAME:
        return bool(words[1] == "mcp")
    return list(words[1:4]) == ["-m", "awareness.cli.app", "mcp"]


def _configuration() -> str:
    """The folder of the settings of applications, from the home folder."""
    if sys.platform == "darwin":
        return "Library/Application Support"
    return os.environ.get("XDG_CONFIG_HOME") or ".config"


def clients() -> dict[str, Client]:
    """By the name that is typed."""
    agents, apps = Rules("AGENTS.md", is_section=True), _configuration()
    config = os.environ.get("XDG_CONFIG_HOME") or ".config"
    skill = (
        "---\nname: awareness\ndescription: Find code in this repository by meaning and by name, find callers and"
        " similar code, and ask cited questions. Use before grep when you do not know where something is.\n---\n"
    )
    always = "---\ndescription: How to find code in this repository\nglobs:\nalwaysApply: true\n---\n"
    claude, codex = os.environ.get("CLAUDE_CONFIG_DIR"), os.environ.get("CODEX_HOME") or ".codex"
    return {
        "claude": Client(
            "Claude Code",
            "mcpServers",
            f"{claude}/.claude.json" if claude else ".claude.json",
            ".mcp.json",
            Rules(f"{claude or '.claude'}/skills/awareness/SKILL.md", header=skill),
            Rules(".claude/skills/awareness/SKILL.md", header=skill),
            shape=Shape.typed,
        ),
        "claude-desktop": Client(
            "Claude Desktop", "mcpServers", f"{apps}/Claude/claude_desktop_config.json", None, knows_project=False
        ),
        "cursor": Client(
            "Cursor",
            "mcpServers",
            ".cursor/mcp.json",
            ".cursor/mcp.json",
            None,
            Rules(".cursor/rules/awareness.mdc", header=always),
            folder="${workspaceFolder}",
        ),
        "vscode": Client(
            "VS Code",
            "servers",
            f"{apps}/Code/User/mcp.json",
            ".vscode/mcp.json",
            None,
            Rules(".github/instructions/awareness.instructions.md", header='---\napplyTo: "**"\n---\n'),
            shape=Shape.typed,
            folder="${workspaceFolder}",
        ),
        "codex": Client(
            "Codex",
            "mcp_servers",
            f"{codex}/config.toml",
            ".codex/config.toml",
            Rules(f"{codex}/AGENTS.md", is_section=True),
            agents,
            is_toml=True,
        ),
        "gemini": Client(
            "Gemini CLI",
            "mcpServers",
            ".gemini/settings.json",
            ".gemini/settings.json",
            Rules(".gemini/GEMINI.md", is_section=True),
            Rules("GEMINI.md", is_section=True),
        ),
        "zed": Client("Zed", "context_servers", f"{config}/zed/settings.json", ".zed/settings.json", None, agents),
        "windsurf": Client(
            "Windsurf",
            "mcpServers",
            ".codeium/windsurf/mcp_config.json",
            None,
            Rules(".codeium/windsurf/memories/global_rules.md", is_section=True),
            knows_project=False,
        ),
        "opencode": Client(
            "opencode",
            "mcp",
            f"{config}/opencode/opencode.json",
            "opencode.json",
            Rules(f"{config}/opencode/AGENTS.md", is_section=True),
            agents,
            shape=Shape.opencode,
        ),
    }
