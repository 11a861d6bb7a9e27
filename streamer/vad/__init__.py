"""Voice activity: the gate and the planner, pure state machines."""
