"""The websocket server, its pages, and sound that clients send."""
