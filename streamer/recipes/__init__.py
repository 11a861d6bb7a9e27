"""How the bundled models and networks were made; not part of the wheel."""
