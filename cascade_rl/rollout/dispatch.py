"""Which server generates which request. Plain bookkeeping: no threads, no clock, no network."""

from __future__ import annotations

from collections import Counter, deque


class Dispatcher:
    """Requests (tickets) wait in a line per server, and each server works on ``slots`` of them at a time.

    The rollouts of one prompt go to one server, whose cache then holds the prompt; a new prompt goes where the fewest
    requests are. A server with nothing left to do takes what was asked last from the longest line.
    """

    def __init__(self, servers: int, slots: int, first: int = 0) -> None:
        """``first``: where to begin among equals, so that ranks do not all begin at the same server."""
        self._slots = slots
        self._lines: dict[int, deque[int]] = {(first + offset) % servers: deque() for offset in range(servers)}
        self._prompts: dict[int, str] = {}
        self._running: dict[int, int] = {}
        self._busy = Counter[int]()
        self._home: dict[str, int] = {}

    @property
    def living(self) -> list[int]:
        """Servers not known to be dead."""
        return sorted(self._lines)

    def load(self, server: int) -> int:
        """Requests that run or wait at ``server``."""
        return len(self._lines.get(server, ())) + self._busy[server]

    def add(self, ticket: int, prompt_id: str, avoid: int | None = None) -> None:
        """Put ``ticket`` in line, at any server but ``avoid`` where there is another. One server must be living."""
        self._prompts[ticket] = prompt_id
        home = self._home.get(prompt_id)
        if home is None or home not in self._lines or home == avoid:
            home = min(self._lines, key=lambda server: (server == avoid, self.load(server)))
            if avoid is None:
                self._home[prompt_id] = home
        self._lines[home].append(ticket)

    def next(self) -> tuple[int, int] | None:
        """(server with a free slot, ticket), which from now on runs there; None if there is none."""
        free = [server for server in self._lines if self._busy[server] < self._slots]
        for server in free:
            if self._lines[server]:
                return self._run(server, self._lines[server].popleft())
        longest = max(self._lines.values(), key=len, default=None)
        if free and longest:
            return self._run(min(free, key=self.load), longest.pop())
        return None

    def finished(self, ticket: int) -> None:
        """``ticket`` no longer runs, however that came."""
        server = self._running.pop(ticket, None)
        if server is not None:
            self._busy[server] -= 1

    def cancel(self, ticket: int) -> bool:
        """Take ``ticket`` out of its line. False if it does not wait in one."""
        for line in self._lines.values():
            if ticket in line:
                line.remove(ticket)
                return True
        return False

    def bury(self, server: int) -> None:
        """Use ``server`` no more: its line moves to the others. At least one other must be living."""
        line = self._lines.pop(server, deque())
        self._home = {prompt: home for prompt, home in self._home.items() if home != server}
        for ticket in line:
            self.add(ticket, self._prompts[ticket])

    def forget_prompts(self) -> None:
        """Caches were emptied: prompts have no home any more. Nothing may be in line."""
        self._home.clear()
        self._prompts.clear()

    def _run(self, server: int, ticket: int) -> tuple[int, int]:
        self._running[ticket] = server
        self._busy[server] += 1
        return server, ticket
