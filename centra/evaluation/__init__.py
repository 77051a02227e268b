"""What the answers of a task are worth: reports, comparisons of two versions, and calibration."""
