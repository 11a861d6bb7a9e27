"""Trying who would be told: a marked test alert goes to each delivery once, and what became of it is known at once.

There is no queue, spool, history or second attempt here, and no rule, sensor or page that would take it for a real
one: its `source` is `test`, `test` is true, titles begin with TEST. What was raised is cleared again where the delivery
is told of ends; pushes get the beginning alone.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from streamer.alerts.deliveries import TargetMaker
from streamer.alerts.delivery import NotDeliveredError, RefusedError, Target, fault
from streamer.alerts.parcels import Parcel, parcel_key
from streamer.errors import ConfigError, UsageError, meant
from streamer.events import SEVERITY_RANK, Alert, AlertState
from streamer.settings.config import Settings
from streamer.settings.deliveries import DeliverySettings
from streamer.settings.rules import AlertRule

MARK = "TEST"


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a test. `name`, `place`: the delivery, and the service or host behind it, for people.

    `after_ms`: until it was taken; None: it was not, and `why` says why. `failed`: that is a fault.
    """

    name: str
    place: str = ""
    after_ms: int | None = None
    why: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A delivery of the settings. `to`: what people call it; `ends`: it is told of the end too."""

    to: str
    name: str
    make: Callable[[], Target]
    wants: Callable[[Alert], bool] = lambda alert: True
    ends: bool = False


def trials(
    settings: Settings, *, rule: str | None = None, to: str | None = None, environment: Mapping[str, str] = os.environ
) -> Iterator[Trial]:
    """Try each delivery, or those that are called `to`, one after the other. UsageError: there is no such one, or rule.

    `rule`: what is raised; None: for each the gravest rule that it is told of.
    """
    rules = settings.all_rules()
    found = list(_candidates(TargetMaker(settings, environment, rules), settings.delivery))
    chosen = [one for one in found if to in (None, one.to)]
    if not found:
        raise UsageError("no delivery is configured: `streamer alerts phone` sets one up; see docs/alerts.md")
    if not chosen:
        raise UsageError(f"--to: no delivery is called {to!r}; there are {', '.join(one.to for one in found)}")
    if rule is not None and rule not in (known := [one.id for one in rules]):
        raise UsageError(f"--rule: no rule is called {rule!r}; there are {', '.join(known)}{meant(rule, known)}")
    asked = [one for one in rules if one.id == rule or (rule is None and one.enabled)]
    asked.sort(key=lambda one: -SEVERITY_RANK[one.severity])
    session = f"test-{datetime.now():%Y%m%dT%H%M%S}"  # none that an earlier test had: receivers know repetitions by it
    return (_try(one, asked, session) for one in chosen)


def made_up_alert(rule: AlertRule, session: str, state: AlertState) -> Alert:
    """An alert that nothing raised, marked as a test wherever people or programs look."""
    return Alert(
        session=session,
        seq=1 if state == "raised" else 2,
        audio_t=0.0,
        id=1,
        rule=rule.id,
        severity=rule.severity,
        state=state,
        start=0.0,
        end=None if state == "raised" else 0.0,
        score=0.0,
        labels=(MARK,),
        heard=(),
        text=MARK,
        source="test",
    )


def _candidates(make: TargetMaker, given: DeliverySettings) -> Iterator[_Candidate]:
    made: Callable[[], Target]
    if given.mqtt.host is not None:
        yield _Candidate("mqtt", "mqtt", partial(make.mqtt_trial, given.mqtt))
    for index, push in enumerate(given.push):
        made = partial(make.push, push, f"delivery.push[{index}]")
        yield _Candidate(push.name, f"push {push.name}", made, push.wants)
    for index, hook in enumerate(given.webhooks):
        made = partial(make.webhook, hook, f"delivery.webhooks[{index}]")
        yield _Candidate(hook.name, f"webhook {hook.name}", made, hook.wants, ends="cleared" in hook.states)
    for index, call in enumerate(given.commands):
        made = partial(make.command, call, f"delivery.commands[{index}]")
        yield _Candidate(call.name, f"command {call.name}", made, call.wants, ends="cleared" in call.states)


def _try(one: _Candidate, rules: Sequence[AlertRule], session: str) -> Trial:
    rule = next((rule for rule in rules if one.wants(made_up_alert(rule, session, "raised"))), None)
    if rule is None:
        return Trial(one.name, why="is not told of this rule (rules, min_severity)")
    try:
        target = one.make()
    except ConfigError as error:
        return Trial(one.name, why=str(error), failed=True)
    began_s, after_ms, why = time.monotonic(), None, ""
    try:
        target.start()
        states: tuple[AlertState, ...] = ("raised", "cleared") if one.ends else ("raised",)
        for number, state in enumerate(states, 1):
            alert = made_up_alert(rule, session, state)
            target.send(Parcel(number, alert, parcel_key(alert), time.time()))
            after_ms = after_ms or round(1000 * (time.monotonic() - began_s))
    except RefusedError as error:
        why = f"refused: {error}"
    except NotDeliveredError as error:
        why = str(error)
    except Exception as error:  # noqa: BLE001  a target's own fault must not keep the others from being tried
        why = f"unexpected {fault(error)}"
    finally:
        target.close()
    return Trial(one.name, target.place, None if why else after_ms, why, failed=bool(why))
