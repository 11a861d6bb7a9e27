"""An alert in words for people, the same in every notification."""

from collections.abc import Mapping

from streamer.events import Alert
from streamer.output.plain_text import clean

_MARKS = {"critical": "‼ ", "warning": "", "info": ""}
TEXT_TAIL = 200  # characters of what was being said


def title(alert: Alert, names: Mapping[str, str]) -> str:
    """One line: what it is and whether it is over. `names`: what people call each rule."""
    name = names.get(alert.rule, clean(alert.rule).replace("_", " "))
    match alert.state:
        case "raised":
            return f"{_MARKS[alert.severity]}{name}"
        case "cleared":
            return f"{name}: taken back" if "withdrawn" in alert.labels else f"{name}: over"
        case "acknowledged":
            return f"{name}: seen"
        case "updated":
            return f"{_MARKS[alert.severity]}{name}: still there"


def body(alert: Alert) -> str:
    """What was heard and said, a line each; never empty."""
    lines = []
    if alert.labels:
        lines.append("Heard: " + ", ".join(clean(label) for label in alert.labels))
    if alert.heard:
        lines.append("Tags: " + ", ".join(f"{clean(tag.label)} {tag.score:.2f}" for tag in alert.heard))
    if clean(alert.text):
        lines.append(f"Said meanwhile: “{clean(alert.text)[-TEXT_TAIL:]}”")
    if alert.end is not None:
        lines.append(f"It lasted {max(0.0, alert.end - alert.start):.0f} s.")
    return "\n".join(lines) or f"Severity: {alert.severity}"
