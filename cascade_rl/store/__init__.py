"""Identity, lineage and atomic writes."""

from cascade_rl.store.identity import differences, identity_fields, identity_of
from cascade_rl.store.job import Job, PlannedBenchmark
from cascade_rl.store.records import StageFolder, Store

__all__ = [
    "Job",
    "PlannedBenchmark",
    "StageFolder",
    "Store",
    "differences",
    "identity_fields",
    "identity_of",
]
