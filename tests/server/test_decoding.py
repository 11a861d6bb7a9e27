"""A container that comes in pieces: however it is cut it gives the same sound, and its thread always ends."""

import asyncio
import io
import threading
import time

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.errors import InputError, StreamerError
from streamer.server.decoding import ContainedSound


def contained(kind: str, codec: str, seconds: float = 2.0) -> bytes:
    rng = np.random.default_rng(3)
    samples = (2000 * rng.standard_normal(round(48_000 * seconds))).astype("<i2")
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 48_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


OGG = contained("ogg", "libopus")


def decoders() -> int:
    return sum(thread.name == "decoder" for thread in threading.enumerate())


async def heard(pieces: list[bytes]) -> bytes:
    told: list[bytes] = []

    async def deliver(pcm: bytes) -> None:
        told.append(pcm)

    sound = ContainedSound(deliver)
    try:
        for piece in pieces:
            await sound.write(piece)
        await sound.finish()
    finally:
        sound.close()
    return b"".join(told)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = [*sorted({place % len(data) for place in places} - {0}), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@settings(max_examples=15)
@given(st.lists(st.integers(1, 10**6), max_size=30))
def test_however_it_is_cut_it_is_the_same_sound(places):
    whole = asyncio.run(heard([OGG]))
    assert len(whole) == pytest.approx(2 * 2 * 16_000, rel=0.02)
    assert asyncio.run(heard(cut(OGG, places))) == whole


@pytest.mark.parametrize(
    ("kind", "codec"), [("webm", "libopus"), ("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "mp3")]
)
def test_other_containers(kind, codec):
    data = contained(kind, codec)
    sound = asyncio.run(heard([data[at : at + 997] for at in range(0, len(data), 997)]))
    assert len(sound) == pytest.approx(2 * 2 * 16_000, rel=0.05)


@pytest.mark.parametrize("data", [b"\x00" * 3000, OGG[:100] + bytes(3000), b"RIFF\xff\xff\xff\xffWAVEfmt "])
def test_what_is_none_is_an_error(data):
    with pytest.raises(InputError):
        asyncio.run(heard([data]))


def test_who_goes_away_leaves_no_thread():
    async def scenario():
        async def deliver(pcm: bytes) -> None:
            pass

        sound = ContainedSound(deliver)
        await sound.write(OGG[: len(OGG) // 2])
        await sound.settle()  # all of it was decoded, and more is waited for
        assert decoders() == 1
        sound.close()

    asyncio.run(scenario())
    for _ in range(200):
        if not decoders():
            break
        time.sleep(0.02)
    assert not decoders()


def test_a_session_that_is_over_ends_it():
    async def scenario():
        async def deliver(pcm: bytes) -> None:
            raise StreamerError("the session is over")

        sound = ContainedSound(deliver)
        try:
            await sound.write(OGG)
            await sound.finish()
        finally:
            sound.close()

    with pytest.raises(StreamerError, match="over"):
        asyncio.run(scenario())


def test_what_settles_was_delivered():
    """All whole packets that came: the pages of an Ogg file hold up to a second."""

    async def scenario():
        told: list[int] = []

        async def deliver(pcm: bytes) -> None:
            told.append(len(pcm))

        sound = ContainedSound(deliver)
        await sound.write(OGG[: -len(OGG) // 4])
        await sound.settle()
        before = sum(told)
        await sound.finish()
        sound.close()
        return before, sum(told)

    before, all_of_it = asyncio.run(scenario())
    assert 0.5 * all_of_it < before <= all_of_it
