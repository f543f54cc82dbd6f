"""The process, or thread, that receives every result and commits it. Only the supervisor names its entry points.

child      entry point of the process; from start to end     spec      what it is told at its start
collector  receives, publishes, commits                      channels  the reading ends of the workers' channels
seqs       which items were received, one bit each
"""
