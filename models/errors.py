"""What can be wrong with a user's network or data; importing this never imports torch."""

from __future__ import annotations


class InputError(Exception):
    """Something of the user's cannot be trained, or trained on; the message says what, where, and what is allowed."""


class UserCodeError(InputError):
    """A function that the scenario names cannot be loaded, failed, or returned what it must not."""


class DataError(InputError):
    """The data has the wrong form or values."""


class NetworkError(InputError):
    """The module cannot be trained by a parameter server."""
