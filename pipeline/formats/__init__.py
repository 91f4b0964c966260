"""What comes in and what is kept of it, as bytes, JSON, forms and times. Pure; no rule of one sender or of delivery."""
