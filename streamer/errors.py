"""The exceptions of Streamer.

    StreamerError
    ├── UsageError            a wrong option, setting or input: exit status 2, one line, never a traceback
    │   ├── ConfigError       a setting; the message starts with the key's full path
    │   ├── InputError        an audio file, device or stream that cannot be used
    │   └── CheckpointError   a model or head file that is missing, damaged or does not fit
    ├── DownloadError         a file could not be fetched or is not what its publisher promised
    ├── DeviceLost            the capture device went away while it was in use
    └── EngineError           the model could not do its work (a failed warm-up, out of memory)

Every message is one line that names the option, key, file or device and says what would be right.
"""


class StreamerError(Exception):
    """Base of all errors that Streamer raises on purpose."""


class UsageError(StreamerError):
    """The person or the calling program gave something that cannot work; exit status 2."""


class ConfigError(UsageError):
    """A setting is unknown, of the wrong type or impossible."""


class InputError(UsageError):
    """An audio file, device or stream cannot be opened or read."""


class CheckpointError(UsageError):
    """A checkpoint or tagging head is missing, damaged or does not fit."""


class DownloadError(StreamerError):
    """A download failed or its content is not what was promised."""


class DeviceLost(StreamerError):  # noqa: N818 what happened, not what was wrong
    """The capture device stopped delivering audio or disappeared."""


class EngineError(StreamerError):
    """The model cannot run: the warm-up failed, memory ran out."""
