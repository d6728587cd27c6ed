"""A user's mistake: said in one line, never with a traceback."""


class EnvequivError(Exception):
    """Base of everything a user can mend. The message names what was wrong and how to mend it."""


class OpenError(EnvequivError):
    """A name that does not open: which, what was looked for and what was found."""


class ContractError(EnvequivError):
    """A contract, counterexample or option that cannot be used as written."""


class CertificateError(EnvequivError):
    """No certificate vouches for the pair as it is: what is missing or stale, and the command that makes a new one."""


class Limitation(EnvequivError):
    """Something we cannot do with a backend, through no fault of its own: a verdict is then INCONCLUSIVE."""


class BudgetSpent(EnvequivError):
    """The run's time budget ended in the middle of something."""


class BackendError(EnvequivError):
    """A backend that failed while running. ``side`` is "ref" or "target", ``where`` what it was asked to do."""

    def __init__(self, side: str, where: str, message: str):
        super().__init__(f"the {'reference' if side == 'ref' else 'target'} failed in {where}: {message}")
        self.side = side
        self.where = where


class Gone(EnvequivError):
    """The target, in a process of its own, died or (``silent``) did not answer in time; that process has ended."""

    def __init__(self, where: str, message: str, silent: bool):
        super().__init__(f"the target {message} in {where}")
        self.silent = silent
