"""Text policy and session, pure state machines."""
