"""Where trainings run: in processes of this machine, on a Ray cluster or as SLURM jobs, with the same results.

A place starts trainings and tells how they ended. What is tried again, and what a Ctrl-C does, is the same at all of
them: `carry_out_all` decides it. Ray and submitit are loaded when their place is named, and not before.
"""

from ganvas.experiments.places.dispatch import RETRIES, Interrupted, Tell, carry_out_all
from ganvas.experiments.places.local import Local
from ganvas.experiments.places.place import PLACES, Call, Place, place_named
from ganvas.experiments.places.work import DIVERGED, Ended, Work, divergence, finished

__all__ = [
    "DIVERGED",
    "PLACES",
    "RETRIES",
    "Call",
    "Ended",
    "Interrupted",
    "Local",
    "Place",
    "Tell",
    "Work",
    "carry_out_all",
    "divergence",
    "finished",
    "place_named",
]
