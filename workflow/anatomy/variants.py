"""Two readings of one method, where the released code departs from the paper's text."""

from typing import Literal, get_args

# "paper": as the text says. "original": as the released code does.
Variant = Literal["paper", "original"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
