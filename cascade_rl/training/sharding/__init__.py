"""How a policy is spread over ranks: one small protocol (``base``), a strategy a file."""
