"""Front ends that stay in memory: the server with its page, and the tools for agents (MCP)."""
