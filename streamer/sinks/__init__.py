"""Where events go: hub, websocket, terminal, caption files."""
