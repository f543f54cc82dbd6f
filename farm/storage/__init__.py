"""What reaches a disk or a bucket."""
