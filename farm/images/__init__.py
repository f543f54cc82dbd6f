"""Images: from a path to pixels. Used by workers, by what compares models, and by the library for what it hands over.
The supervisor and a cluster's worker hosts use `place_check.identity_of` alone.

decoding         bytes → pixels, as Ultralytics' reader       reading          path → bytes, or why they cannot be had
header           size and format, without decoding            diagnosis        why an image cannot be decoded, in words
tiff             the pages of a TIFF                          signatures       what a file is that is no image
baseline_jpeg    which JPEGs a device decodes
avif_heic        AVIF and HEIC, which Pillow decodes          in_memory        arrays that the library hands over
decoder_threads  the threads in which a worker decodes        place_check      is a file at fault, or where it lies
memory_budget    how much memory decoded images may take      memory_estimate  how much memory decoding one takes

A new format: the size in header.py, and where OpenCV does not read it, a module beside avif_heic.py that decoding.py
asks by the file's name.
"""
