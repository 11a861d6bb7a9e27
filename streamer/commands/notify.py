"""`streamer alerts test` and `streamer alerts phone`: try who is told of alerts, and have a phone told in two steps."""

import argparse
import os
import re
import secrets
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import SecretStr

from streamer.alerts.trial import Trial, trials
from streamer.commands.run import with_own_sounds
from streamer.errors import UsageError
from streamer.output import qr_code
from streamer.settings.config import Settings, resolve
from streamer.settings.deliveries import PushSettings, address, check_web_address, make_private
from streamer.settings.section import own_file, read_file

PHONE = "phone"  # the delivery's name
SERVER = "https://ntfy.sh"
TOPIC_CHARS = "abcdefghijkmnpqrstuvwxyz23456789"  # none that look alike, for those who type it
TOPIC_LENGTH = 24  # of 32 characters each: 120 bits; nobody guesses it, and whoever knows it reads along
INTRODUCED = "# Written by `streamer alerts phone`. Whoever knows the topic reads the alerts: show it to nobody else.\n"


def test_options(parser: argparse.ArgumentParser) -> None:
    """The options of `streamer alerts test`."""
    parser.add_argument("--rule", metavar="ID", help="as if this rule had raised it; without: the gravest of each")
    parser.add_argument("--to", metavar="NAME", help="only this delivery, by its name in the settings, or mqtt")


def phone_options(parser: argparse.ArgumentParser) -> None:
    """The options of `streamer alerts phone`."""
    parser.add_argument("--server", metavar="URL", type=_server, help=f"an ntfy server of your own ({SERVER})")
    parser.add_argument("--svg", metavar="FILE", type=Path, help="write the code as a picture too")


def test(options: argparse.Namespace) -> int:
    """`streamer alerts test`: a line for each delivery; status 1 where one failed or nobody was told."""
    return _tell(with_own_sounds(resolve(options.config, options.set, {})), options.rule, options.to)


def phone(options: argparse.Namespace) -> int:
    """`streamer alerts phone`: a topic that nobody guesses, in the settings, as a code for the camera, and tried."""
    path = options.config[-1] if options.config else own_file()
    settings = resolve([file for file in options.config if file != path or path.exists()], options.set, {})
    known = next((push for push in settings.delivery.push if push.name == PHONE), None)
    kept = True
    if known is None:
        server = options.server or SERVER
        topic = "streamer-" + "".join(secrets.choice(TOPIC_CHARS) for _ in range(TOPIC_LENGTH))
        settings, kept = _with_phone(settings, path, f"{_apprise_url(server)}/{topic}")
        subscribed = f"{server}/{topic}"
    else:
        subscribed = _subscribed(known, options.server)
    if options.svg is not None:
        _write_svg(options.svg, subscribed)
    code = qr_code.for_terminal(subscribed, colours=sys.stdout.isatty())
    sys.stdout.write(f"\n{code or qr_code.MISSING}\n\n")
    sys.stdout.write("1. On the phone, install ntfy (https://ntfy.sh/app, or the phone's shop).\n")
    sys.stdout.write(f"2. Point its camera at the code, or subscribe in the app to\n   {subscribed}\n\n")
    sys.stdout.flush()
    if sys.stdin.isatty():
        input("Press Enter when it is subscribed; then a test goes out. ")
    status = _tell(settings, None, PHONE)
    sys.stdout.write(_outcome(path, went_out=status == 0, kept=kept) + "\n")
    return status


def _outcome(path: Path, *, went_out: bool, kept: bool) -> str:
    """What holds after the test. `kept`: the topic stands in the settings; else it was shown to be pasted."""
    mine = "" if path == own_file() else f" --config {path}"
    before = "" if kept else f"once the lines above stand in {path}, "
    if went_out:
        return (
            f"Does the phone show the test? Then {before}`streamer run{mine}` tells it of alerts. "
            "If it does not, see whether the app is subscribed to the topic above."
        )
    again = f"`streamer alerts test --to {PHONE}{mine}` tries again"
    return f"The test did not go out, so nobody knows yet whether alerts reach the phone; {before}{again}."


def _tell(settings: Settings, rule: str | None, to: str | None) -> int:
    told: list[Trial] = []
    for trial in trials(settings, rule=rule, to=to):
        told.append(trial)
        sys.stdout.write(describe(trial) + "\n")
        sys.stdout.flush()
    return 0 if any(one.after_ms is not None for one in told) and not any(one.failed for one in told) else 1


def describe(trial: Trial) -> str:
    """One line about a delivery that was tried."""
    name = f"{trial.name} ({trial.place})" if trial.place else trial.name
    if trial.after_ms is not None:
        return f"{name}: delivered after {trial.after_ms} ms"
    return f"{name}: {'NOT delivered: ' if trial.failed else ''}{trial.why}"


def _with_phone(settings: Settings, path: Path, url: str) -> tuple[Settings, bool]:
    """The settings with the phone among the pushes, and whether they were written into `path`.

    Where somebody wrote there already they are shown, to be pasted.
    """
    written = False
    text = yaml.safe_dump({"delivery": {"push": [{"name": PHONE, "url": url}]}}, sort_keys=False)
    try:
        if path.exists() and path.read_text(encoding="utf-8").strip():
            read_file(path)  # what is wrong with it is said now
            sys.stdout.write(f"{path} is yours and stays as it is: put this into it, under `delivery:`\n\n{text}")
        else:
            make_private(path.parent)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(INTRODUCED + text)
            written = True
            sys.stdout.write(f"{path} is written: it names the topic that the phone is to subscribe to\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"--config {path}: cannot be written: {why}") from None
    added = (*settings.delivery.push, PushSettings(name=PHONE, url=SecretStr(url)))
    delivery = settings.delivery.model_copy(update={"push": added})
    return settings.model_copy(update={"delivery": delivery}), written


def _subscribed(push: PushSettings, server: str | None) -> str:
    """The web address of the topic that is in the settings already. UsageError where it is none of ntfy's."""
    found = re.fullmatch(r"(ntfys?)://(?:([^/@?]+)/)?([-\w]{1,64})", address(push.url, push.url_env, "delivery.push"))
    if found is None:
        raise UsageError(
            f"delivery.push: {PHONE!r} is there and is no ntfy topic that could be shown; "
            f"`streamer alerts test --to {PHONE}` tries it"
        )
    there = f"{'https' if found[1] == 'ntfys' else 'http'}://{found[2]}" if found[2] else SERVER
    if server not in (None, there):
        raise UsageError(f"--server: {PHONE!r} is at {there} already; take it out of delivery.push for another one")
    return f"{there}/{found[3]}"


def _apprise_url(server: str) -> str:
    return re.sub(r"^https?", lambda scheme: "ntfys" if scheme[0] == "https" else "ntfy", server)


def _server(text: str) -> str:
    try:
        parts = urlsplit(check_web_address(text))
        alone = not (parts.path.strip("/") or parts.query or parts.fragment)
    except ValueError:
        alone = False
    if not alone:
        raise argparse.ArgumentTypeError(f"must be a server such as {SERVER}, is {text!r}")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _write_svg(path: Path, text: str) -> None:
    picture: Any = qr_code.as_svg(text)
    if picture is None:
        raise UsageError(f"--svg {path}: {qr_code.MISSING}")
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(picture)
    except OSError as error:
        raise UsageError(f"--svg {path}: cannot be written: {error.strerror}") from None
