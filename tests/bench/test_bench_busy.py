import json
import os

import numpy as np
import pytest

from streamer.bench import busy
from streamer.commands.cli import main
from streamer.errors import StreamerError


def test_the_environment_says_nothing_about_threads():
    given = {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "PATH": "/bin",
        "HOME": "/",
    }
    assert busy.without_threads(given) == {"PATH": "/bin", "HOME": "/"}


def test_a_program_that_fails_is_named_with_its_last_line(tmp_path):
    busy.write_wav(tmp_path / "a.wav", np.zeros(1600, np.float32))
    with pytest.raises(StreamerError, match=r"--model no-such: the program ended with [12]: .*no-such"):
        busy.run_program("no-such", tmp_path / "a.wav")


def test_the_least_of_several_runs_counts_and_the_highest_peak():
    runs: dict[str, busy.Run] = {}
    for run in (busy.Run(3.0, 2.0, 100.0), busy.Run(2.0, 2.5, 90.0)):
        busy._keep(runs, "quiet", run)
    assert runs["quiet"] == busy.Run(2.0, 2.0, 100.0)


def test_every_model_runs_alone_and_beside_a_busy_process_for_each_core(tmp_path, capsys, monkeypatch):
    ran, busy_with = [], []
    real = busy.spinning
    monkeypatch.setattr(busy, "spinning", lambda count: busy_with.append(count) or real(1))
    monkeypatch.setattr(
        busy, "run_program", lambda model, path: ran.append((model, path.stem)) or busy.Run(2.0, 1.0, 90.0)
    )
    command = ["bench", "busy", "--models", "a,b", "--rounds", "1", "--out", str(tmp_path), "--json", "-"]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert ran == [(model, name) for model in "ab" for name in ("start", "speech", "speech")]
    assert busy_with == [len(os.sched_getaffinity(0))] * 2
    assert set(result["models"]["a"]) == {"start", "quiet", "busy"}
    assert "| a | 1.0 |" in (tmp_path / "busy.md").read_text().replace("| 1 |", "| 1.0 |")
