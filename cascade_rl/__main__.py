"""``python -m cascade_rl recipes/x.yaml``, and so ``accelerate launch -m cascade_rl recipes/x.yaml``."""

from cascade_rl.cli.main import main

if __name__ == "__main__":
    main()
