"""`streamer doctor --monitor`: what the hearing aid finds on this machine, and how late it is."""

from concurrent.futures import ThreadPoolExecutor

from streamer.audio.portaudio import PortAudio
from streamer.commands.doctor import Check, Verdict
from streamer.errors import InputError
from streamer.monitor.delay import Delay, measure
from streamer.monitor.priority import ask_for_priority
from streamer.settings.config import resolve
from streamer.settings.monitor import MonitorSettings

MOST_ADDED_MS = 12.0  # more and one's own voice begins to sound hollow
MOST_SHARE = 0.05  # of one core
_LIMITS = "@audio - rtprio 20 in /etc/security/limits.d/audio.conf, and join the group audio"


def checks() -> list[Check]:
    """Look at outputs and priority, then play for some seconds through a sound server of our own."""
    settings = resolve([], [], {}).monitor
    return [_outputs(), _priority(), _most(settings), *_delay(settings)]


def _outputs() -> Check:
    try:
        found = PortAudio().outputs()
    except InputError as error:
        return Check(Verdict.MISSING, "outputs", str(error).removeprefix("--device: "), "mend PortAudio first")
    if not found:
        mend = "plug in headphones or start the sound server (`systemctl --user start pipewire-pulse`)"
        return Check(Verdict.WARN, "outputs", "this machine shows none", mend)
    return Check(Verdict.OK, "outputs", ", ".join(f"{one.index} {one.name!r}" for one in found))


def _priority() -> Check:
    """What a thread of this user gets; it keeps it, so it is one of its own."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        got = pool.submit(ask_for_priority).result()
    if got == "real time":
        return Check(Verdict.OK, "priority", got)
    return Check(Verdict.WARN, "priority", f"{got}: sound may drop out while the machine is busy", _LIMITS)


def _most(settings: MonitorSettings) -> Check:
    """The largest sample that may come out, by the settings in force."""
    full_scale = settings.output_full_scale_db_spl
    ear = (
        "how loud that is in the ear is not known without monitor.output_full_scale_db_spl"
        if full_scale is None
        else f"{settings.ceiling_dbfs + full_scale:g} dB SPL in the ear"
    )
    return Check(Verdict.OK, "maximum output", f"{settings.ceiling_dbfs:g} dBFS; {ear}")


def _delay(settings: MonitorSettings) -> list[Check]:
    given = settings.model_copy(update={"output": "default", "headphones": True, "limit_db_spl": None})
    try:
        found = measure(given)
    except InputError as error:
        mend = "sudo apt-get install pulseaudio pulseaudio-utils libasound2-plugins"
        return [Check(Verdict.WARN, "delay", f"cannot be measured: {error}", mend)]
    return verdicts(found)


def verdicts(found: Delay) -> list[Check]:
    """What was measured, against what is good enough."""
    return [_late(found), _dropped(found), _share(found)]


def _late(found: Delay) -> Check:
    detail = (
        f"{found.added_ms:.1f} ms besides the devices' own ({found.devices_ms:.1f} ms of PulseAudio and its null sinks)"
    )
    if found.added_ms <= MOST_ADDED_MS:
        return Check(Verdict.OK, "delay", detail)
    return Check(Verdict.WARN, "delay", detail, "end what keeps this machine busy; a lower monitor.reserve_ms")


def _dropped(found: Delay) -> Check:
    report = found.report
    detail = f"{report.underruns} underruns, {report.dropped} blocks dropped, of {report.blocks}"
    if report.underruns + report.dropped == 0:
        return Check(Verdict.OK, "dropouts", detail)
    return Check(Verdict.WARN, "dropouts", detail, "a higher monitor.reserve_ms; real-time priority")


def _share(found: Delay) -> Check:
    share, process_share = 100 * found.report.share, 100 * found.report.process_share
    detail = f"{share:.1f} % of one core for the sound, {process_share:.1f} % with the audio drivers' threads"
    if found.report.share <= MOST_SHARE:
        return Check(Verdict.OK, "processor", detail)
    return Check(Verdict.WARN, "processor", detail, "end what keeps this machine busy; monitor.noise_reduction: false")
