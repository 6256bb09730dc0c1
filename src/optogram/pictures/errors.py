"""What is said when a request cannot be met: one sentence, and no blame on the program."""


class RequestError(ValueError):
    """What was asked for cannot be done: what was given, what there is, what to do."""
