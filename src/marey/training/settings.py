"""How settings classes are checked, and the types their fields share."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field

CHECKED = ConfigDict(extra="forbid", strict=True)
"""What pydantic checks of every settings class, and of the plain dataclasses inside it: no unknown
key, no conversion but int to float."""


def as_tuple(value: object) -> tuple[object, ...]:
    """Return a list or tuple as a tuple, and a single value as a tuple of one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


T = TypeVar("T")
Several = Annotated[tuple[T, ...], BeforeValidator(as_tuple)]
"""A tuple of any length; a single value stands for a tuple of one."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A number in [0, 1]."""
