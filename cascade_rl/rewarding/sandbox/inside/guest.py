"""A program under another's isolation (bubblewrap, nsjail): started for one test, with our limits on top.

python -P -s -S -c "... guest.main()" REQUEST_FILE VALUE_DESCRIPTOR
"""

from __future__ import annotations

import json
import os
import sys

from . import filters, kernel, program
from .confine import limit_resources, plan_limits

_BASE_MIB = 64
"""Of address space for the interpreter itself, about."""


def main() -> None:
    with open(sys.argv[1], encoding="utf-8", errors="surrogateescape") as file:
        request = json.load(file)
    os.dup2(int(sys.argv[2]), program.RESULT)
    is_function = request["mode"] == "function"
    is_command = request["mode"] == "command"
    limits = request["limits"]
    limit_resources(plan_limits(limits, _BASE_MIB, limits["processes"] + 1))
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if filters.is_supported():
        filters.Filter(filters.instructions(is_command, attributes=not request["as_root"])).install()
    os.set_inheritable(program.RESULT, is_function)  # a command has it until it begins, for what goes wrong before
    os.closerange(program.RESULT + (is_function or is_command), 4096)
    for name in [name for name in sys.modules if name == "inside" or name.startswith("inside.")]:
        del sys.modules[name]
    if is_function:
        program.run_function(request["program"], request["function"], request["arguments"])
    elif is_command:
        try:
            program.write_files(request["files"])
            program.run_command(request["command"], request["environment"])
        except OSError as error:
            os.write(program.RESULT, str(error).encode())
            os._exit(1)
    program.run_script(request["program"])
