"""The CUDA path, for a person with a GPU: farm beside `YOLO.predict` at its best, and what limits both.

__main__   the command line: steps in the order of importance, as many as the time allows
settings   ways to run farm, of which one thing at a time is changed
inputs     what every step is given: photographs, weights, devices, and how long it may measure
steps      the steps that there are, and what each of them runs
alone      a step in a process of its own: what it gives as it comes, and an end when its time is over
journal    a line a step, printed and kept as it comes
rows       what is found in an image, and how far two ways to find it agree
smoke      rows of the device beside those of the CPU, for every task
predict    `YOLO.predict`
limits     decoding on all CPUs, decoding on the device, copies
network    the network alone
farm_run   a whole run of farm with one setting
watch      what a run's processes and devices are busy with meanwhile
kill       a worker killed in the middle, the run stopped, and continued
outcome    from the lines: the table, and the goals

Every step but the report is a function that yields lines: dictionaries that JSON can hold. A step that cannot do its
work yields a line with `error`, and the next one begins.
"""
