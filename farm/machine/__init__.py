"""The machine and the process that farm runs on: no module here knows what a run is."""
