"""Farm embedded: small programs to copy from, each run by a test.

codes.py     a model that is not YOLO: OpenCV's QR code detector
dataset.py   a PyTorch IterableDataset of images with their labels
task.py      a task for Airflow, Dagster and the like, safe to retry
queries.py   the parts of a run, asked with DuckDB and polars
service.py   a FastAPI service that labels folders in the background
unlocked.py  what happens when threads share one model without a lock
"""
