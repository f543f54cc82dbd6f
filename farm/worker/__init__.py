"""The process, or thread, that labels: decode → batch → predict → encode. Only the supervisor names its entry points.

child             entry point of the process              loop              what it does with a lease, to its end
spec              what it is told at its start            initializer       gets ready: pin, threads, model
read_ahead        items until they are decoded            image_decoder     one item to pixels, or why not
shape_batcher     decoded images until they are a batch   predictor         a batch to rows; a batch that raises
launched          batches that the device works on        failures          what is said of an error
on_device         an image that the device decodes
sender            to the collector and the supervisor     result_batcher    several batches in one message
heartbeat_writer  what it shows of itself
"""
