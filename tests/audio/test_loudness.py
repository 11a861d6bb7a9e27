import numpy as np
import pytest

from streamer.audio.loudness import dbfs


def test_dbfs():
    assert dbfs(np.zeros(100, np.float32)) == dbfs(np.zeros(0, np.float32)) == -120
    assert dbfs(np.ones(100, np.float32)) == pytest.approx(0)
    assert dbfs(np.full(100, 0.1, np.float32)) == pytest.approx(-20, abs=1e-3)
