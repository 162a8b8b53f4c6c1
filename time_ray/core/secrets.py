"""Addresses as people may read them: without users, queries, and values that are named secrets."""

import re

_USER = re.compile(r"(\w://)(?!/)[^\s'\"]*@")  # up to the last @: a secret may hold any letter
_NAMES = "password|passwd|secret|token|signature|credential|access_key|api_key"
_NAMED = re.compile(rf"(?i)\b((?:\w+[_-])?(?:{_NAMES})=)[^\s&'\",;]+")
_QUERY = re.compile(r"(\w://[^\s?'\"]*)\?[^\s'\"]*")


def hidden(text: str) -> str:
    """The text with every address in it cut down to what may be shown."""
    return _NAMED.sub(r"\1...", _QUERY.sub(r"\1", _USER.sub(r"\1", text)))
