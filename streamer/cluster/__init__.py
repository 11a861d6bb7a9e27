"""Many rooms, many machines: the same program, whose windows are computed by engines on Ray Serve (extra `cluster`)."""
