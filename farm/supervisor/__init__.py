"""The parent process of a run: it starts, feeds and replaces workers, and hears the collector.

For the engines, the library and the cluster. Imports the worker and the collector only to start them.

supervisor         the loop: everything that a run does, turn by turn, and its end
callbacks          what its caller gets while it goes on: snapshots, batches
leasing            from the lister to the workers: what is queued, and who gets how much of it
lister             a thread that lists the source and says what is still to be labelled
worker_group       workers: started, fed, checked, replaced, killed; the steps of a death
lifecycle          one worker: what it gets, what it is killed for, what its death means
worker_template    what workers are told at their start
collector_link     the collector: started, told, heard, replaced
result_reader      batches: read from the ring, counted, handed on
failed_rows        rows of images that were given up on
description        task and class names, as the first worker tells them
device_watch       how busy CUDA devices are, for the summary
snapshots          what a run looks like at one moment
run_context        what these share: the run's terms, shared memory, launcher, event loop

launcher           starts children: forkserver, spawn, or threads
inheritance        what children inherit while they are started
child_process      a process: waited for, killed, put into words
worker_process     one life of a worker, and what leads to it
collector_process  one life of the collector, and the channel to it
thread_children    workers and the collector as threads: the kinds `thread` and `locked`
"""
