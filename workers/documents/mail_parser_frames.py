"""The frames between parent and child of the mail parser. A module of its own, so that the parent does not load the parser."""

from struct import Struct
from typing import Final

#: The header of a request: the lengths of its terms and of the mail; and of an answer: its length.
REQUEST: Final = Struct(">II")
ANSWER: Final = Struct(">I")
