"""Weights files, as far as they can be known without torch or a runtime. Runs on the supervisor's side.

files         where weights are, and their digest             exported           what an export says of itself
unchanged     are they still those of the run                 onnx_metadata      the metadata of an ONNX file
checkpoint    what a .pt says of itself                       classes            classes by name → their numbers
inert_pickle  what a pickle would make, without making it     predict_arguments  what predict takes where nothing is set
foreign       checkpoints that hold no model of Ultralytics'
"""
