"""`farm tune`: plans, measured on a sample of the user's images. Imported by `cli` alone; imports `api` and below.

search.py      what is tried, in which order, and what is found
candidates.py  the settings to try
contest.py     trials one after the other, and the plan that is ahead
trials.py      one trial: a short run of its own
meter.py       its rate and memory
sample.py      the images that plans are tried on
winner.py      the winner as a config file
"""
