"""`python -m streamer.training.nano --config FILE`."""

from streamer.training.nano.make import run

if __name__ == "__main__":
    run()
