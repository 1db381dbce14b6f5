"""What exports of true size take, and what they give: ``python -m benchmarks.full``."""
