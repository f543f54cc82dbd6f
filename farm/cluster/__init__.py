"""What only a cluster needs: a driver that hands out blocks of images, and actors that label them. For the Ray engine.

driver           the parent process: lists, has blocks labelled, counts what is done
block_cutter     from the lister to blocks: how many, how large
blocks           blocks as files between driver, read task and actors
pipeline         what has blocks labelled, as the driver sees it, in a thread
block_result     what became of a block

block_executor   in an actor: labels a block and commits its part
crash_journal    what actors that died of a block had in hand
shared_lock      a lock that many threads hold together, or one alone
worker_host      in an actor: one worker, kept at work without a supervisor
orders           which rows each caller of a worker host waits for
direct_results   a worker's results, read without a collector

ray_connection   to a cluster, or a Ray of the run's own   (imports ray)
ray_nodes        what there is to plan with
ray_pipeline     blocks through Ray Data; the actor        (imports ray)
"""
