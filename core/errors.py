"""The exception whose message is written for users."""


class UserError(Exception):
    """A mistake that the user can correct. The message says in one line what was wrong and what to do."""
