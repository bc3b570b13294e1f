"""Numbers that come over the network, and may be anything."""

from wsss import UserError


def require_number(name: str, value: object, most: float = 1, least: float = 0) -> None:
    """Raises UserError unless the value is a number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UserError(f"{name} must be a number from {least:g} to {most:g}, got {value!r}")
