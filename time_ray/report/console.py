"""The console that people read: what is printed there, also in tables, may hold words of strangers."""

from typing import Any

from rich.console import Console
from rich.text import Text

from time_ray.core.foreign import shown


class SafeConsole(Console):
    """A console on which no printed word is taken for a command, markup or an emoji's name."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text, as rich lays it out."""
        return super().render_str(shown(text), **options)
