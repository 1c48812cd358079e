"""Numbers as rclone writes them (``fs/sizesuffix.go``, ``fs/parseduration.go``, ``fs/accounting/stats.go``)."""

from __future__ import annotations


def size_text(number: float, unit: str = "B") -> str:
    """``0 B``, ``1.500 KiB``; three decimals where the number is not whole. ``unit`` may be ``B/s`` or ``bit/s``."""
    scaled = float(int(number))
    prefixes = iter(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))
    prefix = ""
    while scaled >= 1024 and prefix != "Ei":
        scaled /= 1024
        prefix = next(prefixes)
    return f"{scaled:.0f} {prefix}{unit}" if scaled.is_integer() else f"{scaled:.3f} {prefix}{unit}"


def rate_text(bytes_per_second: float, bits: bool) -> str:
    """A speed in bytes or in bits per second; the prefixes are powers of 1024 in both."""
    return size_text(bytes_per_second * 8, "bit/s") if bits else size_text(bytes_per_second, "B/s")


def percent_text(part: int, whole: int | None) -> str:
    """``61%``, rounded; ``-`` where there is no whole."""
    return f"{int(part * 100 / whole + 0.5)}%" if whole else "-"


_UNITS = (("y", 365 * 86400), ("w", 7 * 86400), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def duration_text(seconds: int) -> str:
    """``1d2h23m``: the three greatest units that are not zero; ``0s`` for nothing."""
    parts = []
    for name, length in _UNITS:
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts[:3]) or "0s"


def elapsed_text(seconds: float) -> str:
    """``1h2m5.3s``: tenths of seconds behind the greater units."""
    tenths = int(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    before = duration_text(minutes * 60) if minutes else ""
    return f"{before}{rest / 10:.1f}s"


def eta_seconds(moved: int, size: int | None, speed: float) -> int | None:
    """How long the rest takes at ``speed``; None where nobody can say."""
    if not size or speed <= 0 or moved > size:
        return None
    seconds = int((size - moved) / speed)
    return seconds if seconds < 2**31 else None


def eta_text(moved: int, size: int | None, speed: float) -> str:
    """The same as text; ``-`` for None."""
    seconds = eta_seconds(moved, size, speed)
    return "-" if seconds is None else duration_text(seconds)
