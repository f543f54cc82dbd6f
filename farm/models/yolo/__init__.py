"""The adapter of Ultralytics' YOLO(): loading, predicting, encoding. Runs in workers, and in the converter.

adapter         YoloModel, what a worker drives             loading         weights → a warm predictor
preprocessing   images → what the network takes             load_errors     why weights do not load, in words
settings        what Ultralytics is told                    shared_weights  weights once for all workers of a machine
preload         what the fork server imports

predictor_pipeline  a batch by Ultralytics' predictor       device_pipeline  a batch through a CUDA device
cuda_streams    copying, network and masks side by side     anchors          a head's anchors, kept for every shape
device_memory   how many images fit on a device             input_memory     what the network takes, batch by batch

postprocessing  a network's raw output → what was found, in these steps:
candidates      what lies above the confidence              scaling         pixels of the input → of the originals
suppression     which of them are kept                      masks           segments, and the polygons around them
found           what was found, as arrays of a batch        encode          these as Arrow columns

letterbox         Ultralytics' letterbox as a plan, and into given memory
pinned_slots      memory for whole batches, which decoding threads write into and a device copies from
device_input      pixels on a device → what the network takes, by the fastest way that is exact there
letterbox_kernel  letterbox.cu, compiled at start           letterbox_torch  the same in plain torch
device_decoder    lists of JPEGs that the device decodes    torchcodec_lists what decodes a list
device_image      what it has decoded → the network's input
"""
