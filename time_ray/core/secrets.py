"""Addresses as people may read them: without what follows a question mark and without a user, which may be secrets."""

import re

_USER = re.compile(r"(\w://)(?!/)[^\s'\"]*@")  # up to the last @: a secret may hold any letter
_QUERY = re.compile(r"(\w://[^\s?'\"]*)\?[^\s'\"]*")


def hidden(text: str) -> str:
    """The text with every address in it cut down to what may be shown."""
    return _QUERY.sub(r"\1", _USER.sub(r"\1", text))
