"""Samples below real data, to be heard, played or read one by one."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt

from ganvas.parts import analysis
from ganvas.types import Analysis, Evidence, Panel, Sheet


@analysis("samples")
class Samples(Analysis):
    """The first samples and the first real data, with players; nothing where a picture says it all, as of images.

    Parameters
    ----------
    count : of each.
    """

    needs = frozenset({"images", "model"})

    def __init__(self, *, count: Annotated[int, Gt(0)] = 10) -> None:
        self.count = count

    def __call__(self, evidence: Evidence) -> Panel | None:
        real, fake, model = evidence.real.images, evidence.fake.images, evidence.model
        assert real is not None and fake is not None and model is not None
        modality = model.spec.modality
        if not modality.player(modality.restored(fake[:1])):
            return None
        columns = min(5, self.count)
        sheets = (Sheet("Samples", fake[: self.count], columns), Sheet("Real data", real[: self.count], columns))
        return Panel("Samples beside real data", "In reading order, each with its player below the sheet.", sheets)
