""" "That was my bell", pressed on a page: the real program hears it three times, learns it, and knows it the fourth."""

import asyncio
import json
import stat

import numpy as np
from chimes import RATE, chime, noise
from program import Program
from websockets.asyncio.client import connect

TOKEN = "open sesame"
PIECE = RATE // 10  # samples that the sender sends at a time


async def until(client, wanted):
    """Messages up to the first that is wanted; the last of them."""
    async with asyncio.timeout(60):
        while not wanted(message := json.loads(await client.recv())):
            pass
    return message


async def play(sender, samples):
    for at in range(0, len(samples), PIECE):
        await sender.send(np.round(np.clip(samples[at : at + PIECE], -1, 1) * 32767).astype("<i2").tobytes())


def test_a_bell_is_taught_from_the_page_and_known_at_once(tmp_path):
    settings = ("server.allow_set=true", "own_sounds.from_pages=true", f"own_sounds.folder={tmp_path / 'sounds'}")
    arguments = ["--input", "-", "--model", "nano", "--port", "0", "--stay", "--token", TOKEN]
    arguments += [part for one in settings for part in ("--set", one)]

    async def scenario(address):
        token = f"token={TOKEN.replace(' ', '%20')}"
        async with (
            connect(f"ws://{address}/ws?{token}&types=status,sound,alert") as page,
            connect(f"ws://{address}/ingest?{token}") as sender,
        ):
            hello = json.loads(await page.recv())
            assert "teach" in hello["capabilities"]
            await sender.send(json.dumps({"type": "start", "sample_rate": RATE, "source": None}))
            session = json.loads(await sender.recv())
            while session["type"] != "started":
                session = json.loads(await sender.recv())
            teach = {"type": "teach", "session": session["session"], "name": "My bell"}
            told = []
            for seed in range(3):
                await play(sender, np.concatenate([noise(seed, 3), chime(seed), noise(seed + 9, 1)]))
                await asyncio.sleep(0.5)
                await page.send(json.dumps(teach))
                told.append(await until(page, lambda one: one["type"] in ("taught", "error")))
            told.append(await until(page, lambda one: one["type"] in ("taught", "error")))
            await play(sender, np.concatenate([noise(21, 3), 0.7 * chime(40), noise(22, 3)]))
            sound = await until(page, lambda one: one["type"] == "sound" and one["label"] == "My bell")
            alert = await until(page, lambda one: one["type"] == "alert" and one["rule"] == "my_bell")
            await page.send(json.dumps({**teach, "undo": True, "session": None}))
            undone = await until(page, lambda one: one["type"] in ("taught", "error"))
            return told, sound, alert, undone

    with Program(*arguments) as running:
        running.wait_for_stderr("listening with")
        line = running.wait_for_stderr("captions and sounds: http://")
        address = line.split("captions and sounds: http://")[1].split("/")[0]
        told, sound, alert, undone = asyncio.run(scenario(address))
    assert [one["clips"] for one in told] == [1, 2, 3, 3]
    assert [one["learning"] for one in told] == [False, False, True, False]
    assert [one["learned"] for one in told] == [False, False, False, True]
    assert told[3]["recall"] > 0.5
    assert sound["state"] == "start"
    assert alert["state"] == "raised"
    assert (undone["clips"], undone["learned"]) == (2, True)
    kept = sorted((tmp_path / "sounds" / "clips" / "my bell").iterdir())
    assert [path.name for path in kept] == ["0001.wav", "0002.wav"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert (tmp_path / "sounds" / "my bell.npz").is_file()
