"""Class names as people write them, since a text model knows "apply eye makeup" and not "ApplyEyeMakeup"."""

from __future__ import annotations

import re

_WORD_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[a-zA-Z])(?=[0-9]{2,})")


def readable(name: str) -> str:
    """Return a class name in lower-case words.

    CamelCase of UCF101 and underscores of HMDB51 become spaces; the brackets of Something-Something templates go, their
    words stay; spaces are folded.

    >>> readable("ApplyEyeMakeup"), readable("brush_hair"), readable("YoYo")
    ('apply eye makeup', 'brush hair', 'yo yo')
    >>> readable("Putting [something] on [something]"), readable("hurling (sport)")
    ('putting something on something', 'hurling (sport)')
    """
    words = _WORD_BORDER.sub(" ", name.replace("[", "").replace("]", "").replace("_", " "))
    return " ".join(words.split()).lower()
