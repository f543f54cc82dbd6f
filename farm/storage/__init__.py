"""What reaches a disk or a bucket: run directories, and the files and locks that they are made of.

Imported by sources, models and all that stands above them; knows nothing of who labels.

run_store         a run directory: open and lock it, or view it; run.json
  directory_lock    its lock: of the system, or renewed signs of life
  session           the number of a run that writes there
  parts             what lies in parts/: names, and reading one (its columns: core/schema)
  part_writer       how a part is written
  history           what the parts say of the images: done, failed, gone, newest rows
    newest_rows       which row of an image is the newest
    resumption        which images are done, and which are labelled again
  run_names         its name in shared memory

folders           files on a disk or remotely, by the same calls
  remote            an object store, or another file system that fsspec knows
  atomic_write      files on a disk that appear whole, or not at all
filesystem        what a file system may lack, and how farm does without
locks             locks of the system (flock)
scratch           temporary folders, and removal of those whose owner was killed
"""
