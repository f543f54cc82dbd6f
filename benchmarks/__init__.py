"""Benchmarks, through the public API. Each module is run by itself and prints both sides of what it compares.

python -m benchmarks.overhead     what leasing, Arrow, the ring and fsynced parts cost an image, without a model
python -m benchmarks.peers        images/s beside YOLO.predict, threads, multiprocessing.Pool, ProcessPoolExecutor
python -m benchmarks.start        a worker's time to ready and its own memory, forkserver beside spawn
python -m benchmarks.resume       ten million committed rows found again: seconds and memory
python -m benchmarks.export       label files of a run that is started again: nothing, a little or everything new
python -m benchmarks.faults       the same faults in farm and in what people use today

`--save` appends what is printed to benchmarks/results/<machine>.md, with the date.
"""
