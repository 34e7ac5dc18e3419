"""The one exception that is the user's to mend: its message names the thing and the remedy, and no traceback is shown."""


class UserError(Exception):
    """A mistake in what was asked for, or in the files it needs; the message is the whole story."""


class SpecError(UserError):
    """A value that cannot be run: names the field, the value and what is allowed."""
