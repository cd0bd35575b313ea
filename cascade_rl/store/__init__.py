"""Identity, lineage and atomic writes."""

from cascade_rl.store.identity import differences, identity_fields, identity_of
from cascade_rl.store.job import Job, PlannedBenchmark, Reads
from cascade_rl.store.records import StageFolder, Store

__all__ = [
    "Job",
    "PlannedBenchmark",
    "Reads",
    "StageFolder",
    "Store",
    "differences",
    "identity_fields",
    "identity_of",
]
