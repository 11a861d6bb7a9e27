"""Commands: real programs, started without a shell."""

import json
import os
import sys

import pytest
from alerts_made import alert, wait_for

from streamer.alerts.deliveries import open_deliveries
from streamer.alerts.delivery import Delivery, RefusedError
from streamer.alerts.parcels import Parcel, parcel_key
from streamer.alerts.targets import Command, variables
from streamer.errors import ConfigError
from streamer.settings.config import validate

NAMES = {"siren": "Siren"}


def parcel(**fields):
    made = alert(**fields)
    return Parcel(1, made, parcel_key(made), 0.0)


def command(*argv, timeout_s=20.0, hidden=frozenset()):
    return Command("bell", argv, names=NAMES, timeout_s=timeout_s, path="delivery.commands[0]", hidden=hidden)


def python(code, *arguments, **more):
    return command(sys.executable, "-c", code, *arguments, **more)


def test_the_event_on_stdin_and_its_fields_in_the_environment(tmp_path):
    target = tmp_path / "told.json"
    code = "import json,os,sys; json.dump([sys.stdin.read(), dict(os.environ), sys.argv[1:]], open(sys.argv[1], 'w'))"
    made = parcel(text="$(touch pwned) `x`; \x1b[31m \x00 'q'")
    python(code, str(target), "$HOME").send(made)
    stdin, environment, arguments = json.loads(target.read_text())
    assert json.loads(stdin) == made.alert.to_dict()
    assert stdin.endswith("\n")
    assert arguments == [str(target), "$HOME"]
    assert environment["STREAMER_RULE"] == "siren"
    assert environment["STREAMER_STATE"] == "raised"
    assert environment["STREAMER_KEY"] == made.key
    assert environment["STREAMER_TITLE"] == "‼ Siren"
    assert environment["STREAMER_TEXT"] == "$(touch pwned) `x`; [31m 'q'"
    assert "PATH" in environment


def test_our_secrets_are_not_handed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK_KEY", "secret")
    target = tmp_path / "told"
    code = "import os,sys; open(sys.argv[1],'w').write(str('HOOK_KEY' in os.environ))"
    python(code, str(target), hidden=frozenset({"HOOK_KEY"})).send(parcel())
    assert target.read_text() == "False"


def test_every_field_is_there_for_an_end():
    fields = variables(parcel(state="cleared", labels=("help me", "withdrawn")), NAMES)
    assert fields["STREAMER_END"] == "12.000"
    assert fields["STREAMER_TITLE"] == "Siren: taken back"
    assert fields["STREAMER_HEARD"] == "Siren 0.91; Speech 0.40"
    assert "It lasted 2 s." in fields["STREAMER_BODY"]


def test_a_program_that_fails_or_reads_nothing():
    with pytest.raises(RefusedError, match="it ended with status 3"):
        python("import sys; sys.exit(3)").send(parcel())
    python("import os; os.close(0)").send(parcel(text="long " * 50))


def test_a_program_that_hangs_is_ended_with_what_it_started(tmp_path):
    target = tmp_path / "pid"
    script = 'trap "" TERM; sleep 60 & echo $! > "$1"; wait'
    with pytest.raises(RefusedError, match="it did not end within"):
        command("sh", "-c", script, "sh", str(target), timeout_s=2).send(parcel())

    def gone():
        stat = f"/proc/{target.read_text().strip()}/stat"
        return not os.path.exists(stat) or open(stat).read().rpartition(")")[2].split()[0] == "Z"

    wait_for(gone)


def test_a_program_that_does_not_exist_is_one_line():
    with pytest.raises(ConfigError, match=r"delivery\.commands\[0\]\.argv\[0\]: '/no/such' is no program"):
        command("/no/such")


def test_at_most_so_many_at_once_and_each_alert_in_order(tmp_path):
    log = tmp_path / "log"
    code = (
        "import os,sys,time; f=os.open(sys.argv[1],os.O_WRONLY|os.O_APPEND|os.O_CREAT);"
        "who=os.environ['STREAMER_ID']+' '+os.environ['STREAMER_STATE'];"
        "say=lambda what: os.write(f,f'{what} {who}\\n'.encode());"
        "say('begin'); time.sleep(0.1); say('end')"
    )
    delivery = Delivery(python(code, str(log)), limit=100, senders=2)
    delivery.start()
    for id in (1, 2, 3):
        delivery.put(alert(id))
        delivery.put(alert(id, "cleared"))
    delivery.finish()
    assert delivery.join(60)
    running = most = 0
    seen = {}
    for line in log.read_text().splitlines():
        what, id, state = line.split()
        running += 1 if what == "begin" else -1
        most = max(most, running)
        seen.setdefault(id, []).append((what, state))
    assert most <= 2
    for steps in seen.values():
        assert steps == [(what, state) for state in ("raised", "cleared") for what in ("begin", "end")]


def test_from_settings(tmp_path):
    code = "import os,sys; open(sys.argv[1],'a').write(os.environ['STREAMER_STATE']+' ')"
    argv = [sys.executable, "-c", code, str(tmp_path / "told")]
    data = {"commands": [{"name": "bell", "argv": argv, "min_severity": "warning"}], "history": {"record": "never"}}
    deliveries = open_deliveries(validate({"delivery": data}), live=True)
    deliveries.start()
    deliveries.put([alert(1), alert(2, severity="info"), alert(1, "updated"), alert(1, "cleared")])
    assert deliveries.stop(30)
    assert (tmp_path / "told").read_text() == "raised cleared "


def test_nothing_is_delivered_by_default(tmp_path):
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    assert open_deliveries(validate({}), live=False, environment=environment)._deliveries == ()
    live = open_deliveries(validate({}), live=True, environment=environment)
    assert [delivery.name for delivery in live._deliveries] == ["history"]
