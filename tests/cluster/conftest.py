import os
import secrets

# Before anybody imports Ray, which reads this once: else it leaves a token in the home of whoever runs the tests.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
