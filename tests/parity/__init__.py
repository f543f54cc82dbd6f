"""With nothing set, `farm run` gives the label files of `yolo predict`, to the byte: both command lines, side by side.

harness.py and commands.py run them; live_weights.py and recipes.py make checkpoints that find plenty; conftest.py hands
both out. Other tests may use them.
"""
