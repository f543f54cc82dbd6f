"""With nothing set, `farm run` gives the label files of `yolo predict`, to the byte: both command lines, side by side.

harness.py and commands.py run them; recipes.py makes checkpoints that find plenty, of benchmarks/live_weights.py;
conftest.py hands both out. Other tests may use them.
"""
