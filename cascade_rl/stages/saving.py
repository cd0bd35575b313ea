"""Publishing a state that every rank has a part of.

main rank                         other ranks
makes an empty folder      ──►    all write their files into it, each sees them safe on the disk
gathers what was written   ◄──    sizes and hashes
writes the manifest, renames the folder: the state is there, whole
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cascade_rl.stages.context import Context
from cascade_rl.store.files import disk_fault, publishing, sync_file, write_json
from cascade_rl.training import state as states

Write = Callable[[Path], Iterable[Path]]
"""Put this rank's files into a folder; returns them."""


def save_together(context: Context, step: int, write: Write) -> bool:
    """Publish ``state/step-...``. A collective call; all ranks get the same answer.

    A disk that takes no more on one rank pauses saving on all, with a warning: the last good state stays, training goes
    on.
    """
    fault: OSError | None = None
    try:
        with contextlib.ExitStack() as opened:
            temporary: Path = _agreed(context, lambda: _announced(context, opened, step))[0]
            parts = _agreed(context, lambda: _written(write, temporary))
            if context.ranks.is_main:
                write_json(temporary / states.MANIFEST, {name: entry for part in parts for name, entry in part.items()})
    except OSError as error:
        fault = error
    faults = [one for one in context.ranks.gather(fault) if one is not None]
    if faults:
        context.warn_unsaved(step, faults[0])
    elif context.ranks.is_main:
        states.drop_old(context.job.place.state)
    return not faults


def _announced(context: Context, opened: contextlib.ExitStack, step: int) -> Path | None:
    """The folder to fill, on the main rank; it is published when ``opened`` closes."""
    if not context.ranks.is_main:
        return None
    return opened.enter_context(publishing(states.step_folder(context.job.place.state, step)))


def _written(write: Write, folder: Path) -> dict[str, Any]:
    """This rank's part of the manifest, its files safe on the disk. Raises OSError when that takes no more."""
    try:
        files = list(write(folder))
        for file in files:
            sync_file(file)
    except Exception as error:
        fault = disk_fault(error)
        if fault is None or fault is error:
            raise
        raise fault from error
    return states.manifest_of(folder, files)


def _agreed(context: Context, act: Callable[[], Any]) -> list[Any]:
    """What ``act`` gave on each rank. Raises on all the OSError that it raised on one."""
    try:
        given = act()
    except OSError as error:
        given = error
    everywhere = context.ranks.gather(given)
    for one in everywhere:
        if isinstance(one, OSError):
            raise one
    return everywhere
