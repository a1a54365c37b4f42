"""Class agreement on logits that are made by hand."""

from __future__ import annotations

import pytest
import torch

from ganvas.errors import DataError, UsageError
from ganvas.shelves.metrics.class_agreement import ClassAgreement, class_agreement
from ganvas.types import Evidence, EvidenceSet

LOGITS = torch.eye(4)[torch.tensor([0, 1, 2, 3, 0, 1])] * 5
LABEL = torch.tensor([0, 1, 2, 3, 3, 3])


def test_counts_hits() -> None:
    score = ClassAgreement()(Evidence(EvidenceSet(), EvidenceSet(logits=LOGITS, label=LABEL)))
    assert score == {"class_agreement": 4 / 6}
    assert class_agreement(LOGITS, [0, 1, 2, 3, 0, 1]) == 1
    assert class_agreement(LOGITS, [1, 2, 3, 0, 1, 2]) == 0


def test_errors_name_the_fault() -> None:
    with pytest.raises(UsageError, match="needs logits"):
        ClassAgreement()(Evidence(EvidenceSet(), EvidenceSet(label=LABEL)))
    with pytest.raises(UsageError, match="needs the samples' labels"):
        ClassAgreement()(Evidence(EvidenceSet(), EvidenceSet(logits=LOGITS)))
    with pytest.raises(UsageError, match="6 rows of logits"):
        class_agreement(LOGITS, LABEL[:5])
    with pytest.raises(DataError, match="labels from 0 to 4"):
        class_agreement(LOGITS, LABEL + (LABEL == 3))
    with pytest.raises(DataError, match="NaN"):
        class_agreement(LOGITS / 0, LABEL)
