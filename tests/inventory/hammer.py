"""One of several processes that save the same GPUs at once: ``python -m tests.inventory.hammer NUMBER OF ROUNDS``.

Each saves its own part of the times, in an order of its own, in DATABASE_URL. Every round brings GPUs that nobody knows yet,
told in another order by each, beside those that all know. Any error of the database, as a deadlock is, ends it.
"""

from __future__ import annotations

import random
import sys
import time

import django

KNOWN, NEW = 20, 200
TICK = 0.5  # seconds


def main(number: int, of: int, rounds: int) -> None:
    """The rounds, and nothing on stdout."""
    django.setup()
    from inventory.sync.memory import InventoryMemory
    from tests.inventory.building import UTIL, block, gpu, seen

    memory = InventoryMemory(f"collector-{number}")
    order = random.Random(number)
    mine = [step for step in range(rounds * of) if step % of == number]
    for step in mine:
        told = [f"GPU-{step // of}-{n}" for n in range(NEW)]
        order.shuffle(told)
        # All begin a round at the same moment, else they would hardly ever meet.
        time.sleep(TICK - time.time() % TICK)
        # Rows that are known already, and hosts, would make all wait for each other in good order: so first without.
        memory.save(seen(*(block(gpu(each, hostname=""), step * 60, {UTIL: step}) for each in told)))
        told += [f"GPU-{n}" for n in range(KNOWN)]
        order.shuffle(told)
        memory.save(
            seen(
                *(
                    block(
                        gpu(each, hostname=f"host-{len(each) % 5}"),
                        step * 60,
                        {UTIL: step, f"M{step % 7}": step},
                    )
                    for each in told
                )
            )
        )
    memory.refresh()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
