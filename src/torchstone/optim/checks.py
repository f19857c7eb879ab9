"""What the numbers of an optimizer may be, said once. `field` is the setting's name, as in "Adam.lr"."""

from math import inf


def check_finite(field: str, value: float) -> None:
    """Finite and 0 or more: a rate, a decay."""
    if not 0 <= value < inf:
        raise ValueError(f"{field} must be finite and >= 0, got {value}")


def check_positive(field: str, value: float) -> None:
    """Finite and more than 0: an epsilon."""
    if not 0 < value < inf:
        raise ValueError(f"{field} must be finite and > 0, got {value}")


def check_share(field: str, value: float) -> None:
    """0 or more, less than 1: what is kept of an average."""
    if not 0 <= value < 1:
        raise ValueError(f"{field} must be in [0, 1), got {value}")


def check_betas(field: str, values: tuple[float, ...]) -> None:
    if len(values) != 2 or not all(0 <= beta < 1 for beta in values):
        raise ValueError(f"{field} must be two numbers in [0, 1), got {values}")


def check_count(field: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{field} must be >= 1, got {value}")
