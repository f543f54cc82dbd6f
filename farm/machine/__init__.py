"""The machine and the process that farm runs on. No module here knows what a run is.

Below core, config and all that does something; may be imported by everyone, and imports only errors.

available_resources  which CPUs and how much memory this process may use
cgroups              what control groups allow it
hardware             a machine as farm plans for it: cores and their nodes, memory, CUDA devices, CPU quota
pinning              where the calling process or thread may run
cuda_devices         which CUDA devices may be used, and why none where a driver is there
nvidia_smi           devices and their load, as the driver's own command tells them
nvml                 the same, as the driver's library tells it
device_load          how busy devices are while something runs, sampled
mount_points         what is mounted where
inspection           what machine this is, asked once a run
shortage             too few processes, descriptors or too little memory: by which limit, and what to set
exit_reasons         an exit code in words: SIGSEGV, out of memory

child                what every child process does first: signals, leaving with its parent
processes            which process is meant, and whether it is gone
allocator            memory that was freed stays with the process
forks                what a fork of this process must not keep
fork_server          what farm puts into multiprocessing's fork server
daemonic             children of a process that multiprocessing calls daemonic
interrupts           Ctrl-C in a program that uses farm as a library
standard_streams     standard output and error that cannot fail
working_directory    the working directory, which may be removed under the process

tracebacks           where an error was raised, for a message of one line
removal              removing what lies at a path, whatever it is
filenames            file names as the bytes on disk, whatever the locale
locations            is it a path of this machine, or a URL?
misnamed             which file was meant by a path that does not exist
"""
