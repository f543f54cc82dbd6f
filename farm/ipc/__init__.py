"""What crosses processes, and what they wait for. Imported by supervisor, worker,
collector, cluster and library; may be imported by storage, too.

messages       everything that is sent, by receiver        event_loop  one wait over all that a process hears from
channel        frames from a worker to its readers         ring        slots of results: collector to supervisor
heartbeat      what a worker and the collector show        broadcast   a copy of every batch, for other programs
shared_memory  names, making and removing of segments      follower    how another program reads it
run_memory     ring, heartbeats and broadcast of one run   broadcast_layout  how it lies in its segment
"""
