"""Conversion: a .pt for another backend, kept in a cache, and how its labels agree with torch's. Before workers start.

request      which weights, for which backend         converter         the process that converts and compares
executables  what workers load in the end             converter_client  that process, as its parent sees it
job          one conversion and comparison            int8              quantised and calibrated
identity     what they depend on, as names            comparison        the same images by both models
sampling     on how many images                       similarity        how alike two objects are
agreement    what a comparison answers                sample_images     images, read as a worker does it

The supervisor's side runs the left column and converter_client, the converter the rest. Only the converter imports
torch.
"""
