"""A user's mistake, told in one line."""


class UserError(Exception):
    """Something the user can mend: the message names the thing, what is wrong and what to do.

    Commands print the message as one line and exit with code 2; everything else that is raised
    is a defect of this program and keeps its traceback.
    """
