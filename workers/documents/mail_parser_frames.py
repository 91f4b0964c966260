"""How a process that reads mails is asked and answers. Apart from it: who asks does not load what reads."""

from struct import Struct
from typing import Final

#: What precedes a request: the lengths of its terms and of the mail; and an answer: its length.
REQUEST: Final = Struct(">II")
ANSWER: Final = Struct(">I")
