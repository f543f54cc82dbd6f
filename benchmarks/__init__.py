"""Benchmarks, through the public API. Each module is run by itself and prints both sides of what it compares.

python -m benchmarks                  all but gpu, one after the other
python -m benchmarks.peers            images/s beside YOLO.predict, threads, multiprocessing.Pool, ProcessPoolExecutor
python -m benchmarks.forward          how near a whole run comes to its network alone, for each backend
python -m benchmarks.streams          OpenVINO: a process a core beside one process with a stream a core
python -m benchmarks.overhead         what leasing, Arrow, the ring and fsynced parts cost an image, without a model
python -m benchmarks.scaling          1 to 64 workers on simulated cores, and a simulated device
python -m benchmarks.start            a worker's time to ready and its own memory, forkserver beside spawn
python -m benchmarks.weights          memory of a further worker, with shared weights and without
python -m benchmarks.kinds            processes, threads, and threads behind a lock
python -m benchmarks.large_images     24-megapixel photographs, decoded exactly and reduced
python -m benchmarks.library          what `Farm.map` and `Farm.submit` cost an image
python -m benchmarks.engines          Ray beside local
python -m benchmarks.resume           ten million committed rows found again: seconds and memory
python -m benchmarks.export           label files of a run that is started again: nothing, a little or everything new
python -m benchmarks.nodes            how many nodes one driver can keep busy: a simulation
python -m benchmarks.faults           the same faults in farm and in what people use today
python -m benchmarks.gpu              farm beside YOLO.predict at its best on a GPU, and what limits both

record.py prints and keeps results: with `--save` in benchmarks/results/<machine>.md, with the date.
live_weights.py makes models of any task that find plenty without training, for gpu and for tests.
"""
