"""The adapter of Ultralytics' YOLO(): loading, predicting, encoding. Runs in workers, and in the converter.

adapter         YoloModel, what a worker drives             loading         weights → a warm predictor
preprocessing   images → what the network takes             load_errors     why weights do not load, in words
cuda_streams    copying, network and results side by side   settings        what Ultralytics is told
device_memory   how many images fit on a device             shared_weights  weights once for all workers of a machine
preload         what the fork server imports

postprocessing  a network's raw output → what was found, in these steps:
candidates      what lies above the confidence              scaling         pixels of the input → of the originals
suppression     which of them are kept                      masks           segments, and the polygons around them
found           what was found, as arrays of a batch        encode          these as Arrow columns
"""
