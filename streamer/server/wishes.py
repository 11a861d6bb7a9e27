"""What clients may ask of the program on `/ws`, and the answers (pure). Who may connect: `streamer.server.access`."""

from collections.abc import Callable
from typing import Any

from streamer.server import messages
from streamer.server.listening import Actions, ServerOptions
from streamer.server.messages import Ack, ClientMessage, Flush, Mark, MessageError, SetLanguage, Subscribe


def capabilities(options: ServerOptions, actions: Actions) -> tuple[str, ...]:
    """What `hello` says that this server can do."""
    marks = () if actions.mark is None else (messages.MARK,)
    sets = () if _set_refusal(options) else (messages.SET,)
    return (*messages.CAPABILITIES, *marks, *sets)


def carry_out(
    message: ClientMessage, options: ServerOptions, actions: Actions, subscribe: Callable[[Subscribe], None]
) -> dict[str, Any] | None:
    """Do what a client asks; the answer, if there is one. Raises MessageError: its `error`."""
    match message:
        case Subscribe():
            subscribe(message)
        case Ack():
            actions.ack(message)
        case Flush():
            actions.flush(message)
        case Mark():
            if actions.mark is None:
                raise MessageError("mark: this server keeps no history of alerts; see delivery.history.record")
            actions.mark(message)
        case SetLanguage():
            if refusal := _set_refusal(options):
                raise MessageError(refusal)
            return messages.language_set(actions.set_language(message))
        case _:
            return messages.pong()
    return None


def _set_refusal(options: ServerOptions) -> str:
    """Why nobody may set anything, "" where those may who hold the token: nobody else is connected then."""
    if not options.allow_set:
        return "set: not allowed here; with server.allow_set: true, whoever holds the server's token may"
    if options.token is None:
        return "set: only for those who hold the server's token, and this server has none; it needs --token"
    return ""
