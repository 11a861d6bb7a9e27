"""`python -m streamer.recipes.nano --config FILE`."""

from streamer.recipes.nano.make import run

if __name__ == "__main__":
    run()
