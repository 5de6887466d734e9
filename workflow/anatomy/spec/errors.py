"""The one error a person sees when their input is wrong."""


class SpecError(ValueError):
    """What was wrong, where, and what was expected; shown without a traceback."""
