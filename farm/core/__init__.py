"""Decisions, pure: no I/O, no clock, no process; tests/core/test_purity.py holds that. Every wing above may import it.

items        an image as listed, and a lease of them       schema        the columns of a row, and so of a part
leases       who holds which item, and what comes next     rows          rows of that schema, a batch at a time
lease_size   how many items a lease holds                  counters      counts of ok, failed, gone and detections
batch_size   how many images of a shape fit the device     summary       what a run says as it goes on, and at its end
restarts     when a dead child is replaced, when not       rates         images a second, smoothed
deadlines    is a worker stuck?                            placement     which worker runs where, with what threads
outages      when the images' place does not answer        job           a run as engines get it, and how it ended
read_errors  whose error is it: file, place or machine?    continuation  what a run directory may go on with
mounts       is an image gone, or is its disk?             run_file      what run.json holds
lost_actors  which actors of a cluster have given up       key_set       millions of item keys in little memory
marks        names of what farm makes itself              worker_life   one worker: its state and what may follow it
"""
