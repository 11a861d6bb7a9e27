"""numpy's BLAS has one thread whatever the environment says, whether numpy or streamer is imported first."""

import os
import subprocess
import sys

import pytest

COUNT = """
from threadpoolctl import threadpool_info
counts = [found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"]
assert counts and set(counts) == {1}, counts
"""
FIRST = "import streamer.sound.patterns.sirens"
SECOND = """
import numpy
import streamer
from streamer.model.engine import Engine
Engine(streamer.load_model("nano", head=None))
"""


@pytest.mark.parametrize("code", [FIRST, SECOND], ids=["streamer first", "numpy first"])
def test_blas_has_one_thread(code):
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "3"}
    subprocess.run([sys.executable, "-c", code + COUNT], check=True, timeout=120, env=environment)


def test_waiting_threads_sleep_unless_the_user_says_otherwise():
    code = "import os, streamer; print(os.environ['OMP_WAIT_POLICY'])"
    said = {
        given: subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            timeout=60,
            capture_output=True,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | extra,
        ).stdout.strip()
        for given, extra in (("nothing", {}), ("active", {"OMP_WAIT_POLICY": "active"}))
    }
    assert said == {"nothing": "passive", "active": "active"}


def test_onnx_runtime_leaves_no_trace_of_a_telemetry(tmp_path):
    """It would give the machine a number, in the home of whoever runs us, and send word to Microsoft."""
    code = "from streamer.vad.voice import _network; _network()"
    home = {
        name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY")
    }
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**home, "HOME": str(tmp_path)})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
