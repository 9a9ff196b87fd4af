"""The one exception that a person is meant to read."""

import os
import re

_PASSWORD = re.compile(r"(?<=://)[^/\s'\"]+@")
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY", re.IGNORECASE)
HIDDEN = "***"


class UserError(Exception):
    """Something the person running regrow can put right.

    The message is one sentence that names the key, file or line at fault, what is allowed, and
    what to do. `python -m regrow` prints it without a traceback and exits with status 1.

    A message may hold what a person wrote or a library said, so it is made safe to print: no
    password of a URL, no secret of the environment, and one line without control characters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(_without_secrets(message)))


def _without_secrets(text: str) -> str:
    text = _PASSWORD.sub(f"{HIDDEN}@", text)
    for name, value in os.environ.items():
        # A shorter value is no secret, and would be found in the middle of words.
        if _SECRET.search(name) and len(value.strip()) >= 8:
            text = text.replace(value.strip(), HIDDEN)
    return text


def _one_line(text: str) -> str:
    """Controls (line breaks too) and halves of surrogate pairs as Python would write them."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
