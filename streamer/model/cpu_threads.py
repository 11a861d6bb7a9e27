"""How many threads the libraries below us may use, and how these wait.

numpy's BLAS (OpenBLAS) starts a thread for each core and lets them spin between products. Ours are small: they gain
nothing, and on a busy machine spinning took five times the processor time of everything else together. torch's OpenMP
threads spin as well unless they are told to sleep.

ONNX Runtime (1.32) writes a number for the machine into `~/.cache/Microsoft` as soon as it is imported, and its library
holds the address of a telemetry service. The environment forbids it: nothing leaves this machine unasked.
"""

import os


def before_libraries() -> None:
    """Set what numpy, torch and ONNX Runtime read from the environment when they are loaded; children inherit it."""
    for name in ("OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ[name] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def one_blas_thread() -> None:
    """Hold a BLAS that was loaded before us to one thread, for the whole process.

    Nothing to do where `before_libraries` came first; a program that imports numpy before streamer needs it.
    """
    from threadpoolctl import ThreadpoolController  # 20 ms that `streamer --help` does not need

    ThreadpoolController().select(internal_api=["openblas", "blis"]).limit(limits=1)
