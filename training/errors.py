"""What can go wrong in a training run, each a sentence that says what, where and what to do about it.

    TrainingError
    ├── DivergedError            a loss or a weight is no finite number
    ├── InterruptedRunError      a signal asked the run to stop; its checkpoint is good
    ├── CheckpointMismatchError  the folder holds a checkpoint of another shape
    ├── DamagedCheckpointError   the checkpoint can't be read
    ├── DiskFullError            there is no room for what must be written
    └── DataError                pictures, labels or foreign weights that can't be used

Commands show the sentence and end with 130 after an interruption, else with 1. No torch here.
"""


class TrainingError(RuntimeError):
    """A training run cannot go on; the message says why."""


class DivergedError(TrainingError):
    """A loss was not a finite number; the last checkpoint is from before."""


class InterruptedRunError(TrainingError):
    """The run was asked to stop by a signal; its checkpoint is good to resume from."""


class CheckpointMismatchError(TrainingError):
    """A checkpoint has other tensors than the stage; the message names the first one and both shapes."""


class DamagedCheckpointError(TrainingError):
    """A checkpoint can't be read."""


class DiskFullError(TrainingError):
    """There is no room for what must be written; what was there before is still whole."""


class DataError(TrainingError):
    """Pictures, labels or foreign weights that can't be used; the message names the file."""
