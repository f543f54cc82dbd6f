"""What the whole suite shares. Any test may import it; it imports farm, and no test.

harness           pictures to label, the fake model and its runs, rows to compare with, processes to disturb and await
engines           the same run on each engine, and what must be true of every run directory
checkout          where the checkout and the shared data lie
driver            a driver of CUDA devices that is made up: its command, its files, the binding of its library
recorded_outputs  what networks put out for a batch, and what Ultralytics finds in it
"""
