"""The adapter of Ultralytics' YOLO(): loading, predicting, encoding. Runs in workers, and in the converter.

adapter         YoloModel, what a worker drives             loading         weights → a warm predictor
preprocessing   images → what the network takes             load_errors     why weights do not load, in words
cuda_streams    copying, network and results side by side   settings        what Ultralytics is told
postprocessing  results leave the device in one copy        shared_weights  weights once for all workers of a machine
encode          Results → Arrow columns                     preload         what the fork server imports
device_memory   how many images fit on a device

letterbox         Ultralytics' letterbox as a plan, and into given memory
pinned_slots      memory for whole batches, which decoding threads write into and a device copies from
device_input      pixels on a device → what the network takes, by the fastest way that is exact there
letterbox_kernel  letterbox.cu, compiled at start           letterbox_torch  the same in plain torch
"""
