"""Speed, measured as ratios against peers in one run: `python -m benchmarks --help`. No test asserts any of it."""
