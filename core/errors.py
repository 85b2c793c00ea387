"""The one exception that users are meant to read."""


class UserError(Exception):
    """Something the user can put right: its message says in one line what was wrong and what to do."""
