"""Who is seen when: the order of pictures as a function of (seed, epoch), a process's share, reading ahead.

There is no iterator whose state could be lost: the step alone says which pictures come. No torch here.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from training.adversarial.pictures import PictureSet, Pixels, stack_pictures

Rows = npt.NDArray[np.int64]


class Order:
    """An endless sequence of epochs, each a permutation of its own; mirrored sets count every picture twice."""

    def __init__(self, count: int, seed: int, mirrored: bool = False) -> None:
        self.count, self.mirrored, self.total = count, mirrored, count * (2 if mirrored else 1)

        @lru_cache(maxsize=2)
        def permute(epoch: int) -> Rows:
            return np.random.default_rng([seed, 1, epoch]).permutation(self.total)

        self._permute = permute

    def at(self, place: int) -> tuple[int, bool]:
        """Give the picture at a place since the start of training, and whether it is mirrored."""
        epoch, within = divmod(place, self.total)
        row = int(self._permute(epoch)[within])
        return row % self.count, row >= self.count


def share_rows(batch: int, group_size: int, world: int, rank: int, micro_batch: int) -> list[Rows]:
    """Give this process's rows of the global batch, cut into micro-batches.

    Minibatch std compares groups whose members stand batch/group apart. Groups stay whole, and each micro-batch has
    its members in the same order, so that cutting and sharing change nothing of what is computed.
    Raises: ValueError when the batch can't be cut so.
    """
    if micro_batch % group_size or batch % (world * micro_batch):
        raise ValueError(
            f"a batch of {batch} can't be cut into micro-batches of {micro_batch} on {world} processes with groups of "
            f"{group_size}: the micro-batch must be a multiple of the group, and processes × micro-batch must divide "
            "the batch"
        )
    groups, per_micro = batch // group_size, micro_batch // group_size
    mine = range(rank * per_micro, groups, world * per_micro)
    return [
        np.array([member * groups + start + i for member in range(group_size) for i in range(per_micro)], np.int64)
        for start in mine
    ]


class Reader:
    """Gives batches of pictures and labels, decoded on threads some steps ahead."""

    def __init__(self, pictures: PictureSet, order: Order, batch: int, rows: list[Rows], threads: int = 2) -> None:
        self.pictures, self.order, self.batch, self.rows = pictures, order, batch, rows
        self._pool = ThreadPoolExecutor(threads, "pictures") if threads else None
        self._ahead: dict[tuple[int, int], list[Future[Pixels]]] = {}
        self._steps_ahead = 2

    def read(self, step: int, micro: int) -> tuple[Pixels, npt.NDArray[np.float32]]:
        """Give a micro-batch of a step.

        Shapes: [n,R,R,3], [n,label_dim]. Raises: DataError with a file's name.
        """
        places = [self.order.at(place)[0] for place in self._places(step, micro)]
        labels = np.stack([self.pictures.label(index) for index in places])
        if self._pool is None:
            return stack_pictures(map(self._read_one, self._places(step, micro))), labels
        for later in range(step, step + self._steps_ahead):
            for part in range(len(self.rows)):
                if (later, part) not in self._ahead and (later, part) >= (step, micro):
                    self._ahead[later, part] = self._submit(later, part)
        futures = self._ahead.pop((step, micro))
        for key in [key for key in self._ahead if key < (step, micro)]:
            del self._ahead[key]  # left over from before a jump
        return stack_pictures(future.result() for future in futures), labels

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _places(self, step: int, micro: int) -> list[int]:
        return [step * self.batch + int(row) for row in self.rows[micro]]

    def _submit(self, step: int, micro: int) -> list[Future[Pixels]]:
        assert self._pool is not None
        read: Callable[[int], Pixels] = self._read_one
        return [self._pool.submit(read, place) for place in self._places(step, micro)]

    def _read_one(self, place: int) -> Pixels:
        index, mirrored = self.order.at(place)
        picture = self.pictures.read(index)
        return picture[:, ::-1] if mirrored else picture
