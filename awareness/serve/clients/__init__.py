"""The configuration of agents and editors that start `awareness mcp`: written, shown and taken out again."""
