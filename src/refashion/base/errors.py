"""A user's mistake, or what the system refuses, told in one line."""

import errno

FULL = {errno.ENOSPC, errno.EDQUOT}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY}


class UserError(Exception):
    """Something the user can mend: the message names the thing, what is wrong and what to do.

    Commands print the message as one line and exit with code 2; everything else that is raised
    is a defect of this program and keeps its traceback.
    """


def one_line(error: UserError | OSError) -> str:
    """What is wrong and what to do, also where the system refuses: a full disk, say."""
    if isinstance(error, UserError):
        return str(error)
    reason = error.strerror or " ".join(map(str, error.args)) or type(error).__name__
    cure = "mend that"
    of_numpy = error.errno is None and reason.endswith(" written")  # fewer than were requested
    if error.errno in FULL or of_numpy:
        cure = "free some space"
    elif error.errno in FORBIDDEN:
        cure = "mend its permissions"
    elif error.errno in IN_THE_WAY:
        cure = "move away what is in the way"
    name = f"{error.filename}: " if error.filename is not None else ""
    return f"{name}{reason}; {cure}, then run it again"
