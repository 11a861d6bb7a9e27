"""Capture devices as plain rows, and how one is chosen: by index, by a part of its name, or as the default."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from streamer.errors import InputError

SEE_LIST = "see --list-devices"


@dataclass(frozen=True, slots=True)
class Device:
    """One device that can record: `channels` is the most it offers, `rate` its native one in Hz."""

    index: int
    name: str
    host_api: str
    channels: int
    rate: int
    default: bool = False

    @property
    def plain_name(self) -> str:
        """The name without ALSA's card number, which may be another after a replug."""
        return re.sub(r"\s*\(hw:\d+,\d+\)$", "", self.name)


def choose_device(devices: Sequence[Device], wanted: int | str | None) -> Device:
    """The device with that index, else the only one whose name contains `wanted` (any case); None: the default.

    An exact name wins over a part; of a device that several host APIs list, the default's host API wins.
    Raises InputError of one line that names --device and what there is.
    """
    if not devices:
        raise InputError("--device: this machine shows no microphone; see `streamer doctor`, or use --input FILE")
    if wanted is None:
        return next((device for device in devices if device.default), devices[0])
    if isinstance(wanted, int) or wanted.strip().isdecimal():
        return _by_index(devices, int(wanted))
    word = wanted.strip().casefold()
    if not word:
        raise InputError(f"--device: the name is empty; give an index or a part of a name, {SEE_LIST}")
    matches = [device for device in devices if word in device.name.casefold()]
    exact = [device for device in matches if word in (device.name.casefold(), device.plain_name.casefold())]
    if not matches:
        raise InputError(f"--device {wanted}: no microphone's name contains that; there are {_listed(devices)}")
    return _only(devices, exact or matches, wanted)


def find_again(devices: Sequence[Device], lost: Device) -> Device | None:
    """The device that went away, by its name (its index may be another one's now), or None while it is away."""
    named = [device for device in devices if device.plain_name == lost.plain_name]
    return next((device for device in named if device.host_api == lost.host_api), named[0] if named else None)


def _by_index(devices: Sequence[Device], index: int) -> Device:
    for device in devices:
        if device.index == index:
            return device
    raise InputError(f"--device {index}: is no microphone; there are {_listed(devices)}")


def _only(devices: Sequence[Device], matches: Sequence[Device], wanted: str) -> Device:
    if len(matches) > 1:
        host_api = choose_device(devices, None).host_api
        matches = [device for device in matches if device.host_api == host_api] or matches
    if len(matches) > 1:
        raise InputError(f"--device {wanted}: fits {_listed(matches)}; give an index or more of the name")
    return matches[0]


def _listed(devices: Sequence[Device]) -> str:
    shown = ", ".join(f"{device.index} {device.name!r}" for device in devices[:6])
    return shown if len(devices) <= 6 else f"{shown} and {len(devices) - 6} more ({SEE_LIST})"
