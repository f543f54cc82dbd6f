"""The library: `Farm`, a farm inside another program, and `attach`, which follows one. Nothing in farm imports
it but farm/__init__.

farm               Farm: sections in, items in, results out
checks             what is refused when a Farm is made or a stream is asked for
spool              files for images that are none: bytes, arrays, PIL images
feed               the source that callers fill and the supervisor lists
supervisor_thread  the thread of the caller's process in which the supervisor runs
pending            items that have no result yet, and the delivery of results
prefetch           how many items are taken from a caller before their results are
streams            `map` and `batches`: results in order, or as they come
async_streams      `amap`: the same for `async for`
results            ImageResult and what it holds, as numpy arrays
attach             `attach`: the batches of a farm at work, for another process
"""
