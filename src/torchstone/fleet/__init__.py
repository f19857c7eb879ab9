"""Many experiments as resumable units, on this process, on several here, or on a Ray cluster.

    with fleet.crew(workers=2) as crew:
        for outcome in crew.train(units): ...       # as they end; a finished unit is not trained again

unit       Unit and Outcome; `train_unit` trains one in this process
memory     the peak memory of one unit, in a process that has trained others
here       one after the other in this process
processes  on persistent child processes; a killed one is replaced, its unit tried once more
on_ray     on a Ray cluster
"""

from typing import Literal

from torchstone.fleet.here import Here
from torchstone.fleet.on_ray import OnRay
from torchstone.fleet.processes import Processes
from torchstone.fleet.unit import Outcome, Unit, train_unit

Crew = Here | Processes | OnRay
On = Literal["processes", "ray"]

__all__ = ["Crew", "Here", "OnRay", "Outcome", "Processes", "Unit", "crew", "train_unit"]


def crew(workers: int = 1, on: On = "processes", *, warm: bool = False) -> Crew:
    """Who trains: this process, `workers` others, or as many tasks at a time on Ray. A context manager. `warm`: this process has made a
    few steps already, so the first unit has nothing to pay.

    Raises UserError for a number of workers that is none, and where Ray is asked for and missing.
    """
    if on == "ray":
        return OnRay(workers)
    return Here(warm) if workers == 1 else Processes(workers)
