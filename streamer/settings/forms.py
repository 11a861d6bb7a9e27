"""What short texts in the settings must look like, as patterns and in words."""

from collections.abc import Mapping
from typing import Final

RULE_ID: Final = r"^[a-z][a-z0-9_]{0,39}$"
NAME: Final = r"^[a-z][a-z0-9_-]{0,39}$"
ENVIRONMENT: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"
TOPIC: Final = r"^[^+#\x00/\s][^+#\x00\s]{0,99}$"
HOST: Final = r"^[A-Za-z0-9._:-]{1,253}$"
LANGUAGE: Final = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"

IN_WORDS: Final[Mapping[str, str]] = {
    RULE_ID: "small letters a to z, digits and _, a letter first, at most 40",
    NAME: "small letters a to z, digits, - and _, a letter first, at most 40",
    ENVIRONMENT: "the name of an environment variable: letters, digits and _",
    TOPIC: "the beginning of an MQTT topic, without spaces, + and #, and no / first",
    HOST: "a host's name or address, without http:// or a path",
    LANGUAGE: "a language tag such as en or de-DE",
}
