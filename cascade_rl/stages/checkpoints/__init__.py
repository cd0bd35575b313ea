"""How a stage hands its result to the next: checkpoints, RoPE scaling, adapter files."""
