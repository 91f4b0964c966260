"""What benchmarks measure with, and how they show what they found."""
