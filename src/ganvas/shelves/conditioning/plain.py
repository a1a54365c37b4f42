"""The critic's last layer where labels do not reach it."""

from __future__ import annotations

from ganvas.parts import conditioning
from ganvas.shelves.conditioning.head import LinearHead


@conditioning("plain")
class PlainHead(LinearHead):
    """One linear layer from features to a logit; labels are not looked at."""
