"""Sound events and alerts, pure state machines."""
