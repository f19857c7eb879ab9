"""How the report writes numbers, and the interval around a share.

Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927: unlike the usual +-, it never leaves
[0, 1] and is right for shares near 1, which is where good models are.
"""

import math

NARROW = "\u202f"
"""The space between a number and its unit: narrow, and no line breaks at it."""
MINUS = "\u2212"
TIMES = "\u00d7"
NONE = "\u2013"
"""What stands for a number there is not."""


def wilson(correct: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The 95 % score interval of a share of `correct` in `n` > 0.

    >>> [round(end, 3) for end in wilson(269, 270)]
    [0.979, 0.999]
    """
    p = correct / n
    middle = p + z * z / (2 * n)
    reach = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The ends at 0 and n are exactly 0 and 1; rounding must not say otherwise.
    low = 0.0 if correct == 0 else (middle - reach) / scale
    high = 1.0 if correct == n else (middle + reach) / scale
    return low, high


def percent(share: float | None, decimals: int = 1) -> str:
    """A share in percent. Only 1 is written as 100 and only 0 as 0: decimals are added until that holds.

    >>> percent(0.9999), percent(1.0), percent(0.123)
    ('99.99\\u202f%', '100\\u202f%', '12.3\\u202f%')
    """
    if share is None:
        return NONE
    text = f"{share * 100:.{decimals}f}"
    while 0 < share < 1 and float(text) in (0, 100) and decimals < 6:
        decimals += 1
        text = f"{share * 100:.{decimals}f}"
    text = f"{share * 100:.0f}" if share in (0, 1) else text
    return f"{text}{NARROW}%"


def count(n: int | None) -> str:
    """With commas between thousands."""
    return NONE if n is None else f"{n:,}"


def plural(n: int, noun: str, many: str = "") -> str:
    """
    >>> plural(1, "image"), plural(1200, "image"), plural(2, "class", "classes")
    ('1 image', '1,200 images', '2 classes')
    """
    return f"{n:,} {noun if n == 1 else many or noun + 's'}"


def number(value: float | None, digits: int = 4) -> str:
    """Significant digits, no trailing noise.

    >>> number(0.56262), number(1.587e-07), number(-2.5), number(123456.7), number(None)
    ('0.5626', '1.587e−7', '−2.5', '123,457', '–')
    """
    if value is None:
        return NONE
    if value != 0 and not 1e-4 <= abs(value) < 1e9:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(exponent)}".replace("-", MINUS)
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}".replace("-", MINUS)
    return f"{value:.{digits}g}".replace("-", MINUS)


def scaled(value: float | None) -> str:
    """A large number with its thousands, millions, billions as k, M, G.

    >>> scaled(3034368), scaled(950), scaled(20000)
    ('3.03 M', '950', '20 k')
    """
    if value is None:
        return NONE
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # 999,999 is 1 M and not 1,000 k.
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def memory(megabytes: float | None) -> str:
    """10^6 bytes are an MB.

    >>> memory(455.1), memory(12345.0)
    ('455\\u202fMB', '12.3\\u202fGB')
    """
    if megabytes is None:
        return NONE
    return f"{megabytes:.0f}{NARROW}MB" if megabytes < 1000 else f"{megabytes / 1000:.1f}{NARROW}GB"


def duration(seconds: float | None) -> str:
    """
    >>> duration(0.00123), duration(6.9), duration(222.0), duration(7300.0), duration(200000.0)
    ('1.23\\u202fms', '6.9\\u202fs', '3\\u202fmin 42\\u202fs', '2\\u202fh 1\\u202fmin', '2\\u202fd 7\\u202fh')
    """
    if seconds is None:
        return NONE
    if 0 < seconds < 1:
        return f"{seconds * 1000:.3g}{NARROW}ms"
    if seconds < 60:
        return f"{seconds:.1f}{NARROW}s"
    whole = round(seconds)
    for (large, size), (small, part) in ((("d", 86400), ("h", 3600)), (("h", 3600), ("min", 60)), (("min", 60), ("s", 1))):
        if whole >= size:
            return f"{whole // size}{NARROW}{large} {whole % size // part}{NARROW}{small}"
    return f"{whole}{NARROW}s"
